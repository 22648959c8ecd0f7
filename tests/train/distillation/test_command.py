import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.train.backbones import build_backbone


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def given(tmp_path: Path, toy, save: Callable, randomise: Callable) -> list[str]:
    """The options of a distillation of a second."""
    for seed in range(32):
        save(tmp_path / "one" / f"{seed}.png", toy.draw(seed))
    for seed in range(4):
        save(tmp_path / "two" / f"{seed}.png", toy.draw(100 + seed))
    (tmp_path / "two" / "broken.png").write_bytes(b"no image")
    backbone = build_backbone("resnet18", stop_at="layer2")
    randomise(backbone, 0)
    save_file(backbone.state_dict(), tmp_path / "teacher.safetensors")
    return [
        *("--images", str(tmp_path / "one"), "--images", str(tmp_path / "two")),
        *("--teacher-backbone", "resnet18", "--teacher-stop-at", "layer2"),
        *("--teacher-weights", str(tmp_path / "teacher.safetensors"), "--student", "mobilenet_v2_x0.1"),
        *("--steps", "2", "--batch", "4", "--image-size", "32", "--accelerator", "cpu", "--precision", "fp32"),
    ]


def test_it_tells_what_came_of_it_what_was_left_out_and_what_is_next(given: list[str], tmp_path: Path) -> None:
    done = run("distil", *given, "--out", str(tmp_path / "student.safetensors"))
    assert done.exit_code == 0, done.stderr
    assert "student.safetensors: mobilenet_v2_x0.1 (from scratch), 2 steps on 32 images" in done.stdout
    assert "rank correlation" in done.stdout
    assert "next: msc-edge train --backbone mobilenet_v2_x0.1 --weights" in done.stdout
    assert "broken.png" in done.stderr


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--learning-rate", "0"], 2, "--learning-rate 0.0: expected a number above 0"),
        (["--learning-rate", "nan"], 2, "expected a number above 0"),
        (["--teacher", "run"], 2, "name one teacher"),
        (["--images", "nowhere"], 3, "nowhere"),
        (["--student", "vgg"], 2, "vgg: not known"),
        (["--image-size", "5"], 2, "--image-size 5: expected 32 to 2048 pixels"),
        (["--image-size", "0"], 2, "--image-size 0: expected 32 to 2048 pixels"),
        (["--learning-rate", "1e300"], 2, "--learning-rate 1e+300: expected a number above 0, and at most 1000"),
        (["--images", ""], 3, "an empty path was given"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    more: list[str], code: int, message: str, given: list[str], tmp_path: Path
) -> None:
    done = run("distil", *given, "--out", str(tmp_path / "student.safetensors"), *more)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "student.safetensors").exists()


def test_what_is_left_out_is_told_five_times_and_then_counted(given: list[str], tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / "one" / f"bad_{number}\x1b[31m.png").write_bytes(b"no image")
    done = run("distil", *given, "--out", str(tmp_path / "student.safetensors"))
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("left out, unreadable: ") == 6
    assert r"bad_0\x1b[31m.png: not an image" in done.stderr
    assert "\x1b" not in done.stderr
    assert "left out, unreadable: and 3 more" in done.stderr  # one is of the fixture


def test_an_archive_of_encrypted_images_says_so_once_in_the_end(given: list[str], tmp_path: Path) -> None:
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
    *left_out, error = done.stderr.splitlines()
    assert len(left_out) == 5
    assert "of 40 images found, 0 can be read" in error
    assert f"(40 left out, the first: {path}/00.png: it is encrypted; unpack the archive" in error
