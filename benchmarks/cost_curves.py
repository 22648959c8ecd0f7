"""Cost of one image by the size of the memory bank, the size of the frame, and the number of threads.

    python benchmarks/cost_curves.py measure KIT --out costs.json [--rows 100 1000 10000 100000 1000000]
    python benchmarks/cost_curves.py draw benchmarks/figures/costs.json --out docs/costs.svg

KIT needs an fp32 and an int8 model. The rows of the bank are random, around 50 centres, with the kit's dimension. Each
search is timed right after an embedding, as in use: the processor's cache then holds the network and not the bank.
Recall is the share of the two nearest rows that HNSW finds, for 200 rows that are not in the bank.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hnswlib
import numpy as np
from common import parser_of, random_frame
from timing import median, medians

from msc_edge.bank import Bank, ExactSearch, HnswSearch
from msc_edge.export.index import EF_CONSTRUCTION, M, least_ef
from msc_edge.figures import FigureAxes, Line, figure, line_plot
from msc_edge.parallel import ordered_map
from msc_edge.runtime import Detector
from msc_edge.runtime.processor import usable_cores

SIDES = [(224, 224), (320, 240), (640, 480), (1280, 720), (1920, 1080), (2592, 1944), (3840, 2160)]
ROUNDS = 41
SECONDS = 5.0  # of each measurement of throughput


def clustered(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows around 50 centres, float32 (count, dim), made in pieces to save memory."""
    centres = rng.normal(size=(50, dim)).astype(np.float32)
    rows = np.empty((count, dim), np.float32)
    for first in range(0, count, 20_000):
        piece = rows[first : first + 20_000]
        piece[:] = centres[rng.integers(50, size=len(piece))] + 0.3 * rng.standard_normal(piece.shape, np.float32)
        piece /= np.linalg.norm(piece, axis=1, keepdims=True)
    return rows


def bank_costs(detector: Detector, count: int) -> dict[str, float]:
    """Milliseconds and memory of both searches over a bank of `count` rows."""
    dim = detector.bank.embeddings.shape[1]
    rows = clustered(count + 200, dim, np.random.default_rng(0))
    bank, queries = rows[:count], rows[count:]
    index = hnswlib.Index(space="cosine", dim=dim)
    index.init_index(max_elements=count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)
    start = time.perf_counter()
    index.add_items(bank, np.arange(count), num_threads=usable_cores())
    building = time.perf_counter() - start
    ef, recall = least_ef(index, bank, queries, 2)
    with tempfile.TemporaryDirectory() as scratch:
        index.save_index(f"{scratch}/bank.hnsw")
        size = Path(scratch, "bank.hnsw").stat().st_size
    exact, hnsw = Bank(bank, search=ExactSearch(bank)), Bank(bank, search=HnswSearch(index, ef=ef))
    frame = random_frame(224, 224, seed=1)
    number = iter(range(10**9))

    def query() -> np.ndarray:
        return queries[next(number) % len(queries)]

    rounds = ROUNDS if count < 200_000 else 11
    return {
        "rows": count,
        "dim": dim,
        "embed": median(lambda: detector.embed(frame), rounds=rounds),
        "exact": median(lambda: exact.score(query()), rounds=rounds, before=lambda: detector.embed(frame)),
        "hnsw": median(lambda: hnsw.score(query()), rounds=rounds, before=lambda: detector.embed(frame)),
        "ef": ef,
        "recall": recall,
        "bank_mb": bank.nbytes / 1e6,
        "hnsw_mb": size / 1e6,
        "building_s": building,
    }


def frame_costs(detectors: dict[str, Detector]) -> list[dict[str, float]]:
    """Milliseconds of scoring a random frame of each size on one thread, by model."""
    costs = []
    for width, height in SIDES:
        frame = random_frame(width, height)
        actions = {name: partial(detector.score, frame) for name, detector in detectors.items()}
        costs.append({"width": width, "height": height} | medians(actions, rounds=ROUNDS))
    return costs


def thread_costs(detectors: dict[str, Detector]) -> list[dict[str, float]]:
    """Frames of 1280x720 per second, by the number of threads and by model."""
    frame = random_frame(1280, 720)
    costs = []
    for threads in range(1, usable_cores() + 1):
        rates = {}
        for name, detector in detectors.items():
            done, start = 0, time.perf_counter()
            for _ in ordered_map(lambda _, detector=detector: detector.score(frame), range(10**6), workers=threads):
                done += 1
                if time.perf_counter() - start > SECONDS:
                    break
            rates[name] = done / (time.perf_counter() - start)
        costs.append({"threads": threads} | rates)
    return costs


def measure(options: argparse.Namespace) -> None:
    """Measure all curves and write them as JSON."""
    detectors = {name: Detector.load(options.kit, threads=1, precision=name) for name in ("fp32", "int8")}
    costs = {"bank": []}
    for count in options.rows:
        costs["bank"].append(bank_costs(detectors["int8"], count))
        print(costs["bank"][-1], flush=True)
    costs["frames"], costs["threads"] = frame_costs(detectors), thread_costs(detectors)
    for each in (*costs["frames"], *costs["threads"]):
        print(each, flush=True)
    options.out.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB resident memory")


def draw(options: argparse.Namespace) -> None:
    """Draw the curves of a JSON file."""
    costs = json.loads(options.costs.read_text(encoding="utf-8"))
    bank = sorted(costs["bank"], key=lambda each: each["rows"])

    def by_rows(name: str, style: int, *values: str) -> Line:
        return Line(name, [(each["rows"], sum(each[value] for value in values)) for each in bank], style)

    plots = [
        _plot(
            [by_rows("exact", 0, "exact"), by_rows("HNSW", 1, "hnsw"), by_rows("embedding", 2, "embed")],
            below="rows in the bank",
            beside="ms per search",
            log=True,
        ),
        _plot(
            [by_rows("exact: bank", 0, "bank_mb"), by_rows("HNSW: bank and index", 1, "bank_mb", "hnsw_mb")],
            below="rows in the bank",
            beside="MB",
            log=True,
        ),
        _plot(
            [
                Line(name, [(each["width"] * each["height"] / 1e6, each[name]) for each in costs["frames"]], style)
                for name, style in (("fp32", 0), ("int8", 3))
            ],
            below="megapixels per frame",
            beside="ms per score, one thread",
        ),
        _plot(
            [
                Line(name, [(each["threads"], each[name]) for each in costs["threads"]], style)
                for name, style in (("fp32", 0), ("int8", 3))
            ],
            below="threads",
            beside="frames of 1280x720 per second",
            across_ticks=[each["threads"] for each in costs["threads"]],
        ),
    ]
    first, last, frames, threads = bank[0], bank[-1], costs["frames"], costs["threads"]
    description = (
        f"Exact search takes {first['exact']:.2g} ms with {first['rows']:,} rows in the bank and {last['exact']:.3g} "
        f"ms with {last['rows']:,}. HNSW takes {first['hnsw']:.2g} and {last['hnsw']:.2g} ms, with twice the memory. "
        f"A score in fp32 takes {frames[0]['fp32']:.2g} ms for the smallest frame and {frames[-1]['fp32']:.3g} ms for "
        f"the largest, in int8 {frames[0]['int8']:.2g} and {frames[-1]['int8']:.3g} ms. "
        f"{threads[-1]['threads']} threads score {threads[-1]['fp32'] / threads[0]['fp32']:.2g} times as many frames "
        "as one."
    )
    title = "Time and memory of a search, time of a score, frames per second"
    drawn = figure(plots, title=title, description=description)
    options.out.write_text(drawn, encoding="utf-8")


def _plot(lines: list[Line], *, below: str, beside: str, log: bool = False, across_ticks: Sequence[float] = ()) -> str:
    across, up = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    ends = (min(across), max(across)) if log or across_ticks else (0, max(across))
    height = (min(up) / 1.3, max(up) * 1.3) if log else (0, 1.05 * max(up))
    axes = FigureAxes(ends, height, log=log, across_ticks=across_ticks)
    return line_plot(axes, lines, below=below, beside=beside)


def main() -> None:
    """Run one of the two commands."""
    parser = parser_of(__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("measure", help="measure all curves and write them as JSON")
    command.add_argument("kit", type=Path, metavar="KIT", help="a kit with an fp32 and an int8 model")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    command.add_argument(
        "--rows", type=int, nargs="+", default=[100, 1000, 10_000, 100_000, 1_000_000], help="sizes of the bank"
    )
    command.set_defaults(run=measure)
    command = commands.add_parser("draw", help="draw the curves of a JSON file")
    command.add_argument("costs", type=Path, metavar="FILE", help="the JSON file of `measure`")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG file to write")
    command.set_defaults(run=draw)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
