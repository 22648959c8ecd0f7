"""Accuracy and speed from image file to verdict and map, compared with anomalib on the same backbone weights.

    python benchmarks/peers.py setup --work DIR [--venv DIR]
    python benchmarks/peers.py accuracy --work DIR [--venv DIR] [--shared ../shared] [--sets NAME ...]
    python benchmarks/peers.py speed --work DIR [--venv DIR] [--shared ../shared] [--rounds 5] [--images 40]

`setup` installs three environments: anomalib in --venv, the base install of this checkout, and one with only
onnxruntime, numpy and Pillow. The other two train the models that are missing: ResNet-18 to layer3, whole image at
224 x 224, a fifth held out on both sides.

`accuracy` prints image AUROC and metrics of maps on magnetic_tile and six papers. Labels are used for nothing else.

`speed` measures with the models of magnetic_tile, on its test images and on the same ones as 1024x1024 PNG. Every
contender is a separate process that keeps its model loaded. All use the same cores and take turns, so only one computes
at a time. Needs Linux and an otherwise idle machine; quote ratios within one run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import SHARED, parser_of
from peers_accuracy import accuracy
from peers_prepare import INSIDE, PEERS, SIZES, TILE, data_sets, large_images, prepare, setup

from msc_edge.export.run_images import evenly
from msc_edge.runtime.processor import processor_facts, processor_name

STARTS = 3


@dataclass
class Contender:
    """A program that scores image files, and its measurements."""

    label: str
    kind: str
    python: Path
    model: Path
    process: subprocess.Popen[str] | None = None
    failure: str = ""
    starts: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    passes: dict[str, list[list[float]]] = field(default_factory=lambda: {size: [] for size in SIZES})
    """Milliseconds of each image, by size and round."""
    peak_mb: float = 0.0

    def start(self, first: str, cores: int, work: Path) -> None:
        """Start a new process and record the seconds to its first score."""
        self.stop()
        start = time.perf_counter()
        threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        with self.log(work).open("w") as log:
            self.process = subprocess.Popen(
                [self.python, INSIDE, "serve", self.kind, self.model, str(cores), first],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=work,  # OpenVINO's inferencer writes its cache to the working folder
                env=os.environ | threads,
            )
        self._answer(work)
        self.starts.append(time.perf_counter() - start)
        self.versions, self.notes = self._answer(work)

    def request(self, files: list[str], work: Path):
        """Milliseconds of each file in one pass; without files the peak memory in MB."""
        assert self.process
        assert self.process.stdin
        with suppress(BrokenPipeError):  # the process has ended; _answer raises its last error line
            print(json.dumps(files), file=self.process.stdin, flush=True)
        return self._answer(work)

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def log(self, work: Path) -> Path:
        """The file with the standard error of the process."""
        return work / f"{self.kind}-{self.model.name}.log"

    def rates(self, size: str) -> np.ndarray:
        """Images per second of each round, float64 (rounds,)."""
        return np.array([1000 * len(times) / sum(times) for times in self.passes[size]])

    def _answer(self, work: Path):
        assert self.process
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        lines = self.log(work).read_text(errors="replace").strip().splitlines() or ["ended without an error message"]
        raise RuntimeError(lines[-1][:200])


def installed_mb(python: Path) -> float:
    """Megabytes of the packages besides pip and setuptools."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    files = (file for top in folder.iterdir() if not top.name.startswith(tools) for file in (top, *top.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


def measure(contenders: list[Contender], files: dict[str, list[str]], options: argparse.Namespace) -> None:
    """Measure all contenders in turns: starts, a warm-up pass, the rounds of each set, and the peak memory."""

    def turn(action, number: int = 0) -> None:
        shift = number % len(contenders)  # another one begins each round
        for each in contenders[shift:] + contenders[:shift]:
            if not each.failure:
                try:
                    action(each)
                except (OSError, RuntimeError, ValueError) as error:
                    each.failure = str(error)
                    each.stop()

    for number in range(STARTS):
        turn(lambda each: each.start(files[SIZES[1]][0], options.cores, options.work), number)
    for size in SIZES:
        turn(lambda each, size=size: each.request(files[size], options.work))
        for number in range(options.rounds):
            turn(lambda each, size=size: each.passes[size].append(each.request(files[size], options.work)), number)

    def memory(each: Contender) -> None:
        each.peak_mb = each.request([], options.work)

    turn(memory)


def row(each: Contender, sizes: dict[Path, float]) -> str:
    """A row of the table: medians over the rounds; in brackets the slowest and the fastest round."""
    if each.failure:
        return f"| {each.label} | failed: {each.failure.replace('|', '/')} |"
    cells = [each.label]
    for size, rounds in each.passes.items():
        rates = each.rates(size)
        cells.append(f"{np.median(rates):.1f} ({rates.min():.1f}-{rates.max():.1f})")
        p50 = statistics.median(map(statistics.median, rounds))
        cells.append(f"{p50:.1f} / {np.percentile(np.concatenate(rounds), 95):.1f}")
    cells += [f"{statistics.median(each.starts):.2f}", f"{each.peak_mb:.0f}", f"{sizes[each.python]:.0f}"]
    return f"| {' | '.join(cells)} |"


def print_ratios(ours: list[Contender], theirs: list[Contender]) -> None:
    """Print how many times as many images per second: medians over the rounds; in brackets the extremes."""
    ours, theirs = ([each for each in side if not each.failure] for side in (ours, theirs))
    print(f"\n| images/s relative to |{''.join(f' {each.label}, {size} |' for each in ours for size in SIZES)}")
    print(f"|{'---|' * (1 + len(ours) * len(SIZES))}")
    for peer in theirs:
        ratios = [each.rates(size) / peer.rates(size) for each in ours for size in SIZES]
        cells = (f"{np.median(ratio):.2f} ({ratio.min():.2f}-{ratio.max():.2f})" for ratio in ratios)
        print(f"| {peer.label} | {' | '.join(cells)} |")


def contenders_of(models: Path, options: argparse.Namespace) -> tuple[list[Contender], list[Contender]]:
    """Those of this project and those of anomalib."""
    base, bare, theirs = (
        folder / "bin/python" for folder in (options.work / "base", options.work / "bare", options.venv)
    )
    kit = models / "kit"
    own = [
        Contender("msc-edge, fp32, verdict and regions", "detector", base, kit),
        Contender("msc-edge, fp32, and map of the image's size", "detector-heatmap", base, kit),
        Contender("its `model.onnx` alone, fp32, pixels ready", "floor", base, kit),
        Contender("msc-edge, int8, verdict and regions", "detector-int8", base, kit),
        Contender("msc-edge, int8, and map of the image's size", "detector-int8-heatmap", base, kit),
        Contender("its int8 model alone, pixels ready", "floor-int8", base, kit),
    ]
    peers = []
    for kind, name in PEERS.items():
        peers += [
            Contender(f"anomalib {name}, OpenVINO", "openvino", theirs, models / kind),
            Contender(f"anomalib {name}, OpenVINO in f32", "openvino-f32", theirs, models / kind),
            Contender(f"anomalib {name}, bare onnxruntime", "peer-onnx", bare, models / kind),
        ]
    return own, peers


def speed(options: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # inherited by all processes started here
    images = data_sets(options.shared)[TILE]
    models = prepare(TILE, images, options)
    own, peers = contenders_of(models, options)
    contenders = own + peers
    load = os.getloadavg()[0]
    chosen = evenly(images.test, options.images)
    both = (chosen, large_images(chosen, options.work / "large"))
    files = {size: list(map(str, paths)) for size, paths in zip(SIZES, both, strict=True)}
    try:
        measure(contenders, files, options)
    finally:
        for each in contenders:
            each.stop()
    sizes = {python: installed_mb(python) for python in {each.python for each in contenders if not each.failure}}
    columns = "".join(f" images/s, {size} | p50 / p95 ms |" for size in SIZES)
    print(f"| |{columns} start-up to first score, s | peak resident MB | installed MB |\n|{'---|' * 8}")
    for each in contenders:
        print(row(each, sizes))
    print_ratios([each for each in own if each.kind.endswith("heatmap")], peers)
    print(f"\n{processor_name(processor_facts())}, {options.cores} cores, {platform.platform()}, Python", end=" ")
    print(f"{platform.python_version()}; {options.rounds} rounds of {options.images} images; load before: {load:.1f}")
    for python, each in {each.python: each for each in contenders if each.versions}.items():
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items())
        print(f"- {python.parent.parent.name}: {versions}")
    for each in contenders:
        if each.notes:
            print(f"- {each.label}: {each.notes}")
    for kind, name in PEERS.items():
        if (trained := models / kind / "trained").exists():
            print(f"- {name}: trained on {trained.read_text()}")


def main() -> None:
    """Install, or measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("action", choices=["setup", "accuracy", "speed"])
    parser.add_argument("--work", type=Path, required=True, help="folder for environments, models and large images")
    parser.add_argument("--venv", type=Path, help="environment of anomalib; default: a folder in --work")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="of `accuracy`, such as magnetic_tile; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="of `speed`; default: %(default)s")
    parser.add_argument(
        "--images", type=int, default=40, help="of `speed`: test images of a pass, evenly chosen; default: %(default)s"
    )
    parser.add_argument("--cores", type=int, default=1, help="default: %(default)s")
    # With the default of anomalib, a tenth of all patches, the selection from 761 images takes hours, and a larger
    # memory bank makes PatchCore slower.
    parser.add_argument("--rows", type=int, default=2000, help="largest memory bank of PatchCore; default: %(default)s")
    options = parser.parse_args()
    options.work, options.shared = options.work.resolve(), options.shared.resolve()
    options.venv = (options.venv or options.work / "anomalib").resolve()
    if options.action != "setup" and not (options.work / "base").is_dir():
        parser.error(f"{options.work}: the environments are missing; run `setup` with the same --work first")
    options.work.mkdir(parents=True, exist_ok=True)
    {"setup": setup, "accuracy": accuracy, "speed": speed}[options.action](options)


if __name__ == "__main__":
    main()
