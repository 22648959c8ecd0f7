"""What `msc-edge doctor KIT` looks at: the kit's bytes, what its limits promise, how fast this PC scores with it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from msc_edge.describe import describe_limits
from msc_edge.errors import MscEdgeError
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.selection import BackendSpec, backend_specs, measure_backends
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.tools.doctor.check import Check, checked
from msc_edge.runtime.tools.kit.describe import describe_size
from msc_edge.runtime.tools.kit.verify import verify

_WIDTH, _HEIGHT = 1280, 720  # what most webcams give; large enough that resizing it counts
_SLOW = 100  # milliseconds: ten frames a second
_FASTER = "for more: train with a smaller --image-size or backbone, score fewer cameras, or lower max_fps"


@dataclass(frozen=True)
class Latency:
    """How long scoring took, frame after frame."""

    threads: int
    p50: float
    """Milliseconds, as `p95`."""
    p95: float
    rate: float
    """Frames a second."""

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p95 {self.p95:.1f} ms, {self.rate:.1f} frames a second"


def kit_checks(path: Path, *, seconds: float = 3, index: bool = True) -> Iterator[Check]:
    """Every check of a kit. None raises; the first, "kit", is a problem where the kit does not verify.

    `seconds` of scoring for each number of threads. Without `index` the kit's HNSW index is not opened: where
    hnswlib was built for another processor it would end this process.
    """
    try:
        with Kit.open(path) as kit:
            indexed = any(model.banks.images.index for model in kit.manifest.models.values())
            index = index or not indexed
            found = ", ".join(verify(kit)) if index else "NOT opened, for hnswlib does not work here"
            whole = index and not (indexed and find_spec("hnswlib") is None)
            yield Check(
                "kit", "ok" if whole else "note", f"{describe_size(kit)}, every byte as it was written; {found}"
            )
            detector = Detector.of(kit, threads=1, search="auto" if index else "exact")
            yield checked("limits", lambda: _limits(detector))
            if len(backend_specs(kit)) > 1:
                yield checked("precision", lambda: _precision(kit))
            yield from _latencies(kit, detector, "auto" if index else "exact", seconds)
    except Exception as error:
        known = isinstance(error, MscEdgeError)
        found = str(error) if known else f"could not be checked: {type(error).__name__}: {error}"
        yield Check("kit", "problem", found, f"then check it again: msc-edge verify {path}")
        yield Check("latency", "note", "left out, for the kit cannot be used")


def _precision(kit: Kit) -> Check:
    faster, took = measure_backends(kit, backend_specs(kit), threads=1)
    found = f"{', '.join(f'{way} {each:.1f} ms' for way, each in took.items())}: auto takes {faster}"
    if "int8" in kit.manifest.models and BackendSpec("int8") not in took:
        found = f"int8 gives other embeddings here than where the kit was made, so auto leaves it out; {found}"
        return Check("precision", "note", found, "export with the --target of this processor, if int8 is wanted")
    return Check("precision", "ok", found)


def _limits(detector: Detector) -> Check:
    said = list(describe_limits(detector.limits, detector.calibration))
    found = "; ".join(f"{name}: {text}" for name, text in said)
    if any(name == "caution" for name, _ in said):
        return Check("limits", "note", found, "train with more good images, or export with a higher --reject-rate")
    return Check("limits", "ok", found)


def _latencies(kit: Kit, detector: Detector, search: Literal["auto", "exact"], seconds: float) -> Iterator[Check]:
    region = detector.manifest.preprocessing.region
    width = max(_WIDTH, region.x + region.width) if region else _WIDTH
    height = max(_HEIGHT, region.y + region.height) if region else _HEIGHT
    # Not the kit's thumbnails: resizing them takes far less than resizing a camera's frame.
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    about = f"for a frame of {width}x{height}, without camera and decoding"
    measured: list[Latency] = []

    def of(threads: int) -> Check:
        worker = detector if threads == 1 else Detector.of(kit, threads=threads, search=search)
        measured.append(measure(worker, frame, threads=threads, seconds=seconds))
        return _score(measured, about, last=threads == usable_cores())

    for threads in sorted({1, usable_cores()}):
        yield checked(_name(threads), lambda threads=threads: of(threads))


def measure(detector: Detector, frame: np.ndarray, *, threads: int, seconds: float) -> Latency:
    """Score a frame again and again for so many seconds, after one that is not counted; at least three times."""
    detector.score(frame)
    took = []
    begun = time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds or len(took) < 3:
        detector.score(frame)
        took.append(time.perf_counter() - now)
    p50, p95 = np.percentile(took, [50, 95]) * 1e3
    return Latency(threads, float(p50), float(p95), len(took) / (time.perf_counter() - begun))


def _name(threads: int) -> str:
    return f"latency, {threads} thread{'' if threads == 1 else 's'}"


def _score(measured: list[Latency], about: str, *, last: bool) -> Check:
    """What to make of the latest; slow is only what is slow with all cores."""
    latest, first = measured[-1], measured[0]
    found = f"{latest} {about}"
    if last and min(each.p95 for each in measured) > _SLOW:
        return Check(_name(latest.threads), "note", f"{found}; p95 is over {_SLOW} ms", _FASTER)
    if latest.p50 > 1.1 * first.p50:
        remedy = "threads = 1 in the stream's file leaves the other cores free"
        return Check(_name(latest.threads), "note", f"{found}; no faster than one thread", remedy)
    return Check(_name(latest.threads), "ok", found)
