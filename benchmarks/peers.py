"""Throughput and latency from image file to verdict, compared with anomalib on the same backbone weights.

    python benchmarks/peers.py setup --work DIR [--venv DIR]
    python benchmarks/peers.py run --work DIR [--venv DIR] [--shared ../shared] [--rounds 5] [--images 40]

`setup` installs three environments: anomalib in --venv, the base install of this checkout, and one with only
onnxruntime, numpy and Pillow. `run` trains the models that are missing (ResNet-18 to layer3, magnetic_tile, whole image
at 224 x 224, a fifth held out on both sides), makes 1024x1024 PNGs of the test images, and measures. Every contender
is a separate process that keeps its model loaded. All use the same cores and take turns, so only one computes at a
time. Needs Linux and an otherwise idle machine; quote ratios within one run.

anomalib also computes a heatmap and compares patches; msc-edge compares whole images. That is part of the difference.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import SHARED, parser_of
from peers_prepare import INSIDE, SETS, images, prepare, setup

from msc_edge.runtime.processor import processor_facts, processor_name, usable_cores

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
    passes: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in SETS})
    """Milliseconds of each image, by set and round."""
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
        turn(lambda each: each.start(files[SETS[1]][0], options.cores, options.work), number)
    for name in SETS:
        turn(lambda each, name=name: each.request(files[name], options.work))
        for number in range(options.rounds):
            turn(lambda each, name=name: each.passes[name].append(each.request(files[name], options.work)), number)

    def memory(each: Contender) -> None:
        each.peak_mb = each.request([], options.work)

    turn(memory)


def row(each: Contender, sizes: dict[Path, float]) -> str:
    """A row of the table: medians over the rounds; in brackets the slowest and the fastest round."""
    if each.failure:
        return f"| {each.label} | failed: {each.failure.replace('|', '/')} |"
    cells = [each.label]
    for rounds in each.passes.values():
        rates = [1000 * len(times) / sum(times) for times in rounds]
        cells.append(f"{statistics.median(rates):.1f} ({min(rates):.1f}-{max(rates):.1f})")
        p50 = statistics.median(map(statistics.median, rounds))
        cells.append(
            "" if each.kind.startswith("folder") else f"{p50:.1f} / {np.percentile(np.concatenate(rounds), 95):.1f}"
        )
    cells += [f"{statistics.median(each.starts):.2f}", f"{each.peak_mb:.0f}", f"{sizes[each.python]:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Install, or measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("action", choices=["setup", "run"])
    parser.add_argument("--work", type=Path, required=True, help="folder for environments, models and large images")
    parser.add_argument("--venv", type=Path, help="environment of anomalib; default: a folder in --work")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--images",
        "--pictures",
        type=int,
        default=40,
        help="test images of a pass, evenly chosen; default: %(default)s",
    )
    parser.add_argument("--cores", type=int, default=usable_cores(), help="default: all usable cores")
    # Selecting a tenth of all patches of 761 images takes hours. A smaller memory bank makes Patchcore faster.
    parser.add_argument(
        *("--patchcore-images", "--patchcore-pictures"), type=int, default=50, help="to train on; default: %(default)s"
    )
    options = parser.parse_args()
    options.work, options.shared = options.work.resolve(), options.shared.resolve()
    options.venv = (options.venv or options.work / "anomalib").resolve()
    if options.action == "run" and not (options.work / "base").is_dir():
        parser.error(f"{options.work}: the environments are missing; run `setup` with the same --work first")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.action == "setup":
        setup(options)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # inherited by all processes started here
    prepare(options)
    base, bare, theirs = (
        folder / "bin/python" for folder in (options.work / "base", options.work / "bare", options.venv)
    )
    kit = options.work / "kit"
    contenders = [
        Contender("msc-edge, `score_file`", "detector", base, kit),
        Contender("msc-edge, folder scoring, one image per core", "folder", base, kit),
        Contender("msc-edge in int8, `score_file`", "detector-int8", base, kit),
        Contender("msc-edge in int8, folder scoring", "folder-int8", base, kit),
        Contender("its `model.onnx` alone, pixels ready", "floor", base, kit),
        Contender("the same network in PyTorch", "torch", Path(sys.executable), options.work / "run"),
    ]
    for name in ("Padim", "Patchcore"):
        model = options.work / name.lower()
        contenders += [
            Contender(f"anomalib {name}, OpenVINO inferencer", "openvino", theirs, model),
            Contender(f"the same, in f32 ({name})", "openvino-f32", theirs, model),
            Contender(f"its ONNX in bare onnxruntime ({name})", "peer-onnx", bare, model),
        ]
    load = os.getloadavg()[0]
    try:
        measure(contenders, images(options), options)
    finally:
        for each in contenders:
            each.stop()
    sizes = {python: installed_mb(python) for python in {each.python for each in contenders if not each.failure}}
    speed = "".join(f" images/s, {name} | p50 / p95 ms |" for name in SETS)
    print(f"| |{speed} start-up to first score, s | peak resident MB | installed MB |\n|{'---|' * 8}")
    for each in contenders:
        print(row(each, sizes))
    print(f"\n{processor_name(processor_facts())}, {options.cores} cores, {platform.platform()}, Python", end=" ")
    print(f"{platform.python_version()}; {options.rounds} rounds of {options.images} images; load before: {load:.1f}")
    for python, each in {each.python: each for each in contenders if each.versions}.items():
        versions = ", ".join(f"{name} {version}" for name, version in each.versions.items())
        print(f"- {'this environment' if python == Path(sys.executable) else python.parent.parent.name}: {versions}")
    for each in contenders:
        if each.notes:
            print(f"- {each.label}: {each.notes}")
    for kind in ("padim", "patchcore"):
        if (trained := options.work / kind / "trained").exists():
            print(f"- {kind}: trained on {trained.read_text()}")


if __name__ == "__main__":
    main()
