"""`msc-edge capture`."""

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from msc_edge.runtime.stream.config import SourceConfig
    from msc_edge.runtime.stream.training_images.capturing import Capture
    from msc_edge.runtime.stream.training_images.checks import Refusal

_LOG_INTERVAL = 10.0  # seconds between two lines with the count, where there is no terminal
_FEWEST = 3  # images that train needs


def capture(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="0 or /dev/video0, an rtsp:// or http:// stream, a video file, or a folder that receives images. "
            "With --config: the name of a source in that file.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the images; continued if it has some.")],
    images: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of images wanted in DIR, with those of earlier runs.")
    ] = 200,
    every: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Examine one frame in this time; 0: every frame. Each file of a folder is examined.",
            show_default="1",
        ),
    ] = None,
    trigger: Annotated[
        Literal["key"] | None,
        typer.Option(help="Examine one frame for each Enter, or each line of standard input, instead. Cameras only."),
    ] = None,
    keep_similar: Annotated[
        bool, typer.Option("--keep-similar", help="Keep frames that are similar to images in DIR.")
    ] = False,
    keep_bright: Annotated[
        bool,
        typer.Option("--keep-bright", help="Keep frames that are saturated by more than half, as with a backlight."),
    ] = False,
    keep_all: Annotated[
        bool,
        typer.Option("--keep-all", help="Keep every examined frame: also similar, blurred, dark and bright ones."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the source, with its login, size and roi, from the configuration of a stream."
        ),
    ] = None,
) -> None:
    """Capture images of good parts for training, before a kit exists.

    Frames that are similar to images in DIR, blurred, too dark or too bright are skipped and counted. Images are
    lossless PNG files. A contact sheet is written beside DIR at the end. Ctrl-C ends the capture; the same command
    continues it.

    Exit codes: 0 done or stopped on request, 2 usage, 3 the source cannot be used or gave no image,
    5 output cannot be written.
    """
    from msc_edge.errors import SourceError, UsageError
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.stream.config_sections import LogConfig
    from msc_edge.runtime.stream.logs import log_to, standard_error
    from msc_edge.runtime.stream.status import status_line
    from msc_edge.runtime.stream.stop_signals import stop_on_signals
    from msc_edge.runtime.stream.training_images.captured_sheet import write_captured_sheet
    from msc_edge.runtime.stream.training_images.opening import open_capture
    from msc_edge.terminal import echo

    if trigger and every is not None:
        raise UsageError("--every and --trigger exclude each other; give one of them")
    log = LogConfig(status_every=_LOG_INTERVAL)
    log_to(standard_error(), log.format)
    with ExitStack() as stack:
        with progress_bars() as report:
            capturing = stack.enter_context(
                open_capture(
                    _source(source, config),
                    out,
                    images=images,
                    every=1.0 if every is None else every,
                    trigger=trigger,
                    allowed=_allowed(similar=keep_similar, bright=keep_bright, everything=keep_all),
                    report=report,
                )
            )
        stop_on_signals(capturing.stop, stack)
        with status_line(log) as show:
            capturing.run(show)
        if not capturing.folder.paths:
            raise SourceError(f"no image was captured: {capturing.summary()}{_no_frames(capturing)}")
        echo(f"{out}: {capturing.summary()}")
        with progress_bars() as report:
            sheet = write_captured_sheet(out, capturing.folder.paths, report=report)
    echo(f"contact sheet: {sheet}")
    if not capturing.is_complete and not capturing.has_ended:
        echo("for more images, repeat this command: it continues")
    if len(capturing.folder.paths) < _FEWEST:
        echo(f"training needs at least {_FEWEST} images, and a few hundred for limits: let other parts pass the camera")
    else:
        echo(f"next: msc-edge train --normal {shlex.quote(str(out))} --out RUN")


def _source(given: str, config: Path | None) -> "SourceConfig":
    """The options of the source: an address, or its name in a configuration file."""
    from msc_edge.errors import UsageError
    from msc_edge.runtime.stream.config_file import check_config, read_config
    from msc_edge.runtime.stream.sources.factory import addresses_of
    from msc_edge.terminal import echo

    if config is None:
        return check_config({"kit": ".", "source": [{"address": given}]}).source[0]
    found = read_config(config, {"kit": "."}, on_warning=lambda message: echo(f"warning: {message}", err=True))
    named = {name: options for name, _, options in addresses_of(found.source)}
    if given not in named:
        raise UsageError(f"--config {config}: no source has the name {given}; expected one of {', '.join(named)}")
    return named[given]


def _allowed(*, similar: bool, bright: bool, everything: bool) -> "set[Refusal]":
    from msc_edge.runtime.stream.training_images.checks import REFUSALS

    named: dict[Refusal, bool] = {"similar": similar, "bright": bright}
    return {reason for reason in REFUSALS if everything or named.get(reason)}


def _no_frames(capturing: "Capture") -> str:
    outage = capturing.source.outage
    return f"; {outage}" if outage else ""
