"""Images a second and latency, image file to verdict, beside the best-known peer with the same backbone weights.

    python benchmarks/peers.py setup --work DIR [--venv DIR]
    python benchmarks/peers.py run --work DIR [--venv DIR] [--shared ../shared] [--rounds 5] [--images 40]

`setup` installs three environments: anomalib in --venv, the base install of this checkout, and onnxruntime with
Pillow alone. `run` trains what is not yet there (ResNet-18 to layer3, magnetic_tile, whole image to 224 x 224, a
fifth held out on both sides), makes 1024x1024 PNGs of the test images, and measures: every contender is a process of
its own that holds its model, on the same cores, and they take turns, so that only one computes at a time. Needs Linux,
and a machine that does nothing else; quote ratios within one run.

The peers also draw a heat map and compare patches; msc-edge compares whole images. That is part of the difference.
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
from peers_prepare import CHECKOUT, INSIDE, SETS, images, prepare, setup

from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.processor import about_processor, processor_name

STARTS = 3


@dataclass
class Contender:
    """Something that scores image files, and what was measured of it."""

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
        """A fresh process, from its command line to the first score."""
        self.stop()
        begun = time.perf_counter()
        threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        with self.log(work).open("w") as log:
            self.process = subprocess.Popen(
                [self.python, INSIDE, "serve", self.kind, self.model, str(cores), first],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=work,  # OpenVINO's inferencer leaves its cache in the working folder
                env=os.environ | threads,
            )
        self._answer(work)
        self.starts.append(time.perf_counter() - begun)
        self.versions, self.notes = self._answer(work)

    def evaluate(self, files: list[str], work: Path):
        """Times of one pass over some files; of none, the peak memory."""
        assert self.process
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended; its last words follow
            print(json.dumps(files), file=self.process.stdin, flush=True)
        return self._answer(work)

    def stop(self) -> None:
        """End the process, where there is one."""
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def log(self, work: Path) -> Path:
        """What its process printed to standard error."""
        return work / f"{self.kind}-{self.model.name}.log"

    def _answer(self, work: Path):
        assert self.process
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        said = self.log(work).read_text(errors="replace").strip().splitlines() or ["ended without a word"]
        raise RuntimeError(said[-1][:200])


def installed_mb(python: Path) -> float:
    """Megabytes of the packages beside pip and setuptools."""
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = Path(subprocess.run([python, "-c", place], check=True, capture_output=True, text=True).stdout.strip())
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    files = (file for top in folder.iterdir() if not top.name.startswith(tools) for file in (top, *top.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


def measure(contenders: list[Contender], files: dict[str, list[str]], options: argparse.Namespace) -> None:
    """Let them take turns: fresh starts, a pass that is not counted, the rounds, and the memory at the end."""

    def turn(action, number: int = 0) -> None:
        shift = number % len(contenders)  # nobody is always the first
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
        turn(lambda each, name=name: each.evaluate(files[name], options.work))
        for number in range(options.rounds):
            turn(lambda each, name=name: each.passes[name].append(each.evaluate(files[name], options.work)), number)

    def memory(each: Contender) -> None:
        each.peak_mb = each.evaluate([], options.work)

    turn(memory)


def row(each: Contender, sizes: dict[Path, float]) -> str:
    """Its row of the table: medians over the rounds; in brackets, the slowest and the fastest round."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["setup", "run"])
    parser.add_argument("--work", type=Path, required=True, help="environments, models and large images; kept")
    parser.add_argument("--venv", type=Path, help="environment of anomalib; without it, in --work")
    parser.add_argument("--shared", type=Path, default=CHECKOUT.parent / "shared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=40, help="test images in a pass, evenly spread")
    parser.add_argument("--cores", type=int, default=usable_cores())
    # Choosing a tenth of all patches of 761 images takes hours; with fewer, Patchcore is faster than it would be.
    parser.add_argument("--patchcore-images", type=int, default=50)
    options = parser.parse_args()
    options.work, options.shared = options.work.resolve(), options.shared.resolve()
    options.venv = (options.venv or options.work / "anomalib").resolve()
    if options.action == "run" and not (options.work / "base").is_dir():
        parser.error(f"{options.work}: nothing is installed there; run `setup` with the same --work first")
    options.work.mkdir(parents=True, exist_ok=True)
    if options.action == "setup":
        setup(options)
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # and of all that is started here
    prepare(options)
    base, bare, theirs = (
        place / "bin/python" for place in (options.work / "base", options.work / "bare", options.venv)
    )
    kit = options.work / "kit"
    contenders = [
        Contender("msc-edge, `score_file`", "detector", base, kit),
        Contender("msc-edge, `score_files`, an image a core", "folder", base, kit),
        Contender("msc-edge in int8, `score_file`", "detector-int8", base, kit),
        Contender("msc-edge in int8, `score_files`", "folder-int8", base, kit),
        Contender("its model.onnx alone, pixels ready", "floor", base, kit),
        Contender("the same network in PyTorch", "torch", Path(sys.executable), options.work / "run"),
    ]
    for name in ("Padim", "Patchcore"):
        model = options.work / name.lower()
        contenders += [
            Contender(f"anomalib {name}, OpenVINO inferencer", "openvino", theirs, model),
            Contender(f"the same, told f32 ({name})", "openvino-f32", theirs, model),
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
    print(f"\n{processor_name(about_processor())}, {options.cores} cores, {platform.platform()}, Python", end=" ")
    print(f"{platform.python_version()}; {options.rounds} rounds of {options.images} images; load before: {load:.1f}")
    for place, each in {each.python: each for each in contenders if each.versions}.items():
        told = ", ".join(f"{name} {number}" for name, number in each.versions.items())
        print(f"- {'this environment' if place == Path(sys.executable) else place.parent.parent.name}: {told}")
    for each in contenders:
        if each.notes:
            print(f"- {each.label}: {each.notes}")
    for kind in ("padim", "patchcore"):
        if (trained := options.work / kind / "trained").exists():
            print(f"- {kind}: trained on {trained.read_text()}")


if __name__ == "__main__":
    main()
