"""Cost of one image by the size of the memory bank, the size of the frame, and the number of threads.

    python benchmarks/cost_curves.py measure KIT --out costs.json [--rows 100 1000 10000 100000 1000000]
    python benchmarks/cost_curves.py draw costs.json --out docs/costs.svg

KIT needs an fp32 and an int8 model. The rows of the bank are random, around 50 centres, with the kit's dimension. Each
search is timed right after an embedding, as in use: the processor's cache then holds the network and not the bank.
Recall is the share of the two nearest rows that HNSW finds, for 200 rows that are not in the bank.
"""

import argparse
import json
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import hnswlib
import numpy as np
from common import parser_of, random_frame
from timing import median, medians

from msc_edge.bank import Bank, ExactSearch, HnswSearch
from msc_edge.export.index import EF_CONSTRUCTION, M, least_ef
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
    import matplotlib as mpl  # noqa: PLC0415  (not needed by `measure`)
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "msc-edge",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
    costs = json.loads(options.costs.read_text(encoding="utf-8"))
    _, ((search, memory), (frames, threads)) = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    costs["bank"].sort(key=lambda each: each["rows"])
    rows = [each["rows"] for each in costs["bank"]]
    for name, label, colour in (("exact", "exact", "#1f77b4"), ("hnsw", "HNSW", "#c62828")):
        search.loglog(rows, [each[name] for each in costs["bank"]], "o-", color=colour, label=label)
    search.loglog(rows, [each["embed"] for each in costs["bank"]], "--", color="#777", label="embedding")
    search.set(xlabel="rows in the bank", ylabel="ms per search")
    memory.loglog(rows, [each["bank_mb"] for each in costs["bank"]], "o-", color="#1f77b4", label="exact: bank")
    both = [each["bank_mb"] + each["hnsw_mb"] for each in costs["bank"]]
    memory.loglog(rows, both, "o-", color="#c62828", label="HNSW: bank and index")
    memory.set(xlabel="rows in the bank", ylabel="MB")
    pixels = [each["width"] * each["height"] / 1e6 for each in costs["frames"]]
    for name, colour in (("fp32", "#1f77b4"), ("int8", "#2e7d32")):
        frames.plot(pixels, [each[name] for each in costs["frames"]], "o-", color=colour, label=name)
        counts = [each["threads"] for each in costs["threads"]]
        threads.plot(counts, [each[name] for each in costs["threads"]], "o-", color=colour, label=name)
    frames.set(xlabel="megapixels per frame", ylabel="ms per score, one thread", ylim=(0, None))
    threads.set(xlabel="threads", ylabel="frames of 1280x720 per second", ylim=(0, None), xticks=counts)
    for axes in (search, memory, frames, threads):
        axes.legend()
    plt.savefig(options.out, metadata={"Date": None})


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
    command = commands.add_parser("draw", help="draw the curves of a JSON file; needs matplotlib")
    command.add_argument("costs", type=Path, metavar="FILE", help="the JSON file of `measure`")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG file to write")
    command.set_defaults(run=draw)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
