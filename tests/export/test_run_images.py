import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import SourceError
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.images import read_image
from msc_edge.train.dataset import NormalImage, read_image_table
from msc_edge.train.run_record import IMAGE_TABLE, RunRecord, read_record


@pytest.fixture
def moved(drawn_parts: Path, tmp_path: Path) -> Path:
    """The drawn parts in another folder, which a test may change."""
    return shutil.copytree(drawn_parts, tmp_path / "moved")


@pytest.fixture(scope="module")
def table(drawn_run: Path) -> list[NormalImage]:
    return read_image_table(drawn_run / IMAGE_TABLE)


@pytest.fixture
def record(drawn_run: Path, tmp_path: Path) -> RunRecord:
    """The record of a run whose images are no longer where they were."""
    return read_record(drawn_run).model_copy(update={"folder": str(tmp_path / "gone")})


def test_images_that_were_moved_are_found_by_role_in_the_order_of_the_table(
    record: RunRecord, table: list[NormalImage], moved: Path
) -> None:
    shutil.copy(moved / "part_00.png", moved / "one more.png")  # added after the training
    images = RunImages.find(record, table, moved=moved)
    assert images.folder == moved
    assert images.in_bank == tuple(image.path for image in table)
    assert images.calibration == images.held_out
    assert images.held_out == tuple(image.path for image in table if image.role == "calibration")
    assert images.held_out_once().in_bank == tuple(image.path for image in table if image.role == "bank")
    assert (len(images.in_bank), len(images.held_out)) == (40, 8)
    names = images.held_out[:2]
    for name, (decoded_name, image) in zip(names, images.decoded(names, "task"), strict=True):
        assert decoded_name == name
        np.testing.assert_array_equal(image, read_image(moved / name))


def test_images_that_are_missing_from_the_recorded_folder_name_the_option(
    record: RunRecord, table: list[NormalImage]
) -> None:
    with pytest.raises(SourceError, match=r"gone.part_00\.png: this training image is missing; pass --normal DIR"):
        RunImages.find(record, table)


def test_a_missing_or_changed_image_is_refused(
    record: RunRecord, table: list[NormalImage], moved: Path, change_byte: Callable
) -> None:
    change_byte(moved / "part_17.png", 200)
    with pytest.raises(SourceError, match=r"moved.part_17\.png: changed since the training; restore the file"):
        RunImages.find(record, table, moved=moved)
    (moved / "part_17.png").unlink()
    with pytest.raises(SourceError, match=r"moved.part_17\.png: this training image is missing"):
        RunImages.find(record, table, moved=moved)


def test_copies_and_unreadable_images_are_not_needed(record: RunRecord, table: list[NormalImage], moved: Path) -> None:
    unused = [NormalImage("copy.png", "0" * 64, "duplicate"), NormalImage("broken.png", "0" * 64, "unreadable")]
    assert RunImages.find(record, [*unused, *table], moved=moved) == RunImages.find(record, table, moved=moved)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10)))],
)
def test_evenly_spaced_items(count: int, expected: list[int]) -> None:
    assert evenly(range(10), count) == expected
