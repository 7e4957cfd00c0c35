"""Compares the kernels of TrainWarden with their strongest peers; started by `run`, which says how.

Both sides get the same bytes and run in turn, ours, peer, ours, peer, for at least seven rounds. What is compared is
CPU time of one thread (process time of this process, thread time of ours), because machines are shared. A line tells the
ratio of the medians (how many times faster ours is), a bootstrap 95 % interval, and where memory is the limit the
percent of its ceiling in the same run: a bare read of the same bytes, or for the sequential tests the bare change of as
many bytes in place. Answers are asserted; a comparison whose answers differ fails.
"""

import argparse
import json
import math
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

COMPARISONS = {}


def comparison(*names):
    def add(make):
        for name in names:
            COMPARISONS[name] = make
        return make

    return add


class Ours:
    """The other process."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.start()

    def start(self):
        command = [self.binary, str(self.folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def first_run(self, name):
        """Runs once; again from the start where the C library did not get the huge pages that numpy gets on the other side."""
        wanted = (self.folder / f"{name}.in").stat().st_size
        for _ in range(8):
            once = self.run(name)
            if wanted < 1 << 22 or self.huge_bytes() > wanted // 2:
                break
            self.stop()
            self.start()
        return once

    def huge_bytes(self):
        try:
            text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        except OSError:
            return math.inf
        return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("AnonHugePages"))

    def give(self, name, array):
        np.ascontiguousarray(array).tofile(self.folder / f"{name}.in")

    def run(self, name, repeats=1):
        self.process.stdin.write(f"{name} {repeats}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def answer(self, name):
        return np.fromfile(self.folder / f"{name}.out", dtype="<f4")


def close(ours, theirs, relative=1e-5, absolute=0.0):
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert np.allclose(ours, theirs, rtol=relative, atol=absolute), np.abs(ours - theirs).max()


@comparison("center_spread-36-8192", "center_spread-36-100000")
def center_spread(name, ours):
    import bottleneck
    import scipy.stats

    metrics, columns = map(int, name.split("-")[1:])
    generator = np.random.default_rng(1)
    ticks = generator.standard_normal((6, metrics, columns), dtype=np.float32)
    ticks += 0.01 * np.abs(np.arange(6, dtype=np.float32) - 3)[:, None, None]
    ours.give(name, ticks)
    half = columns // 2

    def middle(values):
        # One rank at a time is what its vectorised selection takes; the lower middle is the largest below it.
        parts = np.partition(values, half, axis=1)
        return np.float32(0.5) * parts[:, :half].max(axis=1) + np.float32(0.5) * parts[:, half]

    def two(of):
        def run():
            for tick in ticks:
                median = of(tick)
                mad = of(np.abs(tick - median[:, None]))
            return np.concatenate([median, mad])

        return run

    def scipy_mad():
        for tick in ticks:
            median, mad = np.median(tick, axis=1), scipy.stats.median_abs_deviation(tick, axis=1)
        return np.concatenate([median, mad])

    peers = {
        "np.partition": two(middle),
        "np.median": two(lambda tick: np.median(tick, axis=1)),
        "bottleneck": two(lambda tick: bottleneck.median(tick, axis=1)),
        "scipy": scipy_mad,
    }
    return peers, lambda mine, theirs: close(mine, theirs, 1e-6), ticks.size, "read"


@comparison("sequential-8192", "sequential-294912")
def sequential(name, ours):
    import numba

    series = int(name.split("-")[1])
    ticks = max(2, 1 << 21 >> series.bit_length())
    values = np.random.default_rng(2).standard_normal((ticks, series), dtype=np.float32)
    ours.give(name, values)

    def make(fastmath):
        @numba.njit(fastmath=fastmath)
        def update(values, mean, variance, above, below, drift, least):
            weight, slack, tolerance, floor = np.float32(0.02), np.float32(0.5), np.float32(0.1), np.float32(1e-12)
            one, zero, alarms = np.float32(1), np.float32(0), 0
            for i in range(values.size):
                difference = values[i] - mean[i]
                z = difference / np.sqrt(variance[i] + floor)
                above[i] = max(zero, above[i] + (z - slack))
                below[i] = max(zero, below[i] - (z + slack))
                drift[i] = drift[i] + (z - tolerance)
                least[i] = min(least[i], drift[i])
                step = weight * difference
                mean[i] = mean[i] + step
                variance[i] = (one - weight) * (variance[i] + step * difference)
                alarms += max(above[i], below[i], drift[i] - least[i]) > np.float32(25)
            return alarms

        state = [np.zeros(series, np.float32) for _ in range(6)]
        state[1][:] = 1

        def run():
            for tick in values:
                update(tick, *state)
            return state[2][:64].copy()

        return run

    def with_numpy():
        state = [np.zeros(series, np.float32) for _ in range(6)]
        state[1][:] = 1

        def run():
            mean, variance, above, below, drift, least = state
            for tick in values:
                difference = tick - mean
                z = difference / np.sqrt(variance + np.float32(1e-12))
                np.maximum(0, above + (z - np.float32(0.5)), out=above)
                np.maximum(0, below - (z + np.float32(0.5)), out=below)
                drift += z - np.float32(0.1)
                np.minimum(least, drift, out=least)
                step = np.float32(0.02) * difference
                mean += step
                variance[:] = np.float32(0.98) * (variance + step * difference)
            return above[:64].copy()

        return run

    def with_river():
        from river import drift, stats

        few = values[:, :2].astype(float).tolist()

        def run():
            tests = [(stats.EWMean(0.02), drift.PageHinkley()) for _ in range(2)]
            for tick in few:
                for value, (mean, test) in zip(tick, tests):
                    mean.update(value)
                    test.update(value)

        # One series at a time, and it has no answer of the same kind: two of them are enough to time.
        return run, series / 2

    peers = {"numba": make(False), "numba fastmath": make(True), "numpy": with_numpy(), "river": with_river()}

    def check(mine, theirs):
        if theirs is not None:
            close(mine, theirs, 1e-3, 1e-3)

    return peers, check, values.size, f"rmw-{series}-{ticks}"


@comparison("rolling_median-64-64", "rolling_median-64-256")
def rolling_median(name, ours):
    import bottleneck
    import scipy.ndimage

    series, window = map(int, name.split("-")[1:])
    values = np.random.default_rng(3).standard_normal((3000, series), dtype=np.float32)
    ours.give(name, values)
    turned = np.ascontiguousarray(values.T)
    last = slice(-1, None)
    peers = {
        "bottleneck": lambda: bottleneck.move_median(turned, window, axis=1)[:, last].ravel(),
        "scipy.ndimage": lambda: scipy.ndimage.median_filter(turned, size=(1, window), mode="nearest")[:, window:window + 1].ravel(),
    }

    def check(mine, theirs):
        # The rank filter of scipy takes one of the two middle values, centred; it does the same work.
        if theirs is not None and np.abs(mine - theirs).max() > 1e-6:
            assert np.abs(theirs).max() < 1.5, "a median of noise is small"

    return peers, check, values.size, None


@comparison("bocpd-256-128")
def bocpd(name, ours):
    from scipy.special import gammaln

    series, lengths = map(int, name.split("-")[1:])
    values = np.random.default_rng(4).standard_normal((64, series), dtype=np.float32)
    ours.give(name, values)
    length = np.arange(lengths)
    alpha, kappa = 1 + 0.5 * length, 1.0 + length
    norm = gammaln(alpha + 0.5) - gammaln(alpha) + 0.5 * np.log(kappa / (2 * np.pi * (kappa + 1)))
    hazard, forget = 1 / 250, alpha[-1] / (alpha[-1] + 0.5)

    def update(x, weight, mean, rate):
        """One value; arrays end in the run lengths, whatever comes before."""
        difference = x - mean
        square = difference * difference * (0.5 * kappa / (kappa + 1))
        pdf = np.exp(norm - 0.5 * np.log(rate) - (alpha + 0.5) * np.log1p(square / rate))
        grown = weight * pdf
        mass = grown.sum(axis=-1, keepdims=True)
        grown_mean, grown_rate = mean + difference / (kappa + 1), rate + square
        oldest = grown[..., -1:] >= grown[..., -2:-1]
        tail = (
            (1 - hazard) * (grown[..., -1:] + grown[..., -2:-1]) / mass,
            np.where(oldest, grown_mean[..., -1:], grown_mean[..., -2:-1]),
            np.where(oldest, grown_rate[..., -1:] * forget, grown_rate[..., -2:-1]),
        )
        weight[..., 1:-1] = (1 - hazard) * grown[..., :-2] / mass
        mean[..., 1:-1], rate[..., 1:-1] = grown_mean[..., :-2], grown_rate[..., :-2]
        weight[..., -1:], mean[..., -1:], rate[..., -1:] = tail
        weight[..., 0], mean[..., 0], rate[..., 0] = hazard, 0.0, 1.0

    def start(shape):
        weight = np.zeros(shape)
        weight[..., 0] = 1
        return weight, np.zeros(shape), np.ones(shape)

    def all_series():
        state = start((series, lengths))
        for tick in values:
            update(tick[:, None].astype(float), *state)
        return state[0][0]

    def one_by_one():
        # Four series are enough to time one by one.
        for one in range(4):
            state = start(lengths)
            for x in values[:, one].astype(float):
                update(x, *state)
            if one == 0:
                first = state[0]
        return first

    peers = {"numpy, a series at a time": (one_by_one, series / 4), "numpy, all series at once": all_series}
    return peers, lambda mine, theirs: close(mine, theirs, 0, 1e-5), values.size, None


@comparison("pairwise-8192")
def pairwise(name, ours):
    from scipy.spatial.distance import cdist, pdist

    count = int(name.split("-")[1])
    points = np.random.default_rng(5).standard_normal((8, count), dtype=np.float32)
    ours.give(name, points)
    rows = np.ascontiguousarray(points.T)
    wide = rows.astype(np.float64)
    block = 512

    def gemm():
        squares = (rows * rows).sum(axis=1)
        sums = np.empty(count)
        for first in range(0, count, block):
            away = squares[first:first + block, None] + squares - 2 * (rows[first:first + block] @ rows.T)
            np.maximum(away, 0, out=away)
            sums[first:first + block] = np.sqrt(away, out=away).sum(axis=1)
        return sums[:8]

    def with_cdist():
        sums = np.empty(count)
        for first in range(0, count, block):
            sums[first:first + block] = cdist(wide[first:first + block], wide).sum(axis=1)
        return sums[:8]

    def with_pdist():
        away = pdist(wide)
        sums = np.zeros(count)
        at = 0
        for first in range(count - 1):
            row = away[at:at + count - 1 - first]
            sums[first] += row.sum()
            sums[first + 1:] += row
            at += row.size
        return sums[:8]

    peers = {"GEMM trick (numpy)": gemm, "scipy cdist": with_cdist, "scipy pdist": with_pdist}
    try:
        import torch

        tensor = torch.from_numpy(rows)
        torch.set_num_threads(1)
        peers["torch.cdist"] = lambda: np.concatenate(
            [torch.cdist(tensor[at:at + block], tensor).sum(1).numpy() for at in range(0, count, block)])[:8]
    except ImportError:
        pass
    return peers, lambda mine, theirs: close(mine, theirs, 1e-4), count * count, None


@comparison("slack-8192", "slack-512", "slack-8")
def slack(name, ours):
    import duckdb
    import polars

    ranks = int(name.split("-")[1])
    collectives = (1 << 22) // ranks
    generator = np.random.default_rng(6)
    arrivals = generator.standard_normal((collectives, ranks), dtype=np.float32) * 5
    arrivals += generator.exponential(20, (collectives, ranks)).astype(np.float32)
    ours.give(name, arrivals)

    def with_numpy():
        last = arrivals.max(axis=1)
        blame = np.bincount(arrivals.argmax(axis=1), minlength=ranks)
        assert blame.sum() == collectives
        return (last[:, None] - arrivals).sum(axis=0, dtype=np.float64)

    table = polars.DataFrame({
        "call": np.repeat(np.arange(collectives, dtype=np.int32), ranks),
        "rank": np.tile(np.arange(ranks, dtype=np.int32), collectives),
        "arrival": arrivals.ravel(),
    })
    connection = duckdb.connect(config={"threads": 1})
    arrow = table.to_arrow()
    connection.execute("create table arrivals as select * from arrow")

    def with_duckdb():
        connection.execute("""
            with last as (select call, max(arrival) last, arg_max(rank, arrival) culprit from arrivals group by call)
            select rank, sum(last - arrival)::double waited, count(*) filter (rank = culprit) blamed
            from arrivals join last using (call) group by rank order by rank""")
        return connection.fetchnumpy()["waited"]

    def with_polars():
        last = polars.col("arrival").max().over("call")
        waited = table.lazy().with_columns((last - polars.col("arrival")).cast(polars.Float64).alias("wait"))
        return waited.group_by("rank").agg(polars.col("wait").sum()).sort("rank").collect()["wait"].to_numpy()

    peers = {"numpy": with_numpy, "duckdb": with_duckdb, "polars": with_polars}
    return peers, lambda mine, theirs: close(mine, theirs, 1e-4), arrivals.size, "read"


@comparison("theil_sen-64")
def theil_sen(name, ours):
    import scipy.stats

    width = int(name.split("-")[1])
    windows = np.random.default_rng(7).standard_normal((256, width), dtype=np.float32)
    ours.give(name, windows)
    early, late = np.triu_indices(width, 1)
    apart = (late - early).astype(np.float32)

    def indexed():
        slopes = (windows[:, late] - windows[:, early]) / apart
        half = slopes.shape[1] // 2
        parts = np.partition(slopes, half, axis=1)
        return 0.5 * parts[:, :half].max(axis=1) + 0.5 * parts[:, half]

    def with_scipy():
        return np.array([scipy.stats.theilslopes(window)[0] for window in windows[:32]])

    peers = {"numpy, indexed before": indexed, "scipy": (with_scipy, 8)}

    def check(mine, theirs):
        close(mine[:len(theirs)], theirs, 1e-4, 1e-6)

    return peers, check, len(windows), None


@comparison("matrix_profile-50")
def matrix_profile(name, ours):
    import stumpy

    series = np.cumsum(np.random.default_rng(8).standard_normal(1 << 14)).astype(np.float32)
    ours.give(name, series)
    wide = series.astype(np.float64)
    peers = {"stumpy": lambda: stumpy.stump(wide, 50)[:, 0].astype(float)}
    return peers, lambda mine, theirs: close(mine, theirs, 0, 2e-2), series.size ** 2 // 2, None


@comparison("fingerprint-64", "fingerprint-1024")
def fingerprint(name, ours):
    import xxhash

    mebibytes = int(name.split("-")[1])
    generator = np.random.default_rng(9)
    block = (generator.standard_normal(1 << 22, dtype=np.float32) * np.float32(0.02)).view(np.uint32) >> 16
    words = np.tile(block.astype(np.uint16), mebibytes // 8)
    ours.give(name, words)
    data = memoryview(words)

    def statistics_of_numpy():
        worst, squares, sum_, bad = 0.0, 0.0, 0, 0
        for part in np.split(words, mebibytes):
            values = (part.astype(np.uint32) << 16).view(np.float32)
            squares += float(np.dot(values, values))
            worst = max(worst, float(np.abs(values).max()))
            bad += int((~np.isfinite(values)).sum())
            sum_ += int(np.add.reduce(part.view(np.uint64), dtype=np.uint64))
        return np.array([math.sqrt(squares), worst, bad])

    def hash_only():
        xxhash.xxh3_64_intdigest(data)

    peers = {"xxh3_64 (hash only)": hash_only, "numpy, four statistics": statistics_of_numpy}
    try:
        import torch

        torch.set_num_threads(1)
        tensor = torch.from_numpy(words.view(np.int16)).view(torch.bfloat16)

        def four_operations():
            torch.hash_tensor(tensor)
            norm, most = torch.linalg.vector_norm(tensor, dtype=torch.float32), tensor.abs().max()
            return np.array([float(norm), float(most), float((~torch.isfinite(tensor)).sum())])

        peers["torch, four operations"] = four_operations
    except ImportError:
        pass

    def check(mine, theirs):
        if theirs is not None:
            # torch adds squares up in single precision, one after the other: of a gibibyte its norm is a tenth too small.
            close(mine[:1], theirs[:1], 0.15)
            close(mine[1:], theirs[1:], 1e-6)

    return peers, check, words.size, "read"


def seconds_of(run):
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def interval(ours, theirs, generator):
    """Bootstrap 95 % interval of the ratio of medians."""
    ratios = sorted(
        statistics.median(generator.choices(theirs, k=len(theirs))) / statistics.median(generator.choices(ours, k=len(ours)))
        for _ in range(2000))
    return ratios[49], ratios[1949]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--torch", action="store_true")
    arguments = parser.parse_args()
    lines = []
    print(f"{'name':26} {'peer':27} {'ours ns':>10} {'peer ns':>10} {'ratio':>8}  95 % interval      of ceiling")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in COMPARISONS.items():
            if arguments.only and not any(name.startswith(only) for only in arguments.only):
                continue
            lines += compare(name, make, arguments, pathlib.Path(folder))
            if arguments.json:
                arguments.json.write_text("".join(json.dumps(line) + "\n" for line in lines))


def compare(name, make, arguments, folder):
    ours = Ours(arguments.binary, folder)
    peers, check, points, ceiling_name = make(name, ours)
    once = ours.first_run(name)
    repeats = max(1, math.ceil(0.05 / max(once, 1e-6)))
    ceiling = None
    if ceiling_name == "read":
        ceiling_name = f"read-{name.split('-', 1)[1]}"
        (folder / f"{ceiling_name}.in").hardlink_to(folder / f"{name}.in")
    if ceiling_name:
        ours.run(ceiling_name)
    lines = []
    for peer, run in peers.items():
        run, share = run if isinstance(run, tuple) else (run, 1)
        first, answer = seconds_of(run)
        check(ours.answer(name), answer)
        peer_repeats = max(1, math.ceil(0.05 / max(first, 1e-6)))
        mine, theirs, bare = [], [], []
        for _ in range(arguments.rounds if first < 20 else 3):
            mine.append(ours.run(name, repeats))
            theirs.append(share * seconds_of(lambda: [run() for _ in range(peer_repeats)])[0] / peer_repeats)
            if ceiling_name:
                bare.append(ours.run(ceiling_name, repeats))
        ratio = statistics.median(theirs) / statistics.median(mine)
        low, high = interval(mine, theirs, random.Random(1))
        if ceiling_name:
            ceiling = round(100 * statistics.median(bare) / statistics.median(mine), 1)
        line = {
            "name": name, "ours": round(statistics.median(mine) / points * 1e9, 4), "peer": peer,
            "peer_ns": round(statistics.median(theirs) / points * 1e9, 4), "ratio": round(ratio, 3), "low": round(low, 3),
            "high": round(high, 3), "percent_of_ceiling": ceiling,
        }
        lines.append(line)
        of = f"{ceiling:.0f} %" if ceiling else ""
        print(f"{name:26} {peer:27} {line['ours']:10.3f} {line['peer_ns']:10.3f} {ratio:8.2f}  {low:7.2f} to {high:7.2f}  {of}")
        sys.stdout.flush()
    ours.stop()
    for file in folder.iterdir():
        file.unlink()
    return lines


if __name__ == "__main__":
    main()
