"""The command line `msc-edge`, with the commands of training, export and runtime.

Every command ends with one of these exit codes, and prints at most one line on standard error for an error:

    0    done                                    5    output that cannot be written
    1    anomalies found (--fail-on-anomaly)     70   a bug in msc-edge (with its traceback), or out of memory
    2    usage                                   130  Ctrl-C
    3    images that cannot be found or read     141  standard output was closed by its reader
    4    kit                                     143  SIGTERM
"""

import errno
import io
import os
import re
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
from msc_edge.errors import MscEdgeError, OutputError, explain_missing_extra
from msc_edge.export.command import export
from msc_edge.export.fused.command import fuse
from msc_edge.runtime.stream.command import reload, stream
from msc_edge.runtime.stream.training_images.command import capture
from msc_edge.runtime.tools.bench.command import bench
from msc_edge.runtime.tools.calibrate.command import calibrate
from msc_edge.runtime.tools.compare.command import compare
from msc_edge.runtime.tools.doctor.command import doctor
from msc_edge.runtime.tools.evaluate.command import evaluate
from msc_edge.runtime.tools.kit.command import info, new_key, sign, upgrade, verify
from msc_edge.runtime.tools.learn.command import learn
from msc_edge.runtime.tools.score.command import score
from msc_edge.runtime.tools.serve.command import serve
from msc_edge.runtime.tools.user.command import user
from msc_edge.studio.command import studio
from msc_edge.text import lines, one_line
from msc_edge.train.command import train
from msc_edge.train.distillation.command import distil
from msc_edge.train.one_vs_rest.command import benchmark
from msc_edge.train.registry_help import RegistryCommand

_BUG, _INTERRUPTED, _CLOSED_PIPE, _TERMINATED = 70, 130, 141, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a service manager sends it. Commands that clean up after Ctrl-C clean up after it too."""


_received: list[int] = []  # signals that end the process


class _Commands(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # An empty path is the current folder: `--out "$DIR"` with DIR not set would write there.
        empty = next((place for place, each in enumerate(args) if not each or re.fullmatch(r"--[a-z-]+=", each)), None)
        if empty is not None:
            name = args[empty].removesuffix("=") or (args[empty - 1] if empty else "the command")
            _exit(2, f"error: {name}: what follows is empty, perhaps from a variable that is not set; give a value")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # the class of the context has moved between versions of typer
        # Wrap the commands, not `app()`: by then typer has replaced some exceptions with exit codes of its own.
        with _exit_codes():
            return super().invoke(ctx)


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        with explain_missing_extra():
            yield
    except MscEdgeError as error:
        _exit(error.exit_code, f"error: {error}")
    except KeyboardInterrupt as stop:
        notes = "; ".join(getattr(stop, "__notes__", []))
        code = _TERMINATED if isinstance(stop, Terminated) else _INTERRUPTED
        _exit(code, f"stopped: {notes}" if notes else "stopped")
    except BrokenPipeError:
        _exit(_CLOSED_PIPE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Writing a file raises OutputError, so this error comes from printing.
        _exit(OutputError.exit_code, f"error: cannot print: {error.strerror}; free some space")
    except MemoryError:
        _exit(_BUG, "error: not enough memory; close other programs, or use smaller images or fewer --threads")


def _exit(code: int, line: str = "") -> NoReturn:
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
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find anomalies in images: learn from images of good parts, pack a kit, score on a plain CPU.

    [bold]train[/bold] writes a run, [bold]export[/bold] makes a kit from it, [bold]score[/bold] needs only the kit.
    """


app.command()(demo)
app.command()(capture)
app.command(cls=RegistryCommand)(train)
app.command()(export)
app.command()(fuse)
app.command()(score)
app.command()(info)
app.command()(verify)
app.command()(upgrade)
app.command()(new_key)
app.command()(sign)
app.command()(evaluate)
app.command()(compare)
app.command()(calibrate)
app.command()(learn)
app.command()(stream)
app.command()(reload)
app.command()(serve)
app.command()(studio)
app.command()(doctor)
app.command()(bench)
app.command(cls=RegistryCommand)(distil)
app.add_typer(user, name="user")
app.add_typer(benchmark, name="benchmark")


def main() -> NoReturn:
    """Run the command line and exit."""
    if sys.stdout is None:  # closed by the parent process
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # a path that cannot be printed must not stop a command
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
        code = 0
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:  # before the command started
        code = _INTERRUPTED
    except Exception:
        if not _received:  # a library that is interrupted during its import can raise any exception
            print(lines(traceback.format_exc()), end="", file=sys.stderr)  # noqa: T201
        # Python would exit with 1, which means that anomalies were found.
        code = _BUG
    if _received:
        code = _TERMINATED
    _flush()
    if code in (_INTERRUPTED, _TERMINATED):
        # The interpreter would wait for threads, and a thread may hang on a dead network drive.
        os._exit(code)
    sys.exit(code)


def _terminate(signum: int, frame: object) -> NoReturn:  # noqa: ARG001
    _received.append(signum)
    raise Terminated


def _flush() -> None:
    """Flush standard output. Errors of a closed pipe or a full disk were reported before, and are ignored here."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
