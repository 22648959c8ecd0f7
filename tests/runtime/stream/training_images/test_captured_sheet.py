"""The contact sheet: all images in order, and never a training image."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.runtime.stream.training_images.captured_sheet import captured_sheet, sheet_path, write_captured_sheet
from msc_edge.runtime.stream.training_images.image_folder import open_image_folder

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def captured(folder: Path, count: int) -> list[Path]:
    """Plain images of the colours, in turns."""
    with open_image_folder(folder) as images:
        for i in range(count):
            image = np.full((60, 80, 3), COLOURS[i % len(COLOURS)], np.uint8)
            images.save(image, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=i))
    return images.paths


@pytest.mark.parametrize("name", ["parts", "odd [name] of ümlauts & 'quotes'", "-x", "parts.png"])
def test_the_sheet_lies_beside_the_folder_and_is_no_image_of_it(name: str, tmp_path: Path) -> None:
    paths = captured(tmp_path / name, 3)
    sheet = write_captured_sheet(tmp_path / name, paths)
    assert sheet == sheet_path(tmp_path / name) == tmp_path / f"{name}-contact-sheet.jpg"
    assert read_image(sheet).ndim == 3
    assert list(find_images([tmp_path / name]).paths) == paths


def test_the_current_folder_has_a_sheet_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    monkeypatch.chdir(tmp_path / "parts")
    assert sheet_path(Path()) == tmp_path / "parts-contact-sheet.jpg"


def colours_of(sheet: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the sheet from left to right and from top to bottom, each cell once."""
    found = []
    for row in sheet[::20]:
        runs = [tuple(map(int, pixel)) for pixel in row if tuple(pixel) in COLOURS]
        found.append([colour for i, colour in enumerate(runs) if i == 0 or colour != runs[i - 1]])
    return [colour for i, row in enumerate(found) if i == 0 or row != found[i - 1] for colour in row]


def test_images_are_in_the_order_of_time(tmp_path: Path) -> None:
    sheet = captured_sheet("parts", captured(tmp_path, 5))
    assert colours_of(sheet) == COLOURS


def test_a_file_that_cannot_be_read_is_a_cell_that_says_so(tmp_path: Path) -> None:
    paths = captured(tmp_path, 5)
    whole = captured_sheet("parts", paths)
    paths[1].write_bytes(b"damaged")
    damaged = captured_sheet("parts", paths)
    assert colours_of(damaged) == [each for each in COLOURS if each != COLOURS[1]]
    assert damaged.shape == whole.shape


def test_of_many_images_some_are_drawn(tmp_path: Path) -> None:
    paths = captured(tmp_path, 2) * 2000
    sheet = captured_sheet("parts", paths)
    assert 50 * 60 < sheet.shape[0] < 50 * 200  # 500 images in rows of ten
