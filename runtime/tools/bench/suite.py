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
from msc_edge.progress import Report
from msc_edge.runtime.backends.selection import BackendSpec, create_backend, matches_check_embedding
from msc_edge.runtime.processor import processor_facts, processor_name, usable_cores
from msc_edge.runtime.tools.bench.measure import (
    FileTimes,
    FrameTimes,
    Start,
    Throughput,
    file_times,
    frame_times,
    frames,
    start,
    throughput,
)

_PACKAGES = ("onnxruntime", "numpy", "opencv-python")


@dataclass
class Bench:
    """What was measured, and of what."""

    msc_edge: str
    machine: dict[str, str | int]
    kit: dict[str, str | int | None]
    not_measured: str | None = None
    """Why the int8 model was left out, where it was."""
    starts: list[Start] = field(default_factory=list)
    frames: list[FrameTimes] = field(default_factory=list)
    files: list[FileTimes] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)


def measured(
    kit: Kit, at: Path, images: Sequence[Path], *, threads: Sequence[int], seconds: float, report: Report
) -> Bench:
    """Measure a kit that is open, with image files where there are some, in a drawn order.

    `at`: its folder or .zip, for the processes that open it anew. `threads`, ascending: throughput is measured with
    each, one image with the first and the last. `seconds` are for each measurement.
    """
    images = Random(0).sample(images, len(images))  # for there may be time for a few alone
    bench = Bench(msc_edge=__version__, machine=_machine(), kit=_about(kit))
    precisions: list[Precision] = list(kit.manifest.precisions)
    for precision in kit.manifest.precisions:
        if not matches_check_embedding(kit, precision, create_backend(kit, BackendSpec(precision), threads=1)):
            precisions.remove(precision)
            bench.not_measured = f"{precision} was not measured: this processor computes other embeddings with it"
    in_memory = frames(kit)
    camera = in_memory[min(1, len(in_memory) - 1)]
    few = sorted({threads[0], threads[-1]})
    total = len(precisions) * (len(few) * (1 + len(in_memory)) + bool(images) + len(threads))

    def tell(now: str) -> None:
        report("measuring", sum(map(len, (bench.starts, bench.frames, bench.files, bench.throughput))), total, now)

    for precision in precisions:
        for count in few:
            tell("starting a process")
            bench.starts.append(start(at, precision, camera, threads=count))
            for frame in in_memory:
                tell("a frame in memory")
                bench.frames.append(frame_times(kit, precision, frame, threads=count, seconds=seconds))
        if images:
            tell("files, one by one")
            bench.files.append(file_times(kit, precision, images, seconds=seconds))
        for count in threads:
            tell("several images at once")
            bench.throughput.append(throughput(kit, precision, images or camera, threads=count, seconds=seconds))
    tell("")
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


def _about(kit: Kit) -> dict[str, str | int | None]:
    manifest, bank = kit.manifest, kit.manifest.reference_model.banks.images
    return {
        "name": manifest.name,
        "path": str(kit.path),
        "sha256": kit.identity.sha256,
        "backbone": manifest.network.backbone,
        "stop_at": manifest.network.stop_at,
        "image_size": manifest.preprocessing.image_size,
        "bank": bank.count,
        "search": bank.search,
    }
