import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def in_child() -> Callable[..., str]:
    """Run Python code in a process of its own, where a hang or a crash of the decoder is a failure; what it prints."""

    def run(code: str, *arguments: str | Path, timeout: float = 60) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], timeout=timeout, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    return run
