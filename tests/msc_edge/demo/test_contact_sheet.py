from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Verdict
from msc_edge.demo.contact_sheet import Cell, contact_sheet, write_contact_sheet
from msc_edge.drawing import VERDICT_COLOURS
from msc_edge.errors import OutputError
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.tools.report.legend import heatmap_scale

RED, GREEN = np.full((60, 90, 3), (250, 10, 10), np.uint8), np.full((300, 200, 3), (10, 250, 10), np.uint8)


def cell(name: str = "stain/0", verdict: Verdict = "reject") -> Cell:
    nearest = (NearestImage(row=0, path="n.png", distance=0.2), NearestImage(row=1, path="m.png", distance=0.3))
    result = Result(0.25, 0.25, None, 0.01, verdict, 0.2, (), nearest, "fp32", "0" * 64)
    return Cell(image=RED, nearest=GREEN, name=name, result=result)


def cells(count: int) -> list[Cell]:
    return [cell(f"stain/{number}") for number in range(count)]


def pixels(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == colour).all(axis=2).sum())


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_each_image_is_whole_and_in_proportion_beside_its_nearest_normal_image(count: int) -> None:
    sheet = contact_sheet([("most anomalous", cells(count))])
    assert sheet.dtype == np.uint8
    # The space is 168 pixels wide and high, with a frame of three pixels. The image is 2/3 as high as wide.
    assert pixels(sheet, (250, 10, 10)) == count * 162 * 108
    assert pixels(sheet, (10, 250, 10)) == count * 112 * 168


@pytest.mark.parametrize("verdict", VERDICT_COLOURS)
def test_the_frame_has_the_colour_of_the_verdict(verdict: Verdict) -> None:
    sheet = contact_sheet([("all", [cell(verdict=verdict)])])
    for each, colour in VERDICT_COLOURS.items():
        assert (pixels(sheet, colour) > 1500) == (each == verdict)


def test_sections_follow_one_another() -> None:
    one, two = contact_sheet([("a", cells(2))]), contact_sheet([("a", cells(2)), ("b", cells(5))])
    assert np.array_equal(two[: len(one)], one)
    assert len(two) > 2 * len(one)
    assert two.shape[1] == one.shape[1]


def test_a_kit_with_patches_adds_a_legend(patch_kit: Path) -> None:
    detector = Detector.load(patch_kit, threads=1)
    with_map = Cell(image=RED, nearest=GREEN, name="stain/0", result=detector.score(RED))
    assert with_map.result.grid_map is not None
    plain = contact_sheet([("a", [cell(verdict=with_map.result.verdict)])])
    sheet = contact_sheet([("a", [with_map])])
    assert sheet.shape[1] == plain.shape[1]
    legend = sheet[len(plain) :]
    scale = heatmap_scale(width=200, height=16)
    assert np.array_equal(legend[:16, 28:228], scale)
    assert (legend[:, -28:] == plain[0, 0]).all()


def test_it_is_written_as_a_png_with_these_pixels(tmp_path: Path) -> None:
    sheet = contact_sheet([("most anomalous", cells(3))])
    write_contact_sheet(tmp_path / "blätter.png", sheet)
    assert np.array_equal(read_image(tmp_path / "blätter.png"), sheet)


def test_a_sheet_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*sheet\.png"):
        write_contact_sheet(tmp_path / "nowhere" / "sheet.png", contact_sheet([("a", cells(1))]))
