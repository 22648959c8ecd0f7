import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as vision
from torch import Tensor

from msc_edge.ignore_mask import IgnoreMask
from msc_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD, PresetName, Region, Tiles, preset
from msc_edge.train.preprocess import Preprocess

SIZES = [(480, 640), (224, 224), (225, 224), (37, 501), (501, 37), (1, 1), (1, 9), (73, 73), (74, 79), (333, 100)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def preprocessed(image: np.ndarray, name: PresetName, *, image_size: int = 64, region: Region | None = None) -> Tensor:
    spec = preset(name, image_size=image_size, region=region)
    result = Preprocess(spec)(torch.from_numpy(image)[None])
    assert result.shape == (1, 3, image_size, image_size)
    assert result.dtype == torch.float32
    return result[0]


def normalised(pixels: Tensor) -> Tensor:
    """torchvision's normalisation of float pixels in 0..255."""
    return vision.normalize(pixels / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("image_size", "resize_to"), [(64, 73), (224, 256)])
def test_the_paper_preset_equals_torchvisions_resize_and_centre_crop(
    size: tuple[int, int], image_size: int, resize_to: int
) -> None:
    image = noise(*size)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()
    expected = vision.center_crop(vision.resize(pixels, [resize_to], antialias=True), [image_size, image_size])
    result = preprocessed(image, "paper", image_size=image_size)
    torch.testing.assert_close(result, normalised(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_frame_preset_equals_pillows_antialiased_resize_of_each_channel(size: tuple[int, int]) -> None:
    image = noise(*size)
    planes = [
        PIL.Image.fromarray(image[..., channel].astype(np.float32)).resize((64, 64), PIL.Image.Resampling.BILINEAR)
        for channel in range(3)
    ]
    expected = normalised(torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])))
    torch.testing.assert_close(preprocessed(image, "whole-frame"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["whole-frame", "paper"])
def test_the_region_is_cut_out_first(name: PresetName) -> None:
    image, region = noise(120, 200), Region(x=31, y=7, width=90, height=60)
    cut = np.ascontiguousarray(image[7:67, 31:121])
    assert torch.equal(preprocessed(image, name, region=region), preprocessed(cut, name))


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (124, 116, 104), (255, 0, 128)])
def test_an_image_of_one_colour_gives_that_colour_normalised(colour: tuple[int, int, int]) -> None:
    image = np.full((50, 80, 3), colour, dtype=np.uint8)
    expected = [(c / 255 - mean) / std for c, mean, std in zip(colour, IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    for name in ("whole-frame", "paper"):
        result = preprocessed(image, name)
        for channel in range(3):
            np.testing.assert_allclose(result[channel], expected[channel], atol=2e-6)


def test_the_border_influences_the_whole_frame_preset_only() -> None:
    image = np.full((128, 128, 3), 128, dtype=np.uint8)
    framed = image.copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 255
    assert torch.equal(preprocessed(image, "paper"), preprocessed(framed, "paper"))
    assert not torch.allclose(preprocessed(image, "whole-frame"), preprocessed(framed, "whole-frame"), atol=0.1)


@pytest.mark.parametrize("name", ["whole-frame", "paper"])
def test_a_batch_equals_its_images_one_by_one(name: PresetName) -> None:
    images = np.stack([noise(60, 91), noise(60, 91)[::-1]])
    together = Preprocess(preset(name, image_size=64))(torch.from_numpy(images))
    apart = torch.stack([preprocessed(image, name) for image in images])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 4), (3, 2)])
@pytest.mark.parametrize("margin", [0, 8])
def test_tiles_are_parts_of_the_frame_stretched_to_the_canvas(shape: tuple[int, int], margin: int) -> None:
    tiles = Tiles.parse(f"{shape[0]}x{shape[1]}", image_size=96)
    spec = preset("whole-frame", image_size=96, tiles=tiles, margin=margin)
    image = noise(300, 500)
    whole, *parts = Preprocess(spec).with_tiles(torch.from_numpy(image)[None])
    assert torch.equal(whole, F.pad(preprocessed(image, "whole-frame", image_size=96), [margin] * 4))
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()
    canvas = F.pad(normalised(vision.resize(pixels, list(spec.canvas), antialias=True)), [margin] * 4)
    rows, columns = shape
    assert spec.canvas == (64 * rows + 32, 64 * columns + 32)  # an overlap of 32 pixels
    assert len(parts) == rows * columns
    for number, part in enumerate(parts):
        top, left, side = 64 * (number // columns), 64 * (number % columns), 96 + 2 * margin
        torch.testing.assert_close(part, canvas[:, top : top + side, left : left + side], atol=1e-4, rtol=0)


def test_ignored_pixels_have_the_mean_colour_whatever_they_show() -> None:
    ignored = np.zeros((64, 64), bool)
    ignored[10:30, 5:60] = True
    spec = preset("whole-frame", image_size=64).model_copy(update={"ignore": IgnoreMask.of(ignored)})
    image = noise(64, 64)
    other = image.copy()
    other[10:30, 5:60] = 255 - other[10:30, 5:60]
    one, two = (Preprocess(spec)(torch.from_numpy(each)[None])[0] for each in (image, other))
    assert torch.equal(one, two)
    assert (one[:, torch.from_numpy(ignored)] == 0).all()
    kept = torch.from_numpy(~ignored)
    assert torch.equal(one[:, kept], preprocessed(image, "whole-frame")[:, kept])
