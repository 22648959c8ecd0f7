from pathlib import Path

import numpy as np
import pytest

from msc_edge.export.thumbnails import thumbnail_name, write_thumbnail
from msc_edge.images import read_image


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue is even."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([red, green, np.full_like(red, 90)], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1080, 1920), (144, 256)),
        ((1920, 1080), (256, 144)),
        ((256, 256), (256, 256)),
        ((257, 100), (256, 100)),
        ((40, 60), (40, 60)),  # never enlarged
        ((1, 1), (1, 1)),
        ((1, 5000), (1, 256)),
    ],
)
def test_longer_side_has_at_most_256_pixels_and_the_shape_stays(size: tuple, expected: tuple, tmp_path: Path) -> None:
    path = tmp_path / "ü.jpg"
    write_thumbnail(path, ramp(*size))
    assert read_image(path).shape == (*expected, 3)


def test_colours_are_those_of_the_image(tmp_path: Path) -> None:
    write_thumbnail(tmp_path / "t.jpg", ramp(512, 512))
    difference = read_image(tmp_path / "t.jpg").astype(int) - ramp(256, 256)
    assert np.abs(difference).mean() < 3


def test_names_sort_as_the_rows_do() -> None:
    names = [thumbnail_name(row) for row in (0, 9, 10, 99, 100, 99999)]
    assert names == sorted(names)
    assert names[0] == "00000.jpg"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        write_thumbnail(tmp_path / "nowhere" / "t.jpg", ramp(10, 10))
