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
    from msc_edge.runtime.detector import Detector
    from msc_edge.runtime.folder import Row, Summary
    from msc_edge.runtime.table import ScoreTable

_KitArgument = Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)]


def score(
    kit: _KitArgument,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Folders (searched in any nesting), patterns, files.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Score file to write, .csv or .jsonl; one row a picture.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the score file: only pictures that it lacks are scored.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the score file.")] = False,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option("--fail-on-anomaly", help="Exit with 1 if a picture is rejected, with 3 if one cannot be read."),
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Reject scores above this one, instead of the kit's limit.", show_default=False)
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(help="Reject at most this share of good pictures, such as 0.01.", show_default=False),
    ] = None,
    search: Annotated[
        Literal["auto", "exact", "hnsw"], typer.Option(help="How neighbours are found; the scores are the same.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Pictures scored at once; all cores by default.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no summary.")] = False,
) -> None:
    """Score pictures against a kit.

    With --out each picture becomes a row of that file as soon as it is scored.
    Without it rows are printed as CSV; a terminal shows the strangest instead.

    Exit codes: 0 done, 1 anomalies found (only with --fail-on-anomaly), 2 usage,
    3 pictures cannot be read, 4 kit, 5 output cannot be written,
    130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from msc_edge.errors import UsageError
    from msc_edge.images import find_images
    from msc_edge.runtime.detector import Detector
    from msc_edge.runtime.folder import Summary
    from msc_edge.runtime.rows import read_rows
    from msc_edge.runtime.table import ScoreTable

    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other; give one")
    if out is None and (resume or overwrite):
        raise UsageError(f"{'--resume' if resume else '--overwrite'} concerns a score file; name it with --out")
    found = find_images(paths)
    pictures = list(found.paths) if out is None else _all_but(out, found.paths, kit)
    detector = Detector.load(kit, threads=1, search=search).with_limits(
        threshold=threshold, false_alarm_rate=false_alarm_rate
    )
    summary = Summary()
    with ExitStack() as stack:
        table = None
        if out is not None:
            table = (
                ScoreTable.resume(out, detector, pictures) if resume else ScoreTable.create(out, overwrite=overwrite)
            )
            stack.enter_context(table)
            for row in read_rows(out):
                summary.add(row)
            pictures = table.missing(pictures)
        begun = time.perf_counter()
        _score_all(detector, pictures, table, summary, threads=threads, quiet=quiet)
        seconds = time.perf_counter() - begun
    _report(summary, detector, out, quiet=quiet, done_now=len(pictures), seconds=seconds, others=found.other_files)
    _leave(summary, fail_on_anomaly=fail_on_anomaly)


def _all_but(out: Path, pictures: tuple[Path, ...], kit: Path) -> list[Path]:
    """The pictures without the score file: `PATH/*`, as a shell writes it out, names that of an earlier run too."""
    from msc_edge.errors import UnreadableImageError, UsageError
    from msc_edge.images import read_image

    if out.resolve().is_relative_to(kit.resolve()):
        raise UsageError(f"--out {out}: lies within the kit, which would not be a kit any more; choose another place")
    others = [path for path in pictures if path.absolute() != out.absolute()]
    if len(others) < len(pictures):
        try:
            read_image(out)
        except UnreadableImageError:
            return others
        raise UsageError(f"--out {out}: is one of the pictures to be scored; choose another name")
    return others


def _score_all(
    detector: "Detector",
    pictures: list[Path],
    table: "ScoreTable | None",
    summary: "Summary",
    *,
    threads: int | None,
    quiet: bool,
) -> None:
    from msc_edge.progress import progress_bars, silent
    from msc_edge.runtime.folder import score_files

    # Before the progress bar, which puts its own stream in the place of standard output.
    write = table.write if table else _row_printer()
    begun = time.perf_counter()
    with ExitStack() as stack:
        report = silent if quiet else stack.enter_context(progress_bars())
        try:
            for done, row in enumerate(score_files(detector, pictures, threads=threads), start=1):
                write(row)
                summary.add(row)
                report("scoring", done, len(pictures), f"{done / (time.perf_counter() - begun):.1f} a second")
        except KeyboardInterrupt as stop:
            if table:
                stop.add_note(f"{table.rows} rows are written to {table.path}; --resume continues there")
            else:
                stop.add_note("nothing was kept; with --out a broken-off run can be continued")
            raise


def _row_printer() -> "Callable[[Row], None]":
    """Prints each row as CSV; at a terminal, where the rows would run past, it does nothing."""
    from msc_edge.runtime.display import to_standard_output
    from msc_edge.runtime.rows import CSV_HEADER, csv_line

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
    out: Path | None,
    *,
    quiet: bool,
    done_now: int,
    seconds: float,
    others: int,
) -> None:
    from msc_edge.runtime.display import console, show_limits, show_strangest, show_summary, to_standard_output
    from msc_edge.runtime.text import many, one_line

    if sys.stdout.isatty() and not (quiet and out):
        with to_standard_output():
            show_strangest(console(stderr=False), summary)
    if quiet:
        return
    screen = console(stderr=True)
    show_summary(screen, summary, done_now=done_now, seconds=seconds, other_files=others)
    show_limits(screen, detector.limits, detector.calibration)
    if out:
        screen.print(f"{many(summary.pictures, 'row')} in {one_line(str(out))}")


def _leave(summary: "Summary", *, fail_on_anomaly: bool) -> None:
    from msc_edge.errors import SourceError
    from msc_edge.runtime.text import many

    if summary.unreadable and not summary.scored:
        raise SourceError(f"none of {many(summary.unreadable, 'picture')} could be read; the rows say why")
    if not fail_on_anomaly:
        return
    if summary.verdicts["reject"]:
        raise typer.Exit(1)
    if summary.unreadable:
        raise SourceError(
            f"no picture was rejected, but {many(summary.unreadable, 'picture')} could not be read, "
            "and an unread part is not a good part; the rows say why"
        )


def info(
    kit: _KitArgument,
    json: Annotated[bool, typer.Option("--json", help="Print manifest.json.")] = False,
) -> None:
    """Show what a kit is: its backbone, bank, limits and promises, where it came from, and how it was proven."""
    from msc_edge.kit import Kit
    from msc_edge.runtime.display import console, show_kit, to_standard_output

    with Kit.open(kit) as opened, to_standard_output():
        if json:
            print(opened.manifest.to_json(), end="", flush=True)  # noqa: T201
        else:
            show_kit(console(stderr=False), opened)


def verify(kit: _KitArgument) -> None:
    """Check every byte of a kit, open all that it holds, and score one picture."""
    from msc_edge.kit import Kit
    from msc_edge.runtime.display import console, describe_size, to_standard_output
    from msc_edge.runtime.text import one_line
    from msc_edge.runtime.verify import verify as verify_kit

    with Kit.open(kit) as opened:
        checks = verify_kit(opened)
        with to_standard_output():
            console(stderr=False).print(f"ok: {one_line(str(kit))}: {describe_size(opened)}; {', '.join(checks)}")
