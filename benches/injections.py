#!/usr/bin/env python3
"""How many injected faults `trainwarden` finds on real backgrounds. Needs Python 3.9 and the release binary.

usage: benches/injections.py [--count N] [--seed N]

Each fault of tests/data/real/tools/inject.py is laid over N clean runs (drawn with the seed from those of 200 rows and
more) at 60 % of their rows. Found: an incident of `warning` or above of the fitting family, detected between 20 steps
before the fault and its end. Prints the table of docs/quality.md.
"""
import argparse
import csv
import gzip
import json
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data/real"
BINARY = ROOT / "target/release/trainwarden"
ROWS_MIN = 200
TEMPLATES = ["tr1_13B_29020", "tr8_104B_7000", "tr8_104B_11446", "tr11_176B_31214"]
FAMILY = {"slow": "slowdown.", "ramp": "slowdown.", "spike": "divergence.", "diverge": "divergence.", "freeze": "telemetry."}
EXACT = {"slow": "slowdown.run", "ramp": "slowdown.run", "spike": "divergence.loss_spike", "diverge": "divergence.drift",
         "freeze": "telemetry.replay"}


def faults():
    for factor in ("1.1", "1.2", "1.3"):
        yield f"step time x {factor} from then on", "step_time_s", "slow", ["--factor", factor]
    yield "step time creeping to x 1.2", "step_time_s", "ramp", ["--factor", "1.2"]
    for kind in ("spike", "diverge"):
        for name in TEMPLATES:
            yield f"loss, {kind} like {name}", "train_loss", kind, ["--templates", str(DATA / "incidents/templates.json"), "--template", name]
    yield "loss frozen at one value", "train_loss", "freeze", []


def backgrounds(column, chance):
    with open(DATA / "runs.csv") as index:
        files = [row["file"] for row in csv.DictReader(index)
                 if row["clean"] == "yes" and row["file"].startswith("train/") and column in row["signals"].split()
                 and int(row["rows"]) >= ROWS_MIN and not has_many_runs(row["file"])]
    chance.shuffle(files)
    return files


def open_rows(file):
    path = DATA / file
    return gzip.open(path, "rt") if file.endswith(".gz") else open(path)


def has_many_runs(file):
    with open_rows(file) as rows:
        return "run" in next(csv.reader(rows))


def steps_with(file, column):
    with open_rows(file) as rows:
        return [int(float(row["step"])) for row in csv.DictReader(rows) if row.get(column)]


def incidents_after(file, kind, arguments):
    with tempfile.TemporaryDirectory() as folder:
        injected, run = f"{folder}/run.csv", f"{folder}/run"
        inject = [sys.executable, str(DATA / "tools/inject.py"), str(DATA / file), injected, kind, *arguments]
        subprocess.run(inject, check=True, capture_output=True)
        subprocess.run([BINARY, "import", "wide", injected, "--out", run, "--format", "csv"], check=True, capture_output=True)
        output = subprocess.run([BINARY, "replay", run, "--json"], check=True, capture_output=True, text=True)
        return [json.loads(line) for line in output.stdout.splitlines()]


def is_found(incident, kind, start, end):
    detected = incident.get("detected_step", -1)
    return "merged_into" not in incident and incident["kind"].startswith(FAMILY[kind]) and start - 20 <= detected <= end


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    print("| fault | found | of the exact kind | as a note only | median delay in rows |\n|---|---|---|---|---|")
    for name, column, kind, options in faults():
        found = exact = notes = 0
        delays = []
        files = backgrounds(column, random.Random(arguments.seed))[:arguments.count]
        for file in files:
            steps = steps_with(file, column)
            start, end = steps[int(0.6 * len(steps))], steps[-1]
            hits = [hit for hit in incidents_after(file, kind, ["--at", str(start), *options]) if is_found(hit, kind, start, end)]
            alarms = [hit for hit in hits if hit["severity"] != "info"]
            found += bool(alarms)
            exact += any(hit["kind"] == EXACT[kind] for hit in alarms)
            notes += bool(hits) and not alarms
            if alarms:
                detected = min(hit["detected_step"] for hit in alarms)
                delays.append(sum(start < step <= detected for step in steps))
        delay = sorted(delays)[len(delays) // 2] if delays else "–"
        print(f"| {name} | {found} of {len(files)} | {exact} | {notes} | {delay} |", flush=True)


if __name__ == "__main__":
    main()
