#!/usr/bin/env python3
"""Verifies signed webhooks with libraries that are not ours.

Reads one JSON object a line: secret, headers, body. A `whsec_` secret is given to the reference library of Standard
Webhooks; a `whpk_` key is given to `cryptography`, because that library knows no ed25519. Ends with 1 where one does not
hold, or where one whose body was changed does.
"""
import base64
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError


def holds(secret: str, headers: dict, body: str) -> bool:
    if secret.startswith("whsec_"):
        try:
            Webhook(secret).verify(body, headers)
            return True
        except WebhookVerificationError:
            return False
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(secret.removeprefix("whpk_")))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    for signature in headers["webhook-signature"].split(" "):
        version, _, encoded = signature.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(encoded), content)
                return True
            except InvalidSignature:
                pass
    return False


count = 0
for line in sys.stdin:
    webhook = json.loads(line)
    assert holds(**webhook), f"a signature does not hold: {webhook['headers']}"
    webhook["body"] = webhook["body"].replace("incident", "accident", 1)
    assert not holds(**webhook), "a signature holds for another body"
    count += 1
print(count)
