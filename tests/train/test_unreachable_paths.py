"""Paths that cannot be opened: one line and an exit code, for every option that takes a path."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msc_edge.cli import app

TEACHER = "--teacher-backbone mobilenet_v2_x0.1 --teacher-stop-at features.3 --teacher-weights WEIGHTS"
CASES = [
    ("train --normal PLACE --out OUT --weights WEIGHTS", 3),
    ("train --normal GOOD --out PLACE", 5),
    ("train --normal GOOD --out OUT --weights PLACE", 2),
    (f"distil --images PLACE --out OUT.safetensors --image-size 32 {TEACHER}", 3),
    ("distil --images GOOD --out OUT.safetensors --teacher PLACE", 4),
    ("distil --images GOOD --out OUT.safetensors --teacher-backbone resnet18 --teacher-weights PLACE", 2),
    (f"distil --images GOOD --out OUT.safetensors {TEACHER} --student-weights PLACE", 2),
    (f"distil --images GOOD --out PLACE.safetensors {TEACHER}", 5),
    ("demo --out PLACE", 5),
]
SOURCES = [(command, code) for command, code in CASES if "--normal PLACE" in command or "--images PLACE" in command]


@pytest.fixture
def words(tmp_path: Path, normal_images: Path, small_weights: Path) -> dict[str, str]:
    return {"GOOD": str(normal_images), "WEIGHTS": str(small_weights), "OUT": str(tmp_path / "out")}


def run(command: str, words: dict[str, str], place: Path) -> tuple[int, str]:
    arguments = command.split()
    for word, value in {**words, "PLACE": str(place)}.items():
        arguments = [argument.replace(word, value) for argument in arguments]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stderr


@pytest.mark.parametrize(("command", "code"), CASES)
def test_a_name_that_is_too_long(command: str, code: int, words: dict[str, str], tmp_path: Path) -> None:
    exit_code, error = run(command, words, tmp_path / ("x" * 300))
    assert (exit_code, error.count("\n")) == (code, 1), error
    assert "File name too long" in error
    assert not list(tmp_path.iterdir())


@contextmanager
def permissions_enforced() -> Iterator[None]:
    """File permissions apply to this thread and to threads that it starts, even if the user is root.

    Removes CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from the effective capabilities, see capabilities(7).
    """
    if sys.platform == "win32":
        pytest.skip("on Windows the mode of a file does not contain its permissions")
    if os.geteuid():
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root ignores permissions")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    assert libc.capget(header, before) == 0
    restricted = (ctypes.c_uint32 * 6)(*before)
    restricted[0] &= ~0b110
    assert libc.capset(header, restricted) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@pytest.mark.parametrize(("command", "code"), CASES)
def test_a_path_below_a_folder_without_permission(
    command: str, code: int, words: dict[str, str], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        with permissions_enforced():
            exit_code, error = run(command, words, closed / "below")
    finally:
        closed.chmod(0o700)
    assert (exit_code, error.count("\n")) == (code, 1), error
    assert "Permission denied" in error
    assert not list(closed.iterdir())


@pytest.mark.parametrize(("command", "code"), SOURCES)
def test_a_source_folder_without_permission(command: str, code: int, words: dict[str, str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        with permissions_enforced():
            exit_code, error = run(command, words, closed)
    finally:
        closed.chmod(0o700)
    assert (exit_code, error.count("\n")) == (code, 1), error
    assert "Permission denied" in error
