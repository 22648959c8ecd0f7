"""`msc-edge score`."""

import io
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from msc_edge.deprecation import deprecated_option, renamed
from msc_edge.runtime.option_types import FalseAlarmRate, LearnedOption, PrecisionOption, Threshold, TrustedKey

if TYPE_CHECKING:
    from msc_edge.runtime.batch import FolderScores
    from msc_edge.runtime.results.image_result import ImageResult
    from msc_edge.runtime.results.summary import Summary


def score(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH", help="Image files, patterns, or folders with all subfolders.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Score file to write, .csv or .jsonl; one row per image.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the score file: score only the images that are missing in it.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="HTML page to write, with the most anomalous images; a single self-contained file.",
            show_default=False,
        ),
    ] = None,
    gallery: Annotated[
        int | None,
        typer.Option(min=0, max=500, metavar="N", help="Images in the report's gallery.", show_default="24"),
    ] = None,
    heatmaps: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each image with its heatmap over it to this folder, as JPEG. All images of a kit have the same "
            "colours: yellow is the limit of a region.",
            show_default=False,
        ),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the anomaly map of each image to this folder, as 16-bit PNG with the scale in its metadata.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the score file, the report, and heatmaps and maps of the same images."
        ),
    ] = False,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly", help="Exit with 1 if an image is rejected, else with 3 if an image cannot be read."
        ),
    ] = False,
    threshold: Threshold = None,
    false_alarm_rate: FalseAlarmRate = None,
    search: Annotated[
        Literal["auto", "exact", "hnsw"],
        typer.Option(
            help="How to search the memory bank. hnsw gives the same scores, except for rows that the index misses."
        ),
    ] = "auto",
    precision: PrecisionOption = None,
    learned: LearnedOption = False,
    trusted_key: TrustedKey = None,
    backend: Annotated[
        Literal["auto", "onnxruntime", "openvino"],
        typer.Option(
            help="Library that computes the model. auto: OpenVINO where it is installed and faster, for fp32."
        ),
    ] = "auto",
    engine: Annotated[
        str | None, typer.Option("--engine", hidden=True, callback=deprecated_option("--engine", "--backend"))
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Images scored in parallel.", show_default="all cores")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no summary.")] = False,
) -> None:
    """Score images with a kit.

    With --out each image gets a row in that file as soon as it is scored.
    Without --out the rows are printed as CSV; a terminal shows the most anomalous images instead.

    Exit codes: 0 done, 1 anomalies found (only with --fail-on-anomaly), 2 usage,
    3 images cannot be found or read, 4 the kit cannot be used, 5 output cannot be written,
    130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from msc_edge.errors import UsageError
    from msc_edge.kit.opening import Kit
    from msc_edge.progress import progress_bars, silent
    from msc_edge.runtime.batch import score_folder
    from msc_edge.runtime.tools.score.heatmaps import HeatmapWriter

    if overwrite and not (out or report or heatmaps or maps):
        raise UsageError(
            "--overwrite replaces a score file, a report or heatmaps; name them with --out, --report or --heatmaps"
        )
    if gallery is not None and not report:
        raise UsageError("--gallery belongs to the report; name it with --report")
    page = None
    if report:
        from msc_edge.runtime.tools.report.report_path import check_report_path
        from msc_edge.runtime.tools.report.scores import ScoreReport

        check_report_path(report, overwrite=overwrite or resume)
        page = ScoreReport(gallery=24 if gallery is None else gallery)
    receivers: list[Callable[[ImageResult], None]] = [page.add] if page else []
    if not out:
        receivers.append(_row_printer())  # before the progress bar, which replaces standard output
    with ExitStack() as stack:
        progress = silent if quiet else stack.enter_context(progress_bars())
        opened = stack.enter_context(Kit.open(kit, trusted_key=trusted_key))
        writer = None
        if heatmaps or maps:
            writer = HeatmapWriter(opened, overlays=heatmaps, maps=maps, images=paths, overwrite=overwrite or resume)
        done = score_folder(
            opened,
            paths,
            out,
            resume=resume,
            overwrite=overwrite,
            threshold=threshold,
            false_alarm_rate=false_alarm_rate,
            search=search,
            precision=None if precision == "auto" else precision,
            backend=renamed("--engine", engine, "--backend", None if backend == "auto" else backend) or "auto",  # pyright: ignore[reportArgumentType]  (checked by select_backend)
            learned=learned,
            threads=threads,
            excluded=[report] if report else [],
            on_result=receivers,
            thumbnail_if=page.wants_thumbnail if page else None,
            on_image=writer.write if writer else None,
            report=progress,
        )
        if report and page:
            page.write(report, done.detector, opened, earlier_rows=done.earlier_rows)
    _show(done, out, report, learned=learned, quiet=quiet)
    _leave(done.summary, fail_on_anomaly=fail_on_anomaly)


def _row_printer() -> "Callable[[ImageResult], None]":
    """A function that prints each row as CSV; at a terminal, where rows would scroll past, it prints nothing."""
    from msc_edge.runtime.results.formats import CsvFormat
    from msc_edge.runtime.results.image_result import IMAGE_FIELDS
    from msc_edge.terminal import printing

    stream, form = sys.stdout, CsvFormat(IMAGE_FIELDS)
    if stream.isatty():
        return lambda _: None
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", newline="\n")  # the bytes that --out writes

    header = [form.header]  # printed with the first row, so that nothing is printed where the kit cannot be used

    def put(image: "ImageResult") -> None:
        with printing():
            stream.write((b"".join(header) + form.encode(image)).decode())
            stream.flush()
        header.clear()

    return put


def _show(done: "FolderScores", out: Path | None, report: Path | None, *, learned: bool, quiet: bool) -> None:
    from msc_edge.runtime.results.fields import describe_learned
    from msc_edge.runtime.tools.score.tables import show_limits, show_most_anomalous, show_summary
    from msc_edge.terminal import console, printing
    from msc_edge.text import many, one_line

    if sys.stdout.isatty() and not (quiet and (out or report)):
        with printing():
            show_most_anomalous(console(stderr=False), done.summary)
    if quiet:
        return
    screen, detector = console(stderr=True), done.detector
    show_summary(screen, done.summary, scored_now=done.scored_now, seconds=done.seconds, other_files=done.other_files)
    if len(detector.manifest.models) > 1:
        screen.print(f"model: {detector.model} (the kit has another one; --precision selects)")
    if learned:
        screen.print(describe_learned(len(detector.additions), detector.additions.sha256))
    if detector.spec.name != "onnxruntime":
        screen.print(f"backend: {detector.spec.name}")
    show_limits(screen, detector.limits, detector.calibration, detector.regions)
    if out:
        screen.print(f"{many(done.summary.images, 'row')} in {one_line(str(out))}")
    if report:
        screen.print(f"report: {one_line(str(report))}")


def _leave(summary: "Summary", *, fail_on_anomaly: bool) -> None:
    from msc_edge.errors import SourceError
    from msc_edge.text import many

    if summary.unreadable and not summary.scored:
        raise SourceError(f"none of {many(summary.unreadable, 'image')} could be read; the rows give the reasons")
    if not fail_on_anomaly:
        return
    if summary.verdicts["reject"]:
        raise typer.Exit(1)
    if summary.unreadable:
        raise SourceError(
            f"no image was rejected, but {many(summary.unreadable, 'image')} could not be read, and an unread part may "
            "be defective; the rows give the reasons"
        )
