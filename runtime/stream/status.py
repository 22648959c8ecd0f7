"""The line of status: kept up to date at the bottom of a terminal, or logged now and then where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msc_edge.runtime.stream.config import LogConfig
from msc_edge.runtime.stream.logs import LOG, log_to, standard_error


@contextmanager
def status_line(config: LogConfig) -> Iterator[Callable[[str], None]]:
    """Gives a function that takes the line of status, as often as the caller likes."""
    if sys.stderr.isatty() and config.format == "text":
        with _at_the_bottom(config) as show:
            yield show
        return
    told = time.monotonic()

    def log(line: str) -> None:
        nonlocal told
        if time.monotonic() - told >= config.status_every:
            told = time.monotonic()
            LOG.info("%s", line)

    yield log


@contextmanager
def _at_the_bottom(config: LogConfig) -> Iterator[Callable[[str], None]]:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    handler = standard_error()
    # Through the console, which draws the line of status anew below what is logged.
    handler.emit = lambda record: console.print(Text(handler.format(record)), soft_wrap=True)
    log_to(handler, config.format)
    with Live(
        console=console, auto_refresh=False, transient=False, redirect_stdout=False, redirect_stderr=False
    ) as live:

        def show(line: str) -> None:
            live.update(Text(line, overflow="ellipsis", no_wrap=True, style="bold"), refresh=True)

        yield show
    log_to(standard_error(), config.format)
