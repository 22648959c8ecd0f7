"""Places that cannot be reached: one line and an exit code, whichever option names them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msc_edge.cli import app

TEACHER = "--teacher-backbone resnet18 --teacher-stop-at layer2 --teacher-weights WEIGHTS"
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


@pytest.fixture
def words(tmp_path: Path, drawn_normals: Path, small_weights: Path) -> dict[str, str]:
    return {"GOOD": str(drawn_normals), "WEIGHTS": str(small_weights), "OUT": str(tmp_path / "out")}


def filled_in(command: str, words: dict[str, str]) -> list[str]:
    arguments = command.split()
    for word, meaning in words.items():
        arguments = [argument.replace(word, meaning) for argument in arguments]
    return arguments


@pytest.mark.parametrize(("command", "code"), CASES)
def test_a_name_that_is_too_long(command: str, code: int, words: dict[str, str], tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, filled_in(command, {**words, "PLACE": str(tmp_path / ("x" * 300))}))
    assert (refused.exit_code, refused.stderr.count("\n")) == (code, 1), refused.stderr
    assert "File name too long" in refused.stderr
    assert not list(tmp_path.iterdir())


INVOKE = """
import json, sys
from typer.testing import CliRunner
from msc_edge.cli import app
done = [CliRunner().invoke(app, arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([(each.exit_code, each.stderr) for each in done]))
"""


def without_privileges() -> list[str]:
    """What makes a command obey permissions, though root gives it."""
    if sys.platform == "win32":
        pytest.skip("on Windows permissions are not in the mode of a file")
    if os.geteuid():
        return []
    if (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("nothing is forbidden to root")
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


def test_a_folder_that_may_not_be_entered(words: dict[str, str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    cases = [(filled_in(command, {**words, "PLACE": str(closed / "below")}), code) for command, code in CASES]
    cases += [
        (filled_in(command, {**words, "PLACE": str(closed)}), 3)
        for command, _ in CASES
        if "--normal PLACE" in command or "--images PLACE" in command
    ]
    closed.chmod(0)
    try:
        done = subprocess.run(
            [*without_privileges(), sys.executable, "-c", INVOKE, json.dumps([arguments for arguments, _ in cases])],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        closed.chmod(0o700)
    assert done.returncode == 0, done.stderr
    for (arguments, code), (left_with, said) in zip(cases, json.loads(done.stdout), strict=True):
        assert (left_with, said.count("\n")) == (code, 1), (arguments, said)
        assert "Permission denied" in said, arguments
    assert not list(closed.iterdir())
