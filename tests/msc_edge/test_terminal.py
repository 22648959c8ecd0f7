import errno
import io
import os
import re
from pathlib import Path
from typing import get_args

import pytest
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from msc_edge.calibration import Verdict
from msc_edge.errors import OutputError
from msc_edge.terminal import STYLES, console, echo, printing


def printed(*texts: RenderableType) -> str:
    to = console(stderr=False)
    to.file = io.StringIO()
    for text in texts:
        to.print(text)
    return to.file.getvalue()


@pytest.mark.parametrize(
    "text", ["[bold red]x[/bold red].png", ":smiley: [3].png", "C:\\a", "100 images, 3.5 s", "日本 ü"]
)
def test_names_and_numbers_are_printed_as_they_are(text: str) -> None:
    assert printed(text) == f"{text}\n"


def test_long_lines_are_not_wrapped() -> None:
    assert printed("x" * 500, Text("y" * 500, "bold")) == f"{'x' * 500}\n{'y' * 500}\n"


def test_output_can_go_to_standard_error() -> None:
    assert console(stderr=True).stderr
    assert not console(stderr=False).stderr


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07\x1b[2J", "a\x9b31mb", "right \u202eleft", "bell\a, \x00, \x7f, \r"])
def test_control_characters_are_never_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(text, title=text)
    table.add_row(Text(text))
    echo(text)
    for output in (printed(text), printed(Text(text)), printed(table), printed(Panel(text)), capsys.readouterr().out):
        assert "\\" in output
        assert all(character.isprintable() or character == "\n" for character in output), ascii(output)


def test_line_ends_are_printed() -> None:
    assert printed("one\ntwo", Text("three\nfour")) == "one\ntwo\nthree\nfour\n"


def test_every_verdict_has_a_style() -> None:
    assert set(get_args(Verdict)) <= set(STYLES)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_to_print_is_an_output_error(code: int) -> None:
    with pytest.raises(OutputError, match=re.escape(f"cannot write standard output: {os.strerror(code)}")), printing():
        raise OSError(code, os.strerror(code))


def test_a_closed_pipe_stays_a_broken_pipe() -> None:
    """The command line then exits with 141 and prints nothing."""
    with pytest.raises(BrokenPipeError), printing():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_output_that_works_raises_nothing() -> None:
    with printing():
        assert printed("done") == "done\n"


def print_to(descriptor: int) -> None:
    to = console(stderr=False)
    with io.FileIO(descriptor, "w") as raw, printing():
        to.file = io.TextIOWrapper(raw, write_through=True)  # pyright: ignore[reportArgumentType]
        to.print("x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="No space left"):
        print_to(os.open("/dev/full", os.O_WRONLY))


def test_a_closed_pipe_does_not_exit_with_the_code_for_anomalies() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        print_to(writer)
