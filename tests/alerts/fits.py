#!/usr/bin/env python3
"""Validates JSON against a JSON Schema: one object a line with `schema` (a path) and `json`.

Prints how many fit. Ends with 1 where one does not, or where one of which a required part was taken away does.
"""
import json
import sys

from jsonschema import Draft202012Validator

count = 0
for line in sys.stdin:
    case = json.loads(line)
    with open(case["schema"]) as file:
        schema = json.load(file)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(case["json"])
    for name in schema["required"]:
        cut = {key: value for key, value in case["json"].items() if key != name}
        assert not validator.is_valid(cut), f"it fits without `{name}`"
    count += 1
print(count)
