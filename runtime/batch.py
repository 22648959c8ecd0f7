"""Scoring many image files: in order, on several threads, in bounded memory, with one result for every file."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msc_edge.arguments import check_functions, functions_argument, path_argument, paths_argument
from msc_edge.drawing import SHOWN_SIDE, fit, thumbnail
from msc_edge.errors import UnreadableImageError, UsageError
from msc_edge.image_files import find_images
from msc_edge.images import bytes_of, decode_image, read_image
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.overlay import overlay
from msc_edge.parallel import ordered_map
from msc_edge.progress import Report, silent
from msc_edge.runtime.backends.interface import BackendChoice
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.earlier_rows import images_without_rows, rows_of
from msc_edge.runtime.processor import check_threads, usable_cores
from msc_edge.runtime.results.formats import path_as_written
from msc_edge.runtime.results.image_result import ImageResult, read_score_file, score_file_format
from msc_edge.runtime.results.row_file import RowFile
from msc_edge.runtime.results.summary import Summary
from msc_edge.runtime.search import SearchChoice

_READERS = 2  # a network share serves two requests in little more than the time of one


def score_images(
    detector: Detector,
    paths: Iterable[Path],
    *,
    threads: int | None = None,
    thumbnail_if: Callable[[ImageResult], bool] | None = None,
    on_image: Callable[[ImageResult, np.ndarray], None] | None = None,
) -> Generator[ImageResult, None, None]:
    """Score image files on `threads` threads (default: all usable cores): one result each, in the order of `paths`.

    Load the detector with `threads=1`: several images at once on one session are faster than several threads on one
    image. Files are read ahead while others are decoded and scored. Memory holds at most one decoded image a thread,
    and the bytes of a few files. `thumbnail_if` is called on those threads with each scored image; where it returns
    true, the result has a thumbnail, and an overlay if the kit has patches. `on_image` is called there with each
    scored image and its pixels, uint8 (height, width, 3); what it raises ends the run. An unreadable image gets a
    result with an error; a KitError is raised. Close the generator to stop early.
    """

    def score(file: _File) -> ImageResult:
        return _score(detector, file, thumbnail_if, on_image)

    with (
        closing(ordered_map(_read, paths, workers=_READERS)) as files,
        # One thread decodes and scores an image: it stays in that core's cache, and no stage waits for the other.
        closing(ordered_map(score, files, workers=threads or usable_cores())) as results,
    ):
        yield from results


@dataclass(frozen=True, slots=True)
class _File:
    """An image file: its bytes, or why they cannot be read."""

    path: Path
    data: np.ndarray | UnreadableImageError
    seconds: float


def _read(path: Path) -> _File:
    start = time.perf_counter()
    try:
        data = bytes_of(path)
    except UnreadableImageError as error:
        data = error
    return _File(path, data, time.perf_counter() - start)


def _score(
    detector: Detector,
    file: _File,
    thumbnail_if: Callable[[ImageResult], bool] | None,
    on_image: Callable[[ImageResult, np.ndarray], None] | None,
) -> ImageResult:
    if isinstance(file.data, UnreadableImageError):
        return ImageResult(str(file.path), None, error=str(file.data))
    small: list[ImageResult] = []

    def receive(scored: ImageResult, image: np.ndarray) -> None:
        if on_image:
            on_image(scored, image)
        if thumbnail_if and thumbnail_if(scored):
            small.append(_with_thumbnails(scored, image))

    scored = score_content(detector, str(file.path), file.data, seconds=file.seconds, on_image=receive)
    return small[0] if small else scored


def score_content(
    detector: Detector,
    path: str,
    data: np.ndarray,
    *,
    seconds: float = 0.0,
    on_image: Callable[[ImageResult, np.ndarray], None] | None = None,
) -> ImageResult:
    """Decode and score the content of the image file `path`, uint8 (n,), that took `seconds` to read."""
    start = time.perf_counter()
    try:
        image = decode_image(data, detector.manifest.decode)
        result = detector.score_decoded(image)
    except UnreadableImageError as error:
        return ImageResult(path, None, error=str(error))
    except MemoryError:
        return ImageResult(path, None, error="not enough memory to score it; shrink or tile the image")
    scored = ImageResult(path, result, 1000 * (seconds + time.perf_counter() - start))
    if on_image:
        on_image(scored, image)
    return scored


def _with_thumbnails(scored: ImageResult, image: np.ndarray) -> ImageResult:
    """The result with a small copy of its image, and of the overlay if it has a map."""
    found = scored.result.grid_map if scored.result else None
    small = fit(image, width=SHOWN_SIDE, height=SHOWN_SIDE)
    drawn = thumbnail(overlay(small, found), side=SHOWN_SIDE) if found is not None else None
    return replace(scored, thumbnail=thumbnail(small, side=SHOWN_SIDE), overlay=drawn)


@dataclass(frozen=True)
class FolderScores:
    """What `score_folder` did."""

    summary: Summary
    detector: Detector
    scored_now: int
    """Images of this call; with `resume`, the summary also counts the rows of earlier ones."""
    seconds: float
    """Wall time of scoring them."""
    other_files: int
    """Files that are not images, by their names."""
    earlier_rows: float | None = None
    """When the last row of earlier runs was written, in seconds since 1970; None where there is none."""


def score_folder(
    kit: str | Path | Kit,
    paths: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    threshold: float | None = None,
    false_alarm_rate: float | None = None,
    search: SearchChoice = "auto",
    precision: Precision | None = None,
    backend: BackendChoice = "auto",
    learned: bool = False,
    threads: int | None = None,
    excluded: Sequence[Path] = (),
    on_result: Sequence[Callable[[ImageResult], None]] = (),
    thumbnail_if: Callable[[ImageResult], bool] | None = None,
    on_image: Callable[[ImageResult, np.ndarray], None] | None = None,
    report: Report = silent,
) -> FolderScores:
    """Score images against a kit: the whole of `msc-edge score`.

    `paths` are folders (searched in any nesting), patterns and files. `out` is a score file, .csv or .jsonl, that gets
    one row for each image as soon as it is scored; with `resume` an existing file is continued with the images that it
    lacks, with `overwrite` it is replaced. `threshold` and `false_alarm_rate`: see `Detector.with_limits`. `learned`:
    see `Detector.load`. `excluded` are files that are never scored although a pattern matches them. Each result, those
    of earlier rows included, is passed to the callables of `on_result`; `thumbnail_if`, `on_image`: see `score_images`.

    Raises SourceError when no image is found, KitError, UsageError when `out` exists or was written with another kit,
    model, limit or other additions, and OutputError when it cannot be written.
    """
    out = None if out is None else path_argument("out", out, "'scores.csv'")
    excluded = [Path(path) for path in paths_argument("excluded", excluded, "'scores.html'")]
    check_functions(thumbnail_if=thumbnail_if, on_image=on_image, report=report)
    _check_options(out, resume=resume, overwrite=overwrite, threads=threads)
    found = find_images(paths_argument("paths", paths, "'images/'"))
    images = list(found.paths)
    receivers = ((summary := Summary()).add, *functions_argument("on_result", on_result))
    with ExitStack() as stack:
        opened = kit if isinstance(kit, Kit) else stack.enter_context(Kit.open(kit))
        for path in (*([out] if out else []), *excluded):
            images = _without_output(path, images, opened.path)
        detector = Detector.of(
            opened, threads=1, search=search, precision=precision, backend=backend, learned=learned
        ).with_limits(threshold=threshold, false_alarm_rate=false_alarm_rate)
        file = earlier_rows = None
        if out:
            form = score_file_format(out)
            done = rows_of(out, detector, images) if resume else Counter()
            if done:
                earlier_rows = out.stat().st_mtime
                file = RowFile.open(out, form)
            else:
                file = RowFile.create(out, form, overwrite=resume or overwrite)
            stack.enter_context(file)
            by_row = {path_as_written(path): path for path in images} if done else {}
            for row in read_score_file(out):
                # A row has the path as valid text, which need not be the name of a file.
                image = replace(row, path=str(by_row.get(row.path, row.path)))
                for receive in receivers:
                    receive(image)
            images = list(images_without_rows(images, done))
        start = time.perf_counter()
        try:
            results = stack.enter_context(
                closing(score_images(detector, images, threads=threads, thumbnail_if=thumbnail_if, on_image=on_image))
            )
            for number, image in enumerate(results, start=1):
                if file:
                    file.write(image)
                for receive in receivers:
                    receive(image)
                report("scoring", number, len(images), f"{number / (time.perf_counter() - start):.1f} images/s")
        except KeyboardInterrupt as stop:
            stop.add_note(
                f"{summary.images} rows are in {out}; --resume continues there"
                if out
                else "nothing was kept; with --out an interrupted run can be continued"
            )
            raise
        seconds = time.perf_counter() - start
    return FolderScores(summary, detector, len(images), seconds, found.other_files, earlier_rows)


def _check_options(out: Path | None, *, resume: bool, overwrite: bool, threads: int | None) -> None:
    check_threads(threads)
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other; pass one of them")
    if resume and not out:
        raise UsageError("--resume continues a score file; name it with --out")


def _without_output(written: Path, images: list[Path], kit: Path) -> list[Path]:
    """The images without a file that is to be written: `DIR/*`, expanded by a shell, names that of an earlier run."""
    if written.resolve().is_relative_to(kit.resolve()):
        raise UsageError(f"{written}: lies within the kit and would make it invalid; choose another place")
    others = [path for path in images if path.absolute() != written.absolute()]
    if len(others) < len(images):
        try:
            read_image(written)
        except UnreadableImageError:
            return others
        raise UsageError(f"{written}: is one of the images to score; choose another name for the output")
    return others
