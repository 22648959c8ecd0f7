"""The roof: `msc-edge`, with the commands of training, export and runtime under it.

Here, once, every way in which a command can end becomes an exit code and at most one line on standard error:

    0    done                                      5    output that cannot be written
    1    anomalies found (--fail-on-anomaly)       70   a defect of msc-edge (with its traceback), or no memory left
    2    usage                                     130  Ctrl-C
    3    images that cannot be found or read     141  the reader of standard output has gone
    4    kit                                       143  SIGTERM
"""

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from msc_edge import __version__
from msc_edge.demo.command import demo
from msc_edge.errors import MscEdgeError, OutputError, extras_named
from msc_edge.export.command import export
from msc_edge.runtime.stream.command import reload, stream
from msc_edge.runtime.tools.bench.command import bench
from msc_edge.runtime.tools.calibrate.command import calibrate
from msc_edge.runtime.tools.doctor.command import doctor
from msc_edge.runtime.tools.evaluate.command import evaluate
from msc_edge.runtime.tools.kit.command import info, upgrade, verify
from msc_edge.runtime.tools.score.command import score
from msc_edge.text import one_line
from msc_edge.train.command import train
from msc_edge.train.distillation.command import distil
from msc_edge.train.one_vs_rest.command import benchmark

_DEFECT, _INTERRUPTED, _READER_GONE, _TERMINATED = 70, 130, 141, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a service manager sends. A command that cleans up after Ctrl-C does so after this."""


_stops: list[int] = []  # the signals that asked the process to end


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # typer's own context class, which has moved between its versions
        # Around the commands, and not around `app()`: there typer has put its own exits in the place of ours.
        with _ended_well():
            return super().invoke(ctx)


@contextmanager
def _ended_well() -> Iterator[None]:
    try:
        with extras_named():
            yield
    except MscEdgeError as error:
        _leave(error.exit_code, f"error: {error}")
    except KeyboardInterrupt as stop:
        said = "; ".join(getattr(stop, "__notes__", []))
        code = _TERMINATED if isinstance(stop, Terminated) else _INTERRUPTED
        _leave(code, f"stopped{': ' if said else ''}{said}")
    except BrokenPipeError:
        _leave(_READER_GONE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # What is written to files says so itself; this came from printing.
        _leave(OutputError.exit_code, f"error: cannot print: {error.strerror}; free some space")
    except MemoryError:
        _leave(_DEFECT, "error: not enough memory; close other programs, or use smaller images or fewer --threads")


def _leave(code: int, line: str = "") -> NoReturn:
    if line:
        with suppress(OSError):
            print(one_line(line), file=sys.stderr, flush=True)  # noqa: T201
    raise SystemExit(code) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msc-edge {__version__}")
        raise typer.Exit


@app.callback()
def _roof(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find anomalies in images: learn from images of good parts, pack a kit, score on a plain CPU.

    [bold]train[/bold] writes a run, [bold]export[/bold] makes a kit of it, [bold]score[/bold] needs only the kit.
    """


app.command()(demo)
app.command()(train)
app.command()(export)
app.command()(score)
app.command()(info)
app.command()(verify)
app.command()(upgrade)
app.command()(evaluate)
app.command()(calibrate)
app.command()(stream)
app.command()(reload)
app.command()(doctor)
app.command()(bench)
app.command()(distil)
app.add_typer(benchmark, name="benchmark")


def main() -> NoReturn:
    """Run the command line and leave the process."""
    if sys.stdout is None:  # closed by who started us
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # a path that this terminal cannot show must not stop a run
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
        code = 0
    except SystemExit as leaving:
        code = leaving.code
    except KeyboardInterrupt:  # before a command has begun
        code = _INTERRUPTED
    except Exception:
        if not _stops:  # a library that is stopped while it is imported raises what it likes
            traceback.print_exc()
        # Python's own exit code for this is 1, which here says that anomalies were found.
        code = _DEFECT
    if _stops:
        code = _TERMINATED
    _flush()
    if code in (_INTERRUPTED, _TERMINATED):
        # A thread may still wait for a dead network drive; the interpreter would wait for it.
        os._exit(code)
    sys.exit(code)


def _terminate(signum: int, frame: object) -> NoReturn:  # noqa: ARG001
    _stops.append(signum)
    raise Terminated


def _flush() -> None:
    """Flush standard output; what a closed pipe or a full disk does not take is dropped, for it was reported."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
