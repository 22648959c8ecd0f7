"""The status line: updated at the bottom of a terminal, or logged at intervals where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msc_edge.runtime.stream.config_sections import LogConfig
from msc_edge.runtime.stream.logs import LOG, log_to, standard_error
from msc_edge.runtime.stream.statistics import fitted


@contextmanager
def status_line(config: LogConfig) -> Iterator[Callable[[str], None]]:
    """Give a function that takes the status line, as often as the caller likes."""
    if sys.stderr.isatty() and config.format == "text":
        with _on_terminal(config) as show:
            yield show
        return
    logged = time.monotonic()

    def log(line: str) -> None:
        nonlocal logged
        if time.monotonic() - logged >= config.status_every:
            logged = time.monotonic()
            LOG.info("%s", line)

    yield log


@contextmanager
def _on_terminal(config: LogConfig) -> Iterator[Callable[[str], None]]:
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from msc_edge.terminal import console as console_of  # noqa: PLC0415

    console = console_of(stderr=True, soft_wrap=False)
    handler = standard_error()
    # Log through the console, which redraws the status line below each log line.
    handler.emit = lambda record: console.print(Text(handler.format(record)), soft_wrap=True)
    log_to(handler, config.format)
    with Live(
        console=console, auto_refresh=False, transient=False, redirect_stdout=False, redirect_stderr=False
    ) as live:

        def show(line: str) -> None:
            live.update(
                Text(fitted(line, console.width), overflow="ellipsis", no_wrap=True, style="bold"), refresh=True
            )

        yield show
    log_to(standard_error(), config.format)
