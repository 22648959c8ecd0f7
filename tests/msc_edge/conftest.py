import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msc_edge.images import DecodePolicy, read_image


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
        pytest.skip("runs as root: file modes forbid nothing")


@pytest.fixture(scope="session")
def read() -> Callable[..., np.ndarray]:
    """Read an image from a file with this content, uint8 (height, width, 3)."""

    def write_and_read(tmp_path: Path, content: bytes, *, bit_depth: Any = 8, name: str = "part.jpg") -> np.ndarray:
        path = tmp_path / name
        path.write_bytes(content)
        image = read_image(path, DecodePolicy(bit_depth=bit_depth))
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        return image

    return write_and_read
