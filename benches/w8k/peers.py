#!/usr/bin/env python3
"""What tools a user would pick instead find in the workload W, on the very numbers we judge.

usage: benches/w8k/peers.py [--seed N] [--out FILE]

Needs Python 3.11, the network once (PyPI) and cargo. Makes a virtual environment in target/w8k, writes the step times of
8,192 and of 1,024 ranks with `cargo bench --bench replay -- --dump` (benches/w8k/workload.rs), judges them with every
peer, replays them through `trainwarden`, and prints the table of docs/performance.md; the counts go to --out as JSON.

A rank counts as flagged when a peer flags it at least once. "resid" is the time over the median of all ranks in that
step, taken out by us before the peer sees it: the peer cannot. "Given" are the counts of another random generator (the
description of W and the same thresholds), so they need not be equal.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WORK = ROOT / "target/w8k"
PACKAGES = ["numpy==2.4.6", "river==0.26.1", "pyod==3.6.7"]
CLASSES = ["step10", "drift10", "spike40", "stealth3"]
STEPS, STRIDE, FAULT_STEP = 1_000, 128, 500
LARGE, SMALL = 8_192, 1_024


def enter_environment():
    """Starts this script again inside a virtual environment with the peers."""
    home = WORK / "venv"
    python = home / "bin/python"
    if pathlib.Path(sys.prefix) == home:
        return
    if not python.exists():
        venv.create(home, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    # One thread: what is measured are CPU seconds of one core.
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.execve(python, [python, __file__, *sys.argv[1:]], os.environ | threads)


def bench(*options):
    command = ["cargo", "bench", "--quiet", "--bench", "replay", "--", *options]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def times(ranks, seed):
    """[steps, ranks] of the workload."""
    path = WORK / f"times-{ranks}-{seed}.f64"
    bench("--dump", str(path), "--ranks", str(ranks), "--seeds", str(seed))
    return numpy.fromfile(path, dtype="<f8").reshape(STEPS, ranks)


def ours(ranks, seed):
    """Named at `warning` or above, as the bench prints it."""
    text = bench("--ranks", str(ranks), "--seeds", str(seed))
    counts = [int(re.search(rf"{name} (\d+)", text)[1]) for name in CLASSES]
    return counts, int(re.search(r"clean: (\d+)", text)[1]), float(re.search(r"([\d.]+) CPU s", text)[1])


def class_of(rank):
    place = rank % STRIDE - 1
    return place if 0 <= place < len(CLASSES) else None


def subset(ranks, count):
    """The first ranks of each class, an equal part of each fault and three quarters clean."""
    each = count // 16
    classes = [[rank for rank in range(ranks) if class_of(rank) == place][:each] for place in range(len(CLASSES))]
    clean = [rank for rank in range(ranks) if class_of(rank) is None]
    return sorted(sum(classes, []) + clean[: count - 4 * each])


def counts_of(flagged, ranks):
    """Flagged of each class, and of the clean. `flagged`: one answer for each of `ranks`."""
    of = lambda place: sum(bool(flag) for flag, rank in zip(flagged, ranks) if class_of(rank) == place)
    return [of(place) for place in range(len(CLASSES))], of(None)


# The peers. Each takes what it judges, [steps, ranks], and gives one answer a rank.


def median_mad(values):
    center = numpy.median(values, axis=1, keepdims=True)
    spread = 1.4826 * numpy.median(numpy.abs(values - center), axis=1, keepdims=True)
    return (numpy.abs(values - center) > 10 * spread).any(axis=0)


def cusum(resid, baseline=200, slack=0.5, limit=25):
    mean, deviation = resid[:baseline].mean(axis=0), resid[:baseline].std(axis=0)
    total, flagged = numpy.zeros(resid.shape[1]), numpy.zeros(resid.shape[1], dtype=bool)
    for row in resid[baseline:]:
        total = numpy.maximum(0, total + (row - mean) / deviation - slack)
        flagged |= total > limit
    return flagged


def pyod_mad(resid):
    from pyod.models.mad import MAD

    model = MAD(threshold=6)
    model.fit(resid.reshape(-1, 1))
    return (model.decision_scores_.reshape(resid.shape) > 6).any(axis=0)


def each_series(detector, is_hit):
    def judge(values):
        flagged = []
        for series in values.T:
            made = detector()
            flagged.append(any([is_hit(made, float(value)) for value in series]))
        return flagged

    return judge


def adwin():
    from river import drift

    return drift.ADWIN()


def page_hinkley():
    from river import drift

    return drift.PageHinkley(min_instances=50, delta=0.01, threshold=0.5)


def gaussian_scorer():
    from river import anomaly

    return anomaly.GaussianScorer(window_size=250)


def drifts(detector, value):
    detector.update(value)
    return detector.drift_detected


def scores_high(detector, value):
    score = detector.score_one(None, value)
    detector.learn_one(None, value)
    return score > 0.99999


def resiliency_ext(threshold):
    """Relative section score of NVIDIA Resiliency Extension: least median of all ranks over a rank's own, by the formula
    of its `straggler/reporting.py` (the package itself needs torch); one report over the last 100 steps."""

    def judge(values):
        medians = numpy.median(values[-100:], axis=0)
        return medians.min() / medians < threshold

    return judge


def peers(large, small):
    """Name, input, ranks, judge, and the counts given (of each class, of the clean)."""
    resid = lambda values: values / numpy.median(values, axis=1, keepdims=True)
    all_large, all_small, few = range(LARGE), range(SMALL), subset(SMALL, 64)
    river = "river 0.26.1 "
    large_resid, small_resid = resid(large), resid(small)
    yield "NumPy median + MAD, z > 10", "W8k", large, all_large, median_mad, ([0, 0, 64, 0], 0)
    yield "NumPy CUSUM, k 0.5, h 25", "W8k resid", large_resid, all_large, cusum, ([64, 64, 27, 64], 11)
    for threshold, given in [(0.75, [0, 0, 0, 0]), (0.9, [64, 47, 0, 0]), (0.95, [64, 64, 0, 38])]:
        name = f"NVIDIA Resiliency Ext, formula, {threshold:.2f}"
        yield name, "W8k", large, all_large, resiliency_ext(threshold), (given, 0)
    yield "PyOD 3.6.7 MAD, threshold 6", "W1k resid", small_resid, all_small, pyod_mad, ([8, 7, 8, 0], 0)
    few_resid = small_resid[:, few]
    yield river + "ADWIN", "64 ranks resid", few_resid, few, each_series(adwin, drifts), ([4, 4, 0, 1], 0)
    yield river + "ADWIN", "64 ranks", small[:, few], few, each_series(adwin, drifts), (None, 48)
    yield river + "PageHinkley", "64 ranks resid", few_resid, few, each_series(page_hinkley, drifts), ([4, 4, 3, 4], 0)
    yield river + "GaussianScorer", "64 ranks resid", few_resid, few, each_series(gaussian_scorer, scores_high), ([4, 0, 4, 0], 0)


def told(counts, clean):
    return ("–" if counts is None else " ".join(map(str, counts))) + f", {clean}"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/w8k/peers.json")
    options = options.parse_args()
    large, small = times(LARGE, options.seed), times(SMALL, options.seed)
    rows = []
    for name, data, values, ranks, judge, given in peers(large, small):
        begin = time.process_time()
        flagged = judge(values)
        cpu_s = time.process_time() - begin
        found = counts_of(flagged, ranks)
        rows.append({"peer": name, "input": data, "points": values.size, "cpu_s": round(cpu_s, 3),
                     "flagged": found[0], "clean": found[1], "given": given[0], "given_clean": given[1]})
    for ranks, data in [(LARGE, "W8k"), (SMALL, "W1k")]:
        flagged, clean, cpu_s = ours(ranks, options.seed)
        rows.append({"peer": "`trainwarden replay`, files to incidents", "input": data, "points": ranks * STEPS,
                     "cpu_s": cpu_s, "flagged": flagged, "clean": clean, "given": None, "given_clean": None})
    options.out.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1) + "\n")
    print("| tool | judged | M points/CPU-s | flagged here, clean | given, clean |\n|---|---|---|---|---|")
    for row in rows:
        rate = row["points"] / max(row["cpu_s"], 1e-3) / 1e6
        given = "" if row["given_clean"] is None else told(row["given"], row["given_clean"])
        print(f"| {row['peer']} | {row['input']} | {rate:.3g} | {told(row['flagged'], row['clean'])} | {given} |")


if __name__ == "__main__":
    enter_environment()
    import numpy

    WORK.mkdir(parents=True, exist_ok=True)
    main()
