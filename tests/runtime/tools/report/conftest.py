"""A real browser, without network, with the content that it displays and its error messages."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Opened:
    """A page that the browser has opened."""

    dom: str
    console: list[str]
    """Lines of the browser's console: errors and warnings."""


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[Path], Opened]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium, which is not installed")
    # A network namespace of its own, without interfaces; only root may create one.
    alone = ["unshare", "-n"] if os.name == "posix" and os.geteuid() == 0 and _can_unshare() else []

    def browse(page: Path) -> Opened:
        profile = tmp_path / "profile"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
        done = subprocess.run(
            [*alone, chromium, *options, f"--user-data-dir={profile}", "--window-size=1160,2000", page.as_uri()],
            capture_output=True,
            check=True,
            timeout=120,
        )
        lines = done.stderr.decode(errors="replace").splitlines()
        return Opened(done.stdout.decode(), [line for line in lines if re.search(r":CONSOLE[:(]", line)])

    return browse


def _can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0
    )
