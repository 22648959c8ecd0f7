import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Threads of torch that wait for work must not use a core. libgomp reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def in_child() -> Callable[..., str]:
    """Run Python code in a process of its own, where a hang or a crash is a failure, and return its output."""

    def run(code: str, *arguments: str | Path, timeout: float = 60) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], timeout=timeout, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    return run


@pytest.fixture
def enforced_permissions(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip a test where modes of files forbid nothing: for root, and on Windows."""
    file = tmp_path_factory.mktemp("permissions") / "file"
    file.touch(mode=0)
    if os.access(file, os.R_OK):
        pytest.skip("nothing is forbidden to this user")
