"""A real browser, without network, with the content that it displays and its error messages."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from msc_edge.images import read_image


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


@pytest.fixture
def print_page(tmp_path: Path) -> Callable[[Path, Path], list[np.ndarray]]:
    """Prints a page and returns the sheets, uint8 (height, width), 0 is black."""
    chromium, to_png = shutil.which("chromium"), shutil.which("pdftoppm")
    if chromium is None or to_png is None:
        pytest.skip("needs chromium and pdftoppm (poppler-utils), which are not installed")

    def print_page(page: Path, folder: Path) -> list[np.ndarray]:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--force-dark-mode", "--no-pdf-header-footer")
        out = (f"--user-data-dir={tmp_path / 'print'}", f"--print-to-pdf={folder / 'page.pdf'}")
        subprocess.run([chromium, *options, *out, page.as_uri()], capture_output=True, check=True, timeout=120)
        subprocess.run([to_png, "-r", "40", "-gray", "-png", folder / "page.pdf", folder / "sheet"], check=True)
        return [read_image(sheet)[..., 0] for sheet in sorted(folder.glob("sheet*.png"))]

    return print_page


def _can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0
    )
