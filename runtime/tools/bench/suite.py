"""All measurements of one kit on one machine."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from random import Random

from msc_edge import __version__
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.progress import Report, silent
from msc_edge.runtime.backends.selection import BackendSpec, create_backend, matches_check_image
from msc_edge.runtime.processor import processor_facts, processor_name, usable_cores
from msc_edge.runtime.tools.bench.measure import (
    FileTimes,
    FrameTimes,
    Start,
    Throughput,
    measure_files,
    measure_frame,
    measure_start,
    measure_throughput,
    random_frames,
)

_PACKAGES = ("onnxruntime", "numpy", "opencv-python")


@dataclass
class Bench:
    """The measurements, with the machine and the kit."""

    msc_edge: str
    machine: dict[str, str | int]
    kit: dict[str, str | int | None]
    not_measured: str | None = None
    """Why a model was left out; None where none was."""
    starts: list[Start] = field(default_factory=list)
    frames: list[FrameTimes] = field(default_factory=list)
    files: list[FileTimes] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)


def measure_kit(
    kit: Kit, images: Sequence[Path], *, threads: Sequence[int], seconds: float, report: Report = silent
) -> Bench:
    """Measure an open kit, and image files in random order where there are any.

    `threads`, ascending: throughput is measured with each number, one image with the first and the last. `seconds`
    is the time for each measurement.
    """
    images = Random(0).sample(images, len(images))  # the time may be enough for a few only
    bench = Bench(msc_edge=__version__, machine=_machine(), kit=_describe(kit))
    precisions: list[Precision] = list(kit.manifest.precisions)
    for precision in kit.manifest.precisions:
        if not matches_check_image(kit, precision, create_backend(kit, BackendSpec(precision), threads=1)):
            precisions.remove(precision)
            bench.not_measured = f"{precision} was not measured: this processor computes other embeddings with it"
    frames = random_frames(kit)
    camera = frames[min(1, len(frames) - 1)]
    ends = sorted({threads[0], threads[-1]})
    total = len(precisions) * (len(ends) * (1 + len(frames)) + bool(images) + len(threads))

    def report_step(name: str) -> None:
        done = sum(map(len, (bench.starts, bench.frames, bench.files, bench.throughput)))
        report("measuring", done, total, name)

    for precision in precisions:
        for count in ends:
            report_step("start of a process")
            bench.starts.append(measure_start(kit.path, precision, camera, threads=count))
            for frame in frames:
                report_step("frame in memory")
                bench.frames.append(measure_frame(kit, precision, frame, threads=count, seconds=seconds))
        if images:
            report_step("files, one by one")
            bench.files.append(measure_files(kit, precision, images, seconds=seconds))
        for count in threads:
            report_step("several images at once")
            bench.throughput.append(
                measure_throughput(kit, precision, images or camera, threads=count, seconds=seconds)
            )
    report_step("")
    return bench


def _machine() -> dict[str, str | int]:
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "processor": processor_name(processor_facts()),
        "cores": usable_cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **packages,
    }


def _describe(kit: Kit) -> dict[str, str | int | None]:
    manifest, banks = kit.manifest, kit.manifest.reference_model.banks
    return {
        "name": manifest.name,
        "path": str(kit.path),
        "sha256": kit.identity.sha256,
        "backbone": manifest.network.backbone,
        "stop_at": manifest.network.stop_at,
        "image_size": manifest.preprocessing.image_size,
        "bank": banks.images.count,
        "search": banks.images.search,
        "patches": banks.patches.count if banks.patches else None,
    }
