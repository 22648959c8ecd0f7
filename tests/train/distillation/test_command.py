import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, toy, save: Callable) -> Path:
    """Folders `one` and `two` with 36 images and an unreadable file; read-only."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(32):
        save(folder / "one" / f"{seed}.png", toy.draw(seed))
    for seed in range(4):
        save(folder / "two" / f"{seed}.png", toy.draw(100 + seed))
    (folder / "two" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def given(folder: Path, teacher_weights: Path) -> list[str]:
    """The options of a distillation that takes less than a second."""
    return [
        *("--images", str(folder / "one"), "--images", str(folder / "two")),
        *("--teacher-backbone", "mobilenet_v2_x0.1", "--teacher-stop-at", "features.6"),
        *("--teacher-weights", str(teacher_weights), "--student", "mobilenet_v2_x0.1"),
        *("--steps", "1", "--batch", "4", "--image-size", "32", "--accelerator", "cpu", "--dtype", "fp32"),
    ]


def test_the_summary_shows_the_result_skipped_images_and_the_next_command(given: list[str], tmp_path: Path) -> None:
    done = run("distil", *given, "--out", str(tmp_path / "student.safetensors"))
    assert done.exit_code == 0, done.stderr
    assert "student.safetensors: mobilenet_v2_x0.1 (from scratch), 1 step on 32 images" in done.stdout
    assert "rank correlation" in done.stdout
    assert "next: msc-edge train --backbone mobilenet_v2_x0.1 --weights" in done.stdout
    assert "broken.png" in done.stderr


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--learning-rate", "0"], 2, "--learning-rate 0.0: expected a number above 0"),
        (["--teacher", "run"], 2, "expected one teacher"),
        (["--images", "nowhere"], 3, "nowhere"),
        (["--student", "vgg"], 2, "vgg: unknown"),
        (["--image-size", "5"], 2, "--image-size 5: expected 32 to 2048 pixels"),
        (["--images", ""], 2, "--images: what follows is empty"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    more: list[str], code: int, message: str, given: list[str], tmp_path: Path
) -> None:
    done = run("distil", *given, "--out", str(tmp_path / "student.safetensors"), *more)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "student.safetensors").exists()


def test_five_skipped_images_are_listed_and_the_others_counted(given: list[str], tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"bad_{number}\x1b[31m.png").write_bytes(b"no image")
    done = run("distil", "--images", str(tmp_path), *given, "--out", str(tmp_path / "student.safetensors"))
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("skipped: ") == 6
    assert r"bad_0\x1b[31m.png: not an image" in done.stderr
    assert "\x1b" not in done.stderr
    assert "skipped: 3 more" in done.stderr  # one of them is broken.png


def test_an_archive_of_encrypted_images_is_one_error(given: list[str], tmp_path: Path) -> None:
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(40):
            file.writestr(f"{number:02d}.png", b"cipher")
    data = bytearray(path.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", bytes(data)):
        data[entry.start() + 8] |= 1  # "encrypted" in the entries of the directory
    path.write_bytes(data)
    done = run("distil", "--images", str(path), "--out", str(tmp_path / "student.safetensors"), *given[4:])
    assert done.exit_code == 3
    *skipped, error = done.stderr.splitlines()
    assert len(skipped) == 5
    assert "of 40 images found, 0 are readable" in error
    assert f"(40 skipped, the first: {path}/00.png: it is encrypted; unpack the archive" in error


def test_precision_is_a_deprecated_name_of_dtype(given: list[str], tmp_path: Path) -> None:
    refused = run("distil", *given, "--precision", "fp32", "--batch", "3", "--out", str(tmp_path / "s.safetensors"))
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[0] == "warning: --precision is deprecated; use --dtype"
