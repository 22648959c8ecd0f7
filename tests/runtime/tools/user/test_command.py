import os
import subprocess
import sys
from pathlib import Path


def user(*arguments: object, text: str = "", code: int = 0) -> str:
    command = [sys.executable, "-m", "msc_edge", "user", *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_users_are_kept_by_three_commands(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    added = user("add", file, "anna", "--role", "engineer", "--password-stdin", text="correct horse\n")
    assert "anna is engineer" in added
    user("add", file, "ben", "--password-stdin", text="correct horse\n")
    assert user("list", file) == "anna: engineer\nben: operator\n"
    user("remove", file, "anna")
    assert user("list", file) == "ben: operator\n"
    assert "correct horse" not in file.read_text()


def test_errors_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    assert "at least 10" in user("add", file, "anna", "--password-stdin", text="short\n", code=2)
    assert "--password-stdin" in user("add", file, "anna", code=2)
    assert "msc-edge user add" in user("list", file, code=2)
