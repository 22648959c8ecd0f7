from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Verdict
from msc_edge.demo.contact_sheet import Cell, contact_sheet, write_contact_sheet
from msc_edge.errors import OutputError
from msc_edge.images import read_image

RED, GREEN = np.full((60, 90, 3), (250, 10, 10), np.uint8), np.full((300, 200, 3), (10, 250, 10), np.uint8)


def cells(count: int) -> list[Cell]:
    return [Cell(RED, GREEN, f"stain/{i}", 0.25, "reject") for i in range(count)]


def shown(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=2).sum())


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_each_image_stands_beside_its_nearest_normal_whole_and_undistorted(count: int) -> None:
    sheet = contact_sheet([("most anomalous", cells(count))])
    assert sheet.dtype == np.uint8
    # 168 pixels wide and two thirds as high, but for the frame of three pixels at its two short sides.
    assert shown(sheet, (250, 10, 10)) == count * 112 * (168 - 2 * 3)
    assert shown(sheet, (10, 250, 10)) == count * 112 * 168


def test_the_frame_has_the_colour_of_the_verdict() -> None:
    colours: dict[Verdict, tuple[int, int, int]] = {
        "reject": (211, 47, 47),
        "warn": (245, 160, 0),
        "normal": (56, 142, 60),
    }
    for verdict, colour in colours.items():
        sheet = contact_sheet([("all", [Cell(RED, GREEN, "one", 0.1, verdict)])])
        assert shown(sheet, colour) > 1500


def test_sections_follow_one_another() -> None:
    one, two = contact_sheet([("a", cells(2))]), contact_sheet([("a", cells(2)), ("b", cells(5))])
    assert np.array_equal(two[: len(one)], one)
    assert len(two) > 2 * len(one)
    assert two.shape[1] == one.shape[1]


def test_it_is_written_as_a_png_with_these_pixels(tmp_path: Path) -> None:
    sheet = contact_sheet([("most anomalous", cells(3))])
    write_contact_sheet(tmp_path / "blätter.png", sheet)
    assert np.array_equal(read_image(tmp_path / "blätter.png"), sheet)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*sheet\.png"):
        write_contact_sheet(tmp_path / "nowhere" / "sheet.png", contact_sheet([("a", cells(1))]))
