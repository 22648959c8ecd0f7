"""What a training refuses: options, images, folders, and results that are of no use."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.preprocessing import Region
from msc_edge.train.run_folder import RECORD
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, read_record
from msc_edge.train.training import train

NOT_TEXT = pytest.mark.skipif(sys.platform != "linux", reason="other file systems accept valid text only")


def test_a_second_training_in_the_same_folder_is_refused_and_the_first_continues(
    normal_images: Path, frozen_run: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
) -> None:
    errors: list[str] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "reading images" and done == 1:  # nothing is written yet
            for resume in (False, True):
                with pytest.raises(UsageError) as refused:
                    train(normal_images, tmp_path / "run", options(seed=1), resume=resume)
                errors.append(str(refused.value))

    trained(normal_images, tmp_path / "run", options(steps=0), report=report)
    assert ["another training is running there" in each for each in errors] == [True, True]
    files = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE)
    assert contents(tmp_path / "run", files) == contents(frozen_run, files)


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_existing_files_at_the_output_path_are_not_changed(
    occupied: str, normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    out = tmp_path / "out"
    if occupied == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=str(out)):
        train(normal_images, out, options())
    assert (out if occupied == "file" else out / "thesis.txt").read_text() == "mine"


def test_a_region_and_reduced_jpeg_exclude_each_other(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    with pytest.raises(UsageError, match="--reduced-jpeg and --roi: a region is in pixels of the full image"):
        train(normal_images, tmp_path / "run", options(reduced_jpeg=True, region=Region(x=0, y=0, width=9, height=9)))


@pytest.mark.parametrize(("readable", "unreadable"), [(0, 4), (1, 0), (2, 3)])
def test_too_few_readable_images_are_refused(
    readable: int, unreadable: int, normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(readable):
        shutil.copy(normal_images / f"part_{i:02d}.png", folder)
    for i in range(unreadable):
        (folder / f"bad_{i}.png").write_bytes(b"bad %d" % i)
    reason = (
        f"^{unreadable} of {readable + unreadable} images cannot be read, .*the first failure: bad_0.png: "
        if unreadable
        else "^of 1 images found"
    )
    with pytest.raises(SourceError, match=rf"{reason}.*"):
        train(folder, tmp_path / "run", options())
    with pytest.raises(KitError):
        read_record(tmp_path / "run")


def test_the_error_names_the_image_that_does_not_contain_the_region(
    normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    with pytest.raises(SourceError, match=r"part_00\.png: is 64x48 pixels, and --roi 0,0,65,48 is not inside it"):
        train(normal_images, tmp_path / "run", options(region=Region(x=0, y=0, width=65, height=48)))


@pytest.mark.parametrize("steps", [4, 1])
def test_a_diverged_training_is_refused(steps: int, normal_images: Path, tmp_path: Path, options: Callable) -> None:
    # With one step the loss is still finite: only the embeddings show the effect of the step.
    with pytest.raises(UsageError, match="--learning-rate"):
        train(normal_images, tmp_path / "run", options(steps=steps, learning_rate=1e30))
    with pytest.raises(KitError):
        read_record(tmp_path / "run")


def test_a_collapsed_training_is_refused(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    # All images become one point: every score would be 0 and every defect normal.
    with pytest.raises(UsageError, match=r"embeddings have collapsed: .* train again with a lower --learning-rate"):
        train(normal_images, tmp_path / "run", options(learning_rate=5.0, steps=3))
    assert not (tmp_path / "run" / RECORD).exists()


def test_a_network_whose_features_are_zero_is_refused(
    normal_images: Path, tmp_path: Path, options: Callable, small_weights: Path
) -> None:
    dead = load_file(small_weights)
    for block in (2, 3):  # the second one adds its input to its output
        for name in ("weight", "bias"):
            dead[f"features.{block}.conv.3.{name}"].zero_()
    save_file(dead, tmp_path / "dead.safetensors")
    with pytest.raises(UsageError, match="all zero"):
        train(normal_images, tmp_path / "run", options(steps=0, weights=tmp_path / "dead.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    with pytest.raises(UsageError, match="--accelerator gpu --devices 1: not available on this machine"):
        train(normal_images, tmp_path / "run", options(accelerator="gpu"))


@NOT_TEXT
def test_a_folder_whose_name_is_not_text_is_refused_immediately(
    normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(normal_images, folder)
    with pytest.raises(SourceError, match="not valid text"):
        train(folder, tmp_path / "run", options())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [{"image_size": 10**6}, {"devices": 1000}, {"stop_at": "nonsense"}])
def test_an_invalid_option_leaves_no_folder(
    wrong: dict[str, Any], normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    with pytest.raises(UsageError):
        train(normal_images, tmp_path / "run", options(steps=0, **wrong))
    assert not (tmp_path / "run").exists()
