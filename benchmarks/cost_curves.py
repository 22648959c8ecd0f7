"""What an image costs against the size of the bank, the size of the frame, and the number of threads.

    python benchmarks/cost_curves.py measure KIT --out costs.json [--rows 100 1000 10000 100000 1000000]
    python benchmarks/cost_curves.py draw costs.json --out docs/costs.svg

The bank's rows are drawn around 50 centres, of the kit's dimension. A search is timed after an embedding, as it comes
in use: the processor's cache then holds the network, and not the bank. Recall is the share of the two nearest rows that
the graph finds, for 200 rows that are not in the bank.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hnswlib
import numpy as np

from msc_edge.bank import Bank, ExactSearch, HnswSearch
from msc_edge.export.index import EF_CONSTRUCTION, M, least_ef
from msc_edge.parallel import ordered_map
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores

SIDES = [(224, 224), (320, 240), (640, 480), (1280, 720), (1920, 1080), (2592, 1944), (3840, 2160)]
SAMPLES = 41


def milliseconds(before: Callable[[], object], action: Callable[[], object], samples: int = SAMPLES) -> float:
    """The median of `action`, after `before` each time."""
    took = []
    for _ in range(samples):
        before()
        begun = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - begun))
    return float(np.median(took))


def clustered(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows around 50 centres, made in pieces."""
    centres = rng.normal(size=(50, dim)).astype(np.float32)
    rows = np.empty((count, dim), np.float32)
    for first in range(0, count, 20_000):
        some = rows[first : first + 20_000]
        some[:] = centres[rng.integers(50, size=len(some))] + 0.3 * rng.standard_normal(some.shape, np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return rows


def bank_costs(detector: Detector, count: int) -> dict[str, float]:
    """Both searches over a bank of so many rows, and what they hold in memory."""
    dim = detector.manifest.model.dim
    rows = clustered(count + 200, dim, np.random.default_rng(0))
    bank, queries = rows[:count], rows[count:]
    index = hnswlib.Index(space="cosine", dim=dim)
    index.init_index(max_elements=count, M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)
    begun = time.perf_counter()
    index.add_items(bank, np.arange(count), num_threads=usable_cores())
    building = time.perf_counter() - begun
    ef, recall = least_ef(index, bank, queries, 2)
    with tempfile.TemporaryDirectory() as scratch:
        index.save_index(f"{scratch}/bank.hnsw")
        size = Path(scratch, "bank.hnsw").stat().st_size
    exact, graph = Bank(bank, search=ExactSearch(bank)), Bank(bank, search=HnswSearch(index, ef=ef))
    frame = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    number = iter(range(10**9))

    def query() -> np.ndarray:
        return queries[next(number) % len(queries)]

    samples = SAMPLES if count < 200_000 else 11
    return {
        "rows": count,
        "dim": dim,
        "embed": milliseconds(lambda: None, lambda: detector.embed(frame)),
        "exact": milliseconds(lambda: detector.embed(frame), lambda: exact.score(query()), samples),
        "hnsw": milliseconds(lambda: detector.embed(frame), lambda: graph.score(query()), samples),
        "ef": ef,
        "recall": recall,
        "bank_mb": bank.nbytes / 1e6,
        "hnsw_mb": size / 1e6,
        "building_s": building,
    }


def frame_costs(detectors: dict[str, Detector]) -> list[dict[str, float]]:
    """Score a random frame of each size, on one thread, the models in turns."""
    rng = np.random.default_rng(0)
    costs = []
    for width, height in SIDES:
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        took: dict[str, list[float]] = {name: [] for name in detectors}
        for _ in range(SAMPLES):
            for name, detector in detectors.items():
                begun = time.perf_counter()
                detector.score(frame)
                took[name].append(1000 * (time.perf_counter() - begun))
        costs.append({"width": width, "height": height} | {name: float(np.median(each)) for name, each in took.items()})
    return costs


def thread_costs(detectors: dict[str, Detector], seconds: float = 5) -> list[dict[str, float]]:
    """Frames of 1280x720 a second, scored on several threads."""
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    costs = []
    for threads in range(1, usable_cores() + 1):
        rates = {}
        for name, detector in detectors.items():
            done, begun = 0, time.perf_counter()
            for _ in ordered_map(lambda _, detector=detector: detector.score(frame), range(10**6), workers=threads):
                done += 1
                if time.perf_counter() - begun > seconds:
                    break
            rates[name] = done / (time.perf_counter() - begun)
        costs.append({"threads": threads} | rates)
    return costs


def measure(options: argparse.Namespace) -> None:
    """Measure all curves, and write them as JSON."""
    detectors = {name: Detector.load(options.kit, threads=1, precision=name) for name in ("fp32", "int8")}
    costs = {"bank": []}
    for count in options.rows:
        costs["bank"].append(bank_costs(detectors["int8"], count))
        print(costs["bank"][-1], flush=True)
    costs["frames"], costs["threads"] = frame_costs(detectors), thread_costs(detectors)
    for each in (*costs["frames"], *costs["threads"]):
        print(each, flush=True)
    options.out.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB resident")


def draw(options: argparse.Namespace) -> None:
    """Draw what `measure` wrote."""
    import matplotlib as mpl  # noqa: PLC0415  (only here)
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
    search.loglog(rows, [each["embed"] for each in costs["bank"]], "--", color="#777", label="the embedding before it")
    search.set(xlabel="rows in the bank", ylabel="ms a search")
    memory.loglog(rows, [each["bank_mb"] for each in costs["bank"]], "o-", color="#1f77b4", label="exact: the bank")
    both = [each["bank_mb"] + each["hnsw_mb"] for each in costs["bank"]]
    memory.loglog(rows, both, "o-", color="#c62828", label="HNSW: the bank and the graph")
    memory.set(xlabel="rows in the bank", ylabel="MB")
    pixels = [each["width"] * each["height"] / 1e6 for each in costs["frames"]]
    for name, colour in (("fp32", "#1f77b4"), ("int8", "#2e7d32")):
        frames.plot(pixels, [each[name] for each in costs["frames"]], "o-", color=colour, label=name)
        counts = [each["threads"] for each in costs["threads"]]
        threads.plot(counts, [each[name] for each in costs["threads"]], "o-", color=colour, label=name)
    frames.set(xlabel="megapixels of the frame", ylabel="ms a score, one thread", ylim=(0, None))
    threads.set(xlabel="threads", ylabel="frames of 1280x720 a second", ylim=(0, None), xticks=counts)
    for axes in (search, memory, frames, threads):
        axes.legend()
    plt.savefig(options.out, metadata={"Date": None})


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("kit", type=Path)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--rows", type=int, nargs="+", default=[100, 1000, 10_000, 100_000, 1_000_000])
    measuring.set_defaults(do=measure)
    drawing = commands.add_parser("draw")
    drawing.add_argument("costs", type=Path)
    drawing.add_argument("--out", type=Path, required=True)
    drawing.set_defaults(do=draw)
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
