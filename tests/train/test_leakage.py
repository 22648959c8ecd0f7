import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from msc_edge.images import read_image
from msc_edge.train.dataset import NormalImage
from msc_edge.train.leakage import leaked_images
from msc_edge.train.preparation import check_images


@pytest.fixture(scope="module")
def images(normal_images: Path, options: Callable) -> list[NormalImage]:
    return check_images(normal_images, options())


def test_the_bytes_or_the_pixels_of_a_normal_image_are_found(
    images: list[NormalImage], normal_images: Path, tmp_path: Path, toy: ModuleType, save: Callable
) -> None:
    copied, saved_again, other = (tmp_path / name for name in ("copy.png", "other_format.bmp", "new.png"))
    shutil.copy(normal_images / images[3].path, copied)
    save(saved_again, read_image(normal_images / images[5].path))
    save(other, toy.draw(1000))
    found = leaked_images(images, [other, saved_again, copied])
    assert list(found.items()) == [(saved_again, images[5]), (copied, images[3])]


def test_an_image_with_one_other_pixel_is_another_image(
    images: list[NormalImage], normal_images: Path, tmp_path: Path, save: Callable
) -> None:
    image = read_image(normal_images / images[0].path).copy()
    image[0, 0, 0] ^= 1
    save(tmp_path / "a.png", image)
    assert leaked_images(images, [tmp_path / "a.png"]) == {}


def test_unreadable_test_images_are_reported(images: list[NormalImage], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    failed: dict[Path, str] = {}
    paths = [tmp_path / "broken.png", tmp_path / "missing.png"]
    assert leaked_images(images, paths, unreadable=failed.__setitem__) == {}
    assert list(failed) == paths
