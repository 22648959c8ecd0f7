"""The decoder against other decoders, on a public suite of images and on damaged files."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = Path("/usr/libexec/installed-tests/gdk-pixbuf")  # of the Debian package gdk-pixbuf-tests


def outcomes(folder: Path, *options: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the outcome of each file by its name."""
    command = [sys.executable, REPOSITORY / "benchmarks" / "decode_suites.py", folder, "--list", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, {Path(line["file"]).name: line["outcome"] for line in lines}


@pytest.mark.skipif(not SUITE.is_dir(), reason="needs the Debian package gdk-pixbuf-tests")
def test_every_file_of_a_public_suite_is_equal_or_refused():
    code, found = outcomes(SUITE)
    assert set(found.values()) == {"equal", "refused"}
    assert code == 0
    assert list(found.values()).count("equal") >= 100


def test_large_files_are_compared_in_limited_memory(tmp_path):
    scene = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name in ("plain.png", "plain.bmp", "plain.tif", "plain.jpg"):
        cv2.imwrite(str(tmp_path / name), scene)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([scene, scene[..., 0]]))
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((5000, 6000), np.uint8))
    (tmp_path / "text.png").write_text("no image")
    code, found = outcomes(tmp_path, "--memory", "3")
    assert code == 0
    assert found.pop("text.png") == "refused"
    assert set(found.values()) == {"equal"}
    assert len(found) == 6


def test_a_difference_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    decode_suites = importlib.import_module("decode_suites")
    cv2.imwrite(str(tmp_path / "plain.png"), np.zeros((40, 50, 3), np.uint8))
    assert decode_suites.compared(tmp_path / "plain.png")[0] == "equal"
    original = decode_suites.by_msc_edge

    def with_one_pixel_changed(data: np.ndarray) -> np.ndarray:
        image = original(data)
        image[3, 4, 1] += 1
        return image

    monkeypatch.setattr(decode_suites, "by_msc_edge", with_one_pixel_changed)
    outcome, reason = decode_suites.compared(tmp_path / "plain.png")
    assert outcome == "different"
    assert "by up to 1 in 0.1% of the pixels" in reason
