"""`msc-edge score`, `msc-edge info` and `msc-edge verify`."""

import io
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from msc_edge.runtime.batch import Row, Summary
    from msc_edge.runtime.detector import Detector
    from msc_edge.runtime.results.table import ScoreTable

_KitArgument = Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)]


def score(
    kit: _KitArgument,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Folders (searched in any nesting), patterns, files.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Score file to write, .csv or .jsonl; one row an image.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the score file: only images that it lacks are scored.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Page to write, .html, with the most_anomalous to look at; whole in one file.",
            show_default=False,
        ),
    ] = None,
    gallery: Annotated[
        int | None,
        typer.Option(min=0, max=500, metavar="N", help="Images in the report's gallery.", show_default="24"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the score file and the report.")] = False,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option("--fail-on-anomaly", help="Exit with 1 if an image is rejected, with 3 if one cannot be read."),
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Reject scores above this one, instead of the kit's limit.", show_default=False)
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Reject at most this share of good images, such as 0.01.", show_default=False),
    ] = None,
    search: Annotated[
        Literal["auto", "exact", "hnsw"], typer.Option(help="How nearest_images are found; the scores are the same.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "int8"] | None,
        typer.Option(
            help="Model to use, each with limits of its own; auto: what a second's test finds faster here.",
            show_default="the kit's",
        ),
    ] = None,
    backend: Annotated[
        Literal["auto", "onnxruntime", "openvino"],
        typer.Option(help="What computes the model; auto: OpenVINO where it is installed and faster for float."),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images scored at once; all cores by default.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no summary.")] = False,
) -> None:
    """Score images against a kit.

    With --out each image becomes a row of that file as soon as it is scored.
    Without it rows are printed as CSV; a terminal shows the most_anomalous instead.
    With --report there is a page to look through at the end.

    Exit codes: 0 done, 1 anomalies found (only with --fail-on-anomaly), 2 usage,
    3 images cannot be read, 4 kit, 5 output cannot be written,
    130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from msc_edge.images import find_images
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.batch import Summary
    from msc_edge.runtime.detector import Detector
    from msc_edge.runtime.results.rows import read_rows
    from msc_edge.runtime.results.table import ScoreTable
    from msc_edge.runtime.tools.report.report_path import check_place
    from msc_edge.text import many

    _check_options(out, report, resume=resume, overwrite=overwrite, gallery=gallery)
    found = find_images(paths)
    images = list(found.paths)
    for option, path in (("--out", out), ("--report", report)):
        if path:
            images = _all_but(option, path, images, kit)
    summary, table, page = Summary(), None, None
    with ExitStack() as stack:
        opened = stack.enter_context(Kit.open(kit))
        detector = Detector.of(opened, threads=1, search=search, precision=precision, backend=backend).with_limits(
            threshold=threshold, false_alarm_rate=false_alarm_rate
        )
        takers: list[Callable[[Row], None]] = [summary.add]
        if report:
            from msc_edge.runtime.tools.report.scores import ScoreReport

            check_place(report, overwrite=overwrite, again=resume)
            page = ScoreReport(gallery=24 if gallery is None else gallery)
            takers.append(page.add)
        to_do = images
        if out:
            table = ScoreTable.resume(out, detector, images) if resume else ScoreTable.create(out, overwrite=overwrite)
            stack.enter_context(table)
            for row in read_rows(out):
                for take in takers:
                    take(row)
            to_do = table.missing(images)
        begun = time.perf_counter()
        _score_all(detector, to_do, table, takers, threads=threads, quiet=quiet)
        seconds = time.perf_counter() - begun
        if report and page:
            page.write(report, detector, opened, images)
    written = [(f"{many(summary.images, 'row')} in", out), ("report:", report)]
    _report(summary, detector, written, quiet=quiet, done_now=len(to_do), seconds=seconds, others=found.other_files)
    _leave(summary, fail_on_anomaly=fail_on_anomaly)


def _check_options(
    out: Path | None, report: Path | None, *, resume: bool, overwrite: bool, gallery: int | None
) -> None:
    from msc_edge.errors import UsageError

    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other; give one")
    if resume and not out:
        raise UsageError("--resume concerns a score file; name it with --out")
    if overwrite and not out and not report:
        raise UsageError("--overwrite concerns a score file or a report; name it with --out or --report")
    if gallery is not None and not report:
        raise UsageError("--gallery concerns the report; name it with --report")


def _all_but(option: str, written: Path, images: list[Path], kit: Path) -> list[Path]:
    """The images without what is to be written: `PATH/*`, as a shell writes it out, names that of an earlier run."""
    from msc_edge.errors import UnreadableImageError, UsageError
    from msc_edge.images import read_image

    if written.resolve().is_relative_to(kit.resolve()):
        raise UsageError(
            f"{option} {written}: lies within the kit, which would not be a kit any more; choose another place"
        )
    others = [path for path in images if path.absolute() != written.absolute()]
    if len(others) < len(images):
        try:
            read_image(written)
        except UnreadableImageError:
            return others
        raise UsageError(f"{option} {written}: is one of the images to be scored; choose another name")
    return others


def _score_all(
    detector: "Detector",
    images: list[Path],
    table: "ScoreTable | None",
    takers: "list[Callable[[Row], None]]",
    *,
    threads: int | None,
    quiet: bool,
) -> None:
    from msc_edge.progress import progress_bars, silent
    from msc_edge.runtime.batch import score_files

    # Before the progress bar, which puts its own stream in the place of standard output.
    write = table.write if table else _row_printer()
    begun = time.perf_counter()
    with ExitStack() as stack:
        report = silent if quiet else stack.enter_context(progress_bars())
        try:
            for done, row in enumerate(score_files(detector, images, threads=threads), start=1):
                for take in (write, *takers):
                    take(row)
                report("scoring", done, len(images), f"{done / (time.perf_counter() - begun):.1f} a second")
        except KeyboardInterrupt as stop:
            if table:
                stop.add_note(f"{table.rows} rows are written to {table.path}; --resume continues there")
            else:
                stop.add_note("nothing was kept; with --out a broken-off run can be continued")
            raise


def _row_printer() -> "Callable[[Row], None]":
    """Prints each row as CSV; at a terminal, where the rows would run past, it does nothing."""
    from msc_edge.runtime.results.rows import CSV_HEADER, csv_line
    from msc_edge.runtime.tools.display import to_standard_output

    stream = sys.stdout
    if stream.isatty():
        return lambda _: None
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", newline="\n")  # the bytes that --out writes

    def put(line: str) -> None:
        with to_standard_output():
            stream.write(f"{line}\n")
            stream.flush()

    put(CSV_HEADER)
    return lambda row: put(csv_line(row))


def _report(
    summary: "Summary",
    detector: "Detector",
    written: list[tuple[str, Path | None]],
    *,
    quiet: bool,
    done_now: int,
    seconds: float,
    others: int,
) -> None:
    from msc_edge.runtime.tools.display import (
        console,
        show_limits,
        show_most_anomalous,
        show_summary,
        to_standard_output,
    )
    from msc_edge.text import one_line

    if sys.stdout.isatty() and not (quiet and any(path for _, path in written)):
        with to_standard_output():
            show_most_anomalous(console(stderr=False), summary)
    if quiet:
        return
    screen = console(stderr=True)
    show_summary(screen, summary, done_now=done_now, seconds=seconds, other_files=others)
    if len(detector.manifest.precisions) > 1:
        screen.print(f"model: {detector.precision}, one of two; --precision settles which")
    if detector.backend != "onnxruntime":
        screen.print(f"computed by {detector.backend}")
    show_limits(screen, detector.limits, detector.calibration)
    for words, path in written:
        if path:
            screen.print(f"{words} {one_line(str(path))}")


def _leave(summary: "Summary", *, fail_on_anomaly: bool) -> None:
    from msc_edge.errors import SourceError
    from msc_edge.text import many

    if summary.unreadable and not summary.scored:
        raise SourceError(f"none of {many(summary.unreadable, 'image')} could be read; the rows say why")
    if not fail_on_anomaly:
        return
    if summary.verdicts["reject"]:
        raise typer.Exit(1)
    if summary.unreadable:
        raise SourceError(
            f"no image was rejected, but {many(summary.unreadable, 'image')} could not be read, "
            "and an unread part is not a good part; the rows say why"
        )


def info(
    kit: _KitArgument,
    json: Annotated[bool, typer.Option("--json", help="Print manifest.json.")] = False,
) -> None:
    """Show what a kit is: its backbone, bank, limits and promises, where it came from, and how it was proven."""
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.tools.display import console, show_kit, to_standard_output

    with Kit.open(kit) as opened, to_standard_output():
        if json:
            print(opened.manifest.to_json(), end="", flush=True)  # noqa: T201
        else:
            show_kit(console(stderr=False), opened)


def verify(kit: _KitArgument) -> None:
    """Check every byte of a kit, open all that it holds, and score one image."""
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.tools.display import console, describe_size, to_standard_output
    from msc_edge.runtime.tools.verify import verify as verify_kit
    from msc_edge.text import one_line

    with Kit.open(kit) as opened:
        checks = verify_kit(opened)
        with to_standard_output():
            console(stderr=False).print(f"ok: {one_line(str(kit))}: {describe_size(opened)}; {', '.join(checks)}")
