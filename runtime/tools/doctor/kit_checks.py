"""The checks of `msc-edge doctor KIT`: every byte of the kit, its expected false-alarm rates, its speed on this PC."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from msc_edge.describe import describe_default_model, describe_limits
from msc_edge.errors import MscEdgeError
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.selection import BackendSpec, backend_specs, measure_backends
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.tools.doctor.checks import Check, run_check
from msc_edge.runtime.tools.kit.describe import describe_size
from msc_edge.runtime.tools.kit.verify import verify
from msc_edge.text import many

SECONDS = 3.0
"""Time for each measurement of the speed."""
_WIDTH, _HEIGHT = 1280, 720  # of most webcams; large enough that resizing takes time
_SLOW = 100  # milliseconds: ten frames a second
_FASTER = "to score faster: train with a smaller --image-size or backbone, use fewer cameras, or lower max_fps"


@dataclass(frozen=True)
class Latency:
    """Time to score one frame, over many repetitions."""

    threads: int
    p50: float
    """Milliseconds, as `p95`."""
    p95: float
    rate: float
    """Frames a second."""

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p95 {self.p95:.1f} ms, {self.rate:.1f} frames a second"


def kit_checks(path: Path, *, index: bool = True, seconds: float = SECONDS) -> Iterator[Check]:
    """Every check of a kit. None raises; the first, "kit", is a problem where the kit does not verify.

    Without `index` the kit's HNSW index is not opened: an hnswlib that was built for another processor crashes this
    process. `seconds`: time for each measurement of the speed.
    """
    try:
        with Kit.open(path) as kit:
            indexed = any(model.banks.images.index for model in kit.manifest.models.values())
            index = index or not indexed
            found = ", ".join(verify(kit)) if index else "NOT opened, because hnswlib does not work here"
            complete = index and not (indexed and find_spec("hnswlib") is None)
            yield Check("kit", "ok" if complete else "note", f"{describe_size(kit)}, every byte verified; {found}")
            search = "auto" if index else "exact"
            detector = Detector.of(kit, threads=1, search=search)
            yield run_check("limits", lambda: _limits(detector))
            yield run_check("model", lambda: _model(kit))
            yield from _latencies(kit, detector, search, seconds)
    except Exception as error:
        known = isinstance(error, MscEdgeError)
        found = str(error) if known else f"the check failed: {type(error).__name__}: {error}"
        yield Check("kit", "problem", found, f"then check it again: msc-edge verify {path}")
        yield Check("latency", "note", "not measured, because the kit cannot be used")


def _model(kit: Kit) -> Check:
    found = describe_default_model(kit.manifest)
    specs = [spec for precision in kit.manifest.precisions for spec in backend_specs(precision)]
    if len(specs) == 1:
        return Check("model", "ok", found)
    _, milliseconds = measure_backends(kit, specs, threads=1)
    found += f"; here, {', '.join(f'{spec} takes {value:.1f} ms' for spec, value in milliseconds.items())}"
    if "int8" in kit.manifest.models and BackendSpec("int8") not in milliseconds:
        found += "; int8 cannot be used: it gives other embeddings on this processor"
        return Check("model", "note", found, "to use int8: export with the --target of this processor")
    return Check("model", "ok", found)


def _limits(detector: Detector) -> Check:
    described = list(describe_limits(detector.limits, detector.calibration, detector.regions))
    found = "; ".join(f"{name}: {text}" for name, text in described)
    if any(name == "caution" for name, _ in described):
        return Check("limits", "note", found, "train with more normal images, or export with a higher --reject-rate")
    return Check("limits", "ok", found)


def _latencies(kit: Kit, detector: Detector, search: Literal["auto", "exact"], seconds: float) -> Iterator[Check]:
    region = detector.manifest.preprocessing.region
    width = max(_WIDTH, region.x + region.width) if region else _WIDTH
    height = max(_HEIGHT, region.y + region.height) if region else _HEIGHT
    # Not the kit's thumbnails: resizing them takes far less time than resizing a camera's frame.
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    conditions = f"for a frame of {width}x{height}, without camera and decoding"
    measured: list[Latency] = []

    def latency(threads: int) -> Check:
        with_threads = detector if threads == 1 else Detector.of(kit, threads=threads, search=search)
        measured.append(measure_latency(with_threads, frame, threads=threads, seconds=seconds))
        return _check_of(measured, conditions, last=threads == usable_cores())

    for threads in sorted({1, usable_cores()}):
        yield run_check(_name(threads), lambda threads=threads: latency(threads))


def measure_latency(detector: Detector, frame: np.ndarray, *, threads: int, seconds: float) -> Latency:
    """Score a frame repeatedly for `seconds`, at least three times, after one score that is not counted."""
    detector.score(frame)
    times = []
    start = time.perf_counter()
    while (before := time.perf_counter()) - start < seconds or len(times) < 3:
        detector.score(frame)
        times.append(time.perf_counter() - before)
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return Latency(threads, float(p50), float(p95), len(times) / (time.perf_counter() - start))


def _name(threads: int) -> str:
    return f"latency, {many(threads, 'thread')}"


def _check_of(measured: list[Latency], conditions: str, *, last: bool) -> Check:
    """The check of the latest measurement. Only a PC that is slow with all cores counts as slow."""
    latest, first = measured[-1], measured[0]
    found = f"{latest} {conditions}"
    if last and min(each.p95 for each in measured) > _SLOW:
        return Check(_name(latest.threads), "note", f"{found}; p95 is over {_SLOW} ms", _FASTER)
    if latest.p50 > 1.1 * first.p50:
        remedy = "set threads = 1 in the stream's configuration; the other cores stay free"
        return Check(_name(latest.threads), "note", f"{found}; not faster than one thread", remedy)
    return Check(_name(latest.threads), "ok", found)
