import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from msc_edge.errors import UsageError
from msc_edge.preprocessing import Preprocessing, Region, preset

sizes = st.integers(32, 2048)


def test_the_preset_paper_is_resize_256_and_centre_crop_224() -> None:
    paper = preset("paper")
    assert (paper.resize, paper.resize_to, paper.image_size) == ("short-side", 256, 224)
    removed = 1 - paper.image_size**2 / paper.resize_to**2
    assert round(removed, 2) == 0.23


@given(sizes)
def test_the_preset_whole_frame_removes_nothing(image_size: int) -> None:
    whole = preset("whole-frame", image_size=image_size)
    assert whole.resize == "stretch"
    assert whole.resize_to == whole.image_size == image_size


@given(sizes)
def test_the_preset_paper_scales_with_the_image_size_to_the_pixel(image_size: int) -> None:
    resize_to = preset("paper", image_size=image_size).resize_to
    assert resize_to == math.floor(image_size * 256 / 224)
    assert resize_to >= image_size


@given(
    st.sampled_from(["whole-frame", "paper"]),
    sizes,
    st.none() | st.builds(Region, x=sizes, y=sizes, width=sizes, height=sizes),
)
def test_a_description_survives_json(name: Any, image_size: int, region: Region | None) -> None:
    described = preset(name, image_size=image_size, region=region)
    assert Preprocessing.model_validate_json(described.model_dump_json()) == described


@pytest.mark.parametrize("image_size", [31, 1, 0, -224, 2049, 1_000_000])
def test_an_image_size_out_of_range_is_refused(image_size: int) -> None:
    with pytest.raises(UsageError, match=f"--image-size {image_size}: expected 32 to 2048"):
        preset("whole-frame", image_size=image_size)


@pytest.mark.parametrize(
    "change",
    [
        {"resize_to": 223},
        {"image_size": 0},
        {"preset": "centre"},
        {"resize": "crop"},
        {"mean": (0.5, 0.5)},
        {"std": (math.nan, 0.2, 0.2)},
        {"colour": "BGR"},
        {"region": {"x": 0, "y": 0, "width": 0, "height": 9}},
        {"region": {"x": -1, "y": 0, "width": 9, "height": 9}},
        {"region": {"x": 0, "y": 0, "width": 9, "height": 9, "angle": 3}},
    ],
    ids=str,
)
def test_an_impossible_description_is_refused(change: dict[str, Any]) -> None:
    described = preset("paper").model_dump()
    Preprocessing.model_validate(described)
    with pytest.raises(ValidationError):
        Preprocessing.model_validate(described | change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,0,1,1", (0, 0, 1, 1)),
        ("10,20,300,400", (10, 20, 300, 400)),
        (" 10, 20 ,300,400 ", (10, 20, 300, 400)),
    ],
)
def test_a_region_is_parsed_from_text(text: str, expected: tuple[int, int, int, int]) -> None:
    region = Region.parse(text)
    assert (region.x, region.y, region.width, region.height) == expected


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4", "-1,0,3,4", "0,-1,3,4", "0,0,0,4", "0,0,4,0", "1;2;3;4"],
)
def test_other_text_is_a_usage_error_that_repeats_it(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Region.parse(text)
    assert str(refusal.value).startswith(f"--roi {text}: expected four whole numbers x,y,w,h")


@given(st.integers(0, 40), st.integers(0, 40), *[st.integers(1, 40)] * 4)
def test_a_region_fits_if_each_of_its_pixels_is_in_the_frame(
    x: int, y: int, width: int, height: int, frame_height: int, frame_width: int
) -> None:
    frame = [[(row, column) for column in range(frame_width)] for row in range(frame_height)]
    cut = [row[x : x + width] for row in frame[y : y + height]]
    whole = len(cut) == height and all(len(row) == width for row in cut)
    assert Region(x=x, y=y, width=width, height=height).fits(height=frame_height, width=frame_width) == whole
