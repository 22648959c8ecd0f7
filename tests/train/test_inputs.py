from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import SourceError, UsageError
from msc_edge.preprocessing import PresetName, Region, Tiles
from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.registry import architecture
from msc_edge.train.inputs import IgnoreMaskFile, preprocessing_of


@pytest.fixture
def mask_of(tmp_path: Path, save: Callable) -> Callable[[np.ndarray], IgnoreMaskFile]:
    """A mask file that is white where an array, bool (height, width), is true."""

    def make(white: np.ndarray) -> IgnoreMaskFile:
        save(tmp_path / "mask.png", np.repeat(white[..., None], 3, axis=2).astype(np.uint8) * 255)
        return IgnoreMaskFile(tmp_path / "mask.png")

    return make


def left_half(height: int = 80, width: int = 120) -> np.ndarray:
    return np.arange(width) < np.full((height, 1), width // 2)


def complete(mask: IgnoreMaskFile, name: PresetName = "whole-frame", region: Region | None = None, tiles: str = ""):
    parsed = Tiles.parse(tiles, image_size=96) if tiles else None
    return preprocessing_of(
        name,
        image_size=96,
        region=region,
        tiles=parsed,
        ignore_mask=mask,
        scores="both",
        architecture=architecture("edge-small"),
    )


@pytest.mark.parametrize(("scores", "margin"), [("image", 0), ("patch", 8), ("both", 8)])
def test_only_patches_need_a_margin(scores: ScoreKind, margin: int) -> None:
    spec = preprocessing_of(
        "whole-frame",
        image_size=96,
        region=None,
        tiles=None,
        ignore_mask=None,
        scores=scores,
        architecture=architecture("efficientnet_lite0"),
    )
    assert (spec.mean, spec.std) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert (spec.margin, spec.input_side, spec.canvas) == (margin, 96 + 2 * margin, (96, 96))


def test_white_is_ignored_in_the_shape_of_the_input(mask_of: Callable) -> None:
    spec = complete(mask_of(left_half()))
    assert spec.ignore is not None
    np.testing.assert_array_equal(spec.ignore.ignored, left_half(96, 96))


def test_with_tiles_the_mask_has_the_shape_of_the_canvas(mask_of: Callable) -> None:
    spec = complete(mask_of(left_half()), tiles="1x3")
    assert spec.ignore is not None
    np.testing.assert_array_equal(spec.ignore.ignored, left_half(96, 224))
    kept = spec.kept_pixels(whole=True)
    assert kept is not None
    np.testing.assert_array_equal(kept, ~left_half(96, 96))


def test_only_the_region_of_interest_of_a_mask_is_used(mask_of: Callable) -> None:
    spec = complete(mask_of(left_half()), region=Region(x=45, y=10, width=30, height=40))
    assert spec.ignore is not None
    np.testing.assert_array_equal(spec.ignore.ignored, left_half(96, 96))


@pytest.mark.parametrize(
    ("white", "options", "message"),
    [
        (np.zeros((80, 120), bool), {}, "nothing that the network sees"),
        (np.ones((80, 120), bool), {}, "everything that the network sees"),
        (left_half(), {"region": Region(x=0, y=0, width=60, height=80)}, "everything that the network sees"),
        (left_half(), {"region": Region(x=100, y=0, width=60, height=80)}, "--roi is not inside it"),
        (left_half(), {"name": "paper"}, "--preset paper"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(
    white: np.ndarray, options: dict, message: str, mask_of: Callable
) -> None:
    with pytest.raises(UsageError, match=message):
        complete(mask_of(white), **options)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    for name, content in (("missing.png", None), ("text.png", b"white")):
        path = tmp_path / name
        if content:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=rf"--ignore-mask .*{name}"):
            IgnoreMaskFile(path)


def test_images_of_another_shape_are_refused(mask_of: Callable) -> None:
    mask = mask_of(left_half())
    mask.check(np.zeros((80, 120, 3), np.uint8), "same.png")
    mask.check(np.zeros((1600, 2400, 3), np.uint8), "larger.png")
    with pytest.raises(SourceError, match=r"turned\.png: is 80x120 pixels.*is 120x80"):
        mask.check(np.zeros((120, 80, 3), np.uint8), "turned.png")


def test_with_a_region_the_mask_must_have_the_size_of_the_images(mask_of: Callable) -> None:
    """The region is in pixels of the images, and is cut out of the mask."""
    mask, region = mask_of(left_half()), Region(x=0, y=0, width=40, height=40)
    mask.check(np.zeros((80, 120, 3), np.uint8), "same.png", region=region)
    with pytest.raises(SourceError, match=r"larger\.png.*must have the size of the images"):
        mask.check(np.zeros((160, 240, 3), np.uint8), "larger.png", region=region)
