"""Peak memory and time of training with the default settings on images of 12 megapixels.

    python benchmarks/training_memory.py --shared ../shared [--images 100 300 1000] [--train-steps 4]

Draws JPEG files of 4000 x 3000 pixels into a temporary folder: normal images of magnetic_tile, enlarged, every second
round mirrored, with noise in each colour. Then trains once with the first N of them for each N of --images:
`msc_edge.train.training.train`, the function behind `msc-edge train`, in a new process.

The resident memory of this process and its children is sampled every 20 ms. The phases are those of the progress bars;
each ends with the first report of the next, so the selection of the patch bank is part of `patches: bank`.

Images are decoded on two threads while the network computes, so the shares of decoding and preprocessing are shares of
processor time: the number of images, times the processor time of one image, measured before the training.
"""

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from camera import family_of, memory_of
from common import SHARED, magnetic_tile, parser_of

from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train.options import TrainingOptions
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.training import train

WIDTH, HEIGHT = 4000, 3000
NOISE, QUALITY = 5, 85  # standard deviation in grey levels; of the JPEG files
LIMIT = 4e9  # bytes: the requirement
SAMPLED_EVERY = 0.02  # seconds
TIMED = 20  # images
PATCHES = "comparing patches"
PATCH_PHASES = ("patches: whitening", "patches: bank", "patches: calibration")
DECODING = ("reading images", "embedding images", PATCHES)


class Phase(NamedTuple):
    """A task of the progress bars, from its first report to that of the next task."""

    task: str
    start: float
    units: int
    """Images, or steps; 0 where the task continues."""


@dataclass
class Training:
    """What one training took."""

    phases: list[Phase]
    samples: list[tuple[float, int]]
    """Time, and resident memory of all processes in bytes."""
    end: float
    peak: int = 0
    """Highest resident memory of the training process, by the kernel, in bytes."""
    processor_seconds: float = 0

    @property
    def highest(self) -> int:
        """The highest sample of all processes together."""
        return max(memory for _, memory in self.samples)

    @property
    def decoded(self) -> int:
        """How many images were decoded, each time counted."""
        return sum(phase.units for phase in self.phases if phase.task.startswith(DECODING))

    def rows(self) -> dict[str, tuple[int, float, int]]:
        """Of each phase the units, the seconds, and the highest sample in bytes; the parts of a task are added up."""
        rows: dict[str, tuple[int, float, int]] = {}
        names = iter(PATCH_PHASES)
        ends = [phase.start for phase in self.phases[1:]] + [self.end]
        for phase, end in zip(self.phases, ends, strict=True):
            name = next(names, phase.task) if phase.task == PATCHES else phase.task
            units, seconds, highest = rows.get(name, (0, 0.0, 0))
            inside = [memory for at, memory in self.samples if phase.start <= at < end]
            rows[name] = units + phase.units, seconds + end - phase.start, max([highest, *inside])
        return rows


def draw_images(folder: Path, count: int, shared: Path) -> list[Path]:
    """Write `count` different JPEG files; their paths, in the order of their names."""
    tile = magnetic_tile(shared)
    sources = sorted(tile.train + tile.normal, key=lambda path: path.name)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, NOISE, (HEIGHT + 500, WIDTH + 500, 3)).astype(np.int8)
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        image = cv2.resize(read_image(sources[number % len(sources)]), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        if number // len(sources) % 2:
            image = image[:, ::-1]
        top, left = rng.integers(0, 500, 2)
        image = cv2.add(image, noise[top : top + HEIGHT, left : left + WIDTH], dtype=cv2.CV_8U)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return paths


def train_in_process(connection: Connection, normal: Path, out: Path, steps: int | None) -> None:
    """Train, and send every phase and the memory and processor time of this process."""

    current = ""

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        nonlocal current
        if done == 1 or task != current:  # fine-tuning continues after each evaluation
            current = task
            connection.send(Phase(task, time.monotonic(), total if done == 1 else 0))

    start = os.times()
    train(normal, out, TrainingOptions(steps=steps), report=report)
    end = os.times()
    # Not ru_maxrss: it contains the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    connection.send((peak, end.user + end.system - start.user - start.system))


def training_of(normal: Path, out: Path, steps: int | None) -> Training:
    """Train in a new process and watch it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=train_in_process, args=(theirs, normal, out, steps))
    process.start()
    assert process.pid
    theirs.close()
    training = Training([], [], 0)
    while not training.end:
        training.samples.append((time.monotonic(), memory_of_family(process.pid)))
        while ours.poll(SAMPLED_EVERY):
            message = ours.recv()  # EOFError if the training failed: it has printed why
            if isinstance(message, Phase):
                training.phases.append(message)
                continue
            training.peak, training.processor_seconds = message
            training.end = time.monotonic()
            break
    process.join()
    return training


def memory_of_family(pid: int) -> int:
    """Resident memory of a process and its descendants in bytes; 0 if one of them ends during the measurement."""
    try:
        return sum(map(memory_of, family_of(pid)))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def processor_times(paths: list[Path]) -> tuple[float, float]:
    """Seconds of processor time to decode one image, and to preprocess it, in the mean."""
    preprocess = Preprocess(preset("whole-frame", image_size=224))
    images = paths[:TIMED]
    decoding = preprocessing = 0.0
    preprocess(torch.from_numpy(read_image(images[0]))[None])
    for path in images:
        start = time.process_time()
        image = read_image(path)
        decoding += (end := time.process_time()) - start
        preprocess(torch.from_numpy(image)[None])
        preprocessing += time.process_time() - end
    return decoding / len(images), preprocessing / len(images)


def show(count: int, training: Training, decoding: float, preprocessing: float) -> None:
    """Print the figures of one training."""
    seconds, processor = training.end - training.phases[0].start, training.processor_seconds
    decoded, peak = training.decoded, max(training.peak, training.highest)
    print(f"\n{count} images: {seconds:.0f} s, {processor:.0f} s of processor time")
    print(
        f"peak of resident memory: {training.peak / 1e9:.2f} GB, highest sample with child processes "
        f"{training.highest / 1e9:.2f} GB; at most {LIMIT / 1e9:.0f} GB: {'yes' if peak <= LIMIT else 'NO'}"
    )
    print(
        f"decoded and preprocessed {decoded} times, {decoded / count:.1f} for each image: "
        f"{decoded * decoding / processor:.0%} and {decoded * preprocessing / processor:.0%} of the processor time"
    )
    print("| phase | images or steps | seconds | highest memory |\n|---|---|---|---|")
    for name, (units, took, highest) in training.rows().items():
        print(f"| {name} | {units} | {took:.1f} | {highest / 1e9:.2f} GB |", flush=True)


def main() -> None:
    """Draw the images, train, and print a table for each number of images."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--images", type=int, nargs="+", default=[100, 300, 1000], help="default: 100 300 1000")
    parser.add_argument("--train-steps", type=int, help="default: that of `msc-edge train`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msc-edge-memory-") as work:
        everything = Path(work, "images")
        everything.mkdir()
        paths = draw_images(everything, max(options.images), options.shared)
        size = sum(path.stat().st_size for path in paths)
        print(f"{len(paths)} JPEG files of {WIDTH} x {HEIGHT}: {size / 1e9:.2f} GB", flush=True)
        decoding, preprocessing = processor_times(paths)
        print(
            f"processor time of one image: decoding {1000 * decoding:.0f} ms, "
            f"preprocessing {1000 * preprocessing:.0f} ms",
            flush=True,
        )
        for count in options.images:
            normal = Path(work, f"normal-{count}")
            normal.mkdir()
            for path in paths[:count]:
                os.link(path, normal / path.name)
            show(count, training_of(normal, Path(work, f"run-{count}"), options.train_steps), decoding, preprocessing)


if __name__ == "__main__":
    main()
