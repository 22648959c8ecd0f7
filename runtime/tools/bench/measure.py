"""The measurements of `msc-edge bench`. All times are wall times, in milliseconds unless a name says otherwise."""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import onnxruntime as ort

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.errors import KitError, SourceError
from msc_edge.images import bytes_of, decode_image
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.overlay import overlay
from msc_edge.parallel import ordered_map
from msc_edge.runtime.backends.interface import INPUT, ModelOutput
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import Result

Output = TypeVar("Output")

FRAMES = ((224, 224), (1280, 720), (1920, 1080))  # width, height
_MIN_SAMPLES = 5
_REPEATS = 8  # the two sessions have separate weights, which evict each other from the processor's cache
_STARTS = 3


@dataclass(frozen=True)
class Spread:
    """Percentiles of the times of a stage."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Self:
        """The percentiles of some samples."""
        return cls(*(float(each) for each in np.percentile(milliseconds, [50, 95, 99])))


@dataclass(frozen=True)
class HeatmapTimes:
    """What patches add to one frame of random pixels, nearly all of which is one region."""

    regions: Spread
    """The smoothed map and its regions, a part of each `score`. Without a region it takes next to no time."""
    score: Spread
    """`Detector.score(heatmap=True)`: a score with `anomaly_map`."""
    anomaly_map: Spread
    """Its additional part: the map at each pixel of the frame."""
    overlay: Spread
    """The frame with its map in colour, in addition to a `score` without `anomaly_map`."""


@dataclass(frozen=True)
class FrameTimes:
    """One frame in memory, scored repeatedly, alternately with bare onnxruntime on the same tensor."""

    precision: Precision
    width: int
    height: int
    threads: int
    """Threads that compute one image."""
    samples: int
    score: Spread
    """`Detector.score` without `anomaly_map`; `embed`, `search` and `heatmap.regions` are its parts."""
    embed: Spread
    """The network, with the patch distances of a kit with patches."""
    search: Spread
    """The search for the nearest normal images."""
    floor: Spread
    """`InferenceSession.run` on a prepared tensor."""
    heatmap: HeatmapTimes | None
    """None for a kit that compares whole images only."""

    @property
    def ratio(self) -> float:
        """The median of `score` divided by the median of `floor`."""
        return self.score.p50 / self.floor.p50


@dataclass(frozen=True)
class FileTimes:
    """Image files one after another on one thread, as many as the time allows."""

    precision: Precision
    given: int
    files: int
    """Files that were scored."""
    unreadable: int
    read: Spread
    decode: Spread
    embed: Spread
    search: Spread
    regions: Spread | None
    """See `HeatmapTimes`; None for a kit that compares whole images only."""


@dataclass(frozen=True)
class Throughput:
    """Several images at once, one on each of `threads` threads."""

    precision: Precision
    threads: int
    images_per_second: float


@dataclass(frozen=True)
class Start:
    """A new process up to its first score: medians of three, in seconds."""

    precision: Precision
    threads: int
    importing: float
    load: float
    first: float
    resident: float | None
    """Memory after the first score, in MiB; None where the system does not report it."""

    @property
    def seconds(self) -> float:
        """The sum, without the start of Python itself."""
        return self.importing + self.load + self.first


def random_frames(kit: Kit) -> list[np.ndarray]:
    """Random images, uint8 (height, width, 3), of three usual sizes, at least as large as the region of interest."""
    region = kit.manifest.preprocessing.region
    smallest = (region.x + region.width, region.y + region.height) if region else (0, 0)
    sizes = dict.fromkeys((max(width, smallest[0]), max(height, smallest[1])) for width, height in FRAMES)
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in sizes]


def measure_frame(kit: Kit, precision: Precision, frame: np.ndarray, *, threads: int, seconds: float) -> FrameTimes:
    """Measure one frame; see FrameTimes."""
    detector = Detector.of(kit, threads=threads, precision=precision, backend="onnxruntime")
    session = bare_session(kit.file(kit.model(precision).file), threads=threads)
    tensor = {INPUT: frame[None]}
    session.run(None, tensor)
    grid_map = detector.score(frame).grid_map
    times: dict[str, list[float]] = defaultdict(list)
    for _ in _rounds(seconds):
        for _ in range(_REPEATS):
            _timed(times["score"], lambda: detector.score(frame))
        for _ in range(_REPEATS):
            output = _timed(times["embed"], lambda: detector.run(frame))
            _timed(times["search"], lambda output=output: detector.bank.nearest(output.embedding))
            if grid_map is not None:
                _timed(times["regions"], lambda output=output: found_regions(detector, output, frame))
        for _ in range(_REPEATS):
            _timed(times["floor"], lambda: session.run(None, tensor))
        if grid_map is not None:
            for _ in range(_REPEATS):
                _timed(times["score_heatmap"], lambda: detector.score(frame, heatmap=True))
                _timed(times["anomaly_map"], grid_map.at_frame)
            _timed(times["overlay"], lambda: overlay(frame, grid_map))  # takes longer than all the others
    height, width = frame.shape[:2]
    found = {name: Spread.of(each) for name, each in times.items()}
    heatmap = None
    if grid_map is not None:
        heatmap = HeatmapTimes(found["regions"], found["score_heatmap"], found["anomaly_map"], found["overlay"])
    parts = {name: found[name] for name in ("score", "embed", "search", "floor")}
    return FrameTimes(precision, width, height, threads, len(times["score"]), **parts, heatmap=heatmap)


def found_regions(detector: Detector, output: ModelOutput, frame: np.ndarray) -> tuple[AnomalousRegion, ...]:
    """The stage of a score that patches add: the map of a frame, and its regions."""
    found = detector.map_of(output, height=frame.shape[0], width=frame.shape[1])
    return found.regions() if found else ()


def bare_session(model: Path, *, threads: int) -> ort.InferenceSession:
    """onnxruntime with a model of a kit and nothing else."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the same setting as the detector
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def measure_files(kit: Kit, precision: Precision, paths: Sequence[Path], *, seconds: float) -> FileTimes:
    """Measure image files, repeatedly from the first one; SourceError when none can be scored."""
    detector = Detector.of(kit, threads=1, precision=precision, backend="onnxruntime")
    times: dict[str, list[float]] = defaultdict(list)
    readable: set[Path] = set()
    unreadable: dict[Path, SourceError] = {}
    time_left = _rounds(seconds)
    for path in cycle(paths):
        if next(time_left, None) is None and (readable or len(unreadable) == len(paths)):
            break
        try:
            data = _timed(times["read"], lambda path=path: bytes_of(path))
            image = _timed(times["decode"], lambda data=data: decode_image(data, kit.manifest.decode))
            output = _timed(times["embed"], lambda image=image: detector.run(image))
        except SourceError as error:  # unreadable, or smaller than the region of interest
            unreadable[path] = error
            continue
        readable.add(path)
        # Before anything else reads the bank: the network has evicted it from the processor's cache.
        _timed(times["search"], lambda output=output: detector.bank.nearest(output.embedding))
        if detector.scoring.map:
            _timed(times["regions"], lambda output=output, image=image: found_regions(detector, output, image))
    if not readable:
        path, error = next(iter(unreadable.items()))
        raise SourceError(f"none of {len(unreadable)} images can be scored; {path}: {error}")
    found = {name: Spread.of(each) for name, each in times.items()}
    parts = {name: found[name] for name in ("read", "decode", "embed", "search")}
    return FileTimes(precision, len(paths), len(readable), len(unreadable), **parts, regions=found.get("regions"))


def measure_throughput(
    kit: Kit, precision: Precision, images: Sequence[Path] | np.ndarray, *, threads: int, seconds: float
) -> Throughput:
    """Score files, or one frame repeatedly, on several threads."""
    detector = Detector.of(kit, threads=1, precision=precision, backend="onnxruntime")
    if isinstance(images, np.ndarray):
        frame = images
        results: Generator[Result | ImageResult, None, None] = ordered_map(
            lambda _: detector.score(frame), cycle([None]), workers=threads
        )
    else:
        results = score_images(detector, cycle(images), threads=threads)
    with closing(results):
        deque(islice(results, 2 * threads), maxlen=0)  # images that were started before the measurement
        start = time.perf_counter()
        scored = sum(
            not isinstance(each, ImageResult) or each.result is not None
            for _, each in zip(_rounds(seconds), results, strict=False)
        )
        return Throughput(precision, threads, scored / (time.perf_counter() - start))


def measure_start(kit: Path, precision: Precision, frame: np.ndarray, *, threads: int) -> Start:
    """Start a new process three times; see Start."""
    with tempfile.TemporaryDirectory(prefix="msc-edge-bench-", ignore_cleanup_errors=True) as scratch:
        image = Path(scratch, "image.npy")
        np.save(image, frame)
        command = [sys.executable, "-m", f"{__package__}.cold_start", str(kit), precision, str(threads), str(image)]
        starts = []
        for _ in range(_STARTS):
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode:
                last = (process.stderr.strip().splitlines() or ["no message"])[-1]
                raise KitError(f"{kit}: a new process could not score with this kit ({last}); run msc-edge doctor")
            starts.append(json.loads(process.stdout))
    importing, load, first = (float(np.median([each[name] for each in starts])) for name in ("import", "load", "first"))
    return Start(precision, threads, importing, load, first, starts[-1]["resident"])


def _timed(into: list[float], action: Callable[[], Output]) -> Output:
    start = time.perf_counter()
    output = action()
    into.append(1000 * (time.perf_counter() - start))
    return output


def _rounds(seconds: float) -> Iterator[int]:
    """Count rounds for `seconds`, at least `_MIN_SAMPLES`."""
    start = time.perf_counter()
    for number in count():
        if number >= _MIN_SAMPLES and time.perf_counter() - start >= seconds:
            return
        yield number
