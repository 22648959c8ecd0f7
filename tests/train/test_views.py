import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms
import torchvision.transforms.v2.functional as vision
from torch import Tensor

from msc_edge.train.views import (
    ViewDraws,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur,
    crop_box,
    make_views,
    to_grey,
)

CPU = torch.device("cpu")
# torchvision weights red by 0.2989, BT.601 (and Pillow, which the authors' transforms used) by 0.299.
GREY_TOLERANCE = 3e-4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def colours(seed: int, batch: int = 6, side: int = 24) -> Tensor:
    """Images with all kinds of colours: noise, greys, pure and saturated colours, black and white."""
    images = torch.rand(batch, 3, side, side, generator=generator(seed))
    images[0] = images[0, :1]
    images[1] = (images[1] > 0.5).float()
    images[2, :, ::2] = 0
    images[3, 1] = images[3, 0]
    return images


def photo(seed: int, height: int, width: int) -> Tensor:
    """A smooth image with some detail, uint8 (3, h, w)."""
    coarse = torch.rand(1, 3, 5, 5, generator=generator(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return (smooth * 255).to(torch.uint8)


def no_change(batch: int, *, ratio: float = 1.0) -> ViewDraws:
    """Draws that keep the whole image (of this width / height) unchanged."""
    none, zero, one = torch.zeros(batch, dtype=torch.bool), torch.zeros(batch), torch.ones(batch)
    return ViewDraws(
        area=one[:, None],
        log_ratio=torch.full((batch, 1), math.log(ratio)),
        corner=torch.zeros(batch, 2),
        flip=none,
        jitter=none,
        brightness=one,
        contrast=one,
        saturation=one,
        hue=zero,
        grey=none,
        sigma=zero,
        order=(0, 1, 2, 3),
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "factors", "tolerance"),
    [
        (adjust_brightness, vision.adjust_brightness, (0.6, 0.9, 1.0, 1.1, 1.4, 0.0), 1e-6),
        (adjust_contrast, vision.adjust_contrast, (0.6, 0.9, 1.0, 1.1, 1.4, 0.0), GREY_TOLERANCE),
        (adjust_saturation, vision.adjust_saturation, (0.6, 0.9, 1.0, 1.1, 1.4, 0.0), GREY_TOLERANCE),
        (adjust_hue, vision.adjust_hue, (-0.1, -0.03, 0.0, 0.05, 0.1, 0.5), 2e-5),
    ],
)
def test_each_colour_change_equals_torchvisions(ours, theirs, factors, tolerance) -> None:
    images = colours(0)
    changed = ours(images, torch.tensor(factors))
    expected = torch.stack([theirs(image, factor) for image, factor in zip(images, factors, strict=True)])
    torch.testing.assert_close(changed, expected, atol=tolerance, rtol=0)


def test_grey_equals_torchvisions() -> None:
    images = colours(1)
    torch.testing.assert_close(to_grey(images), vision.rgb_to_grayscale(images), atol=GREY_TOLERANCE, rtol=0)


def test_a_whole_turn_of_the_hue_does_not_change_colours() -> None:
    images = colours(2)
    for turn in (-1.0, 0.0, 1.0):
        torch.testing.assert_close(adjust_hue(images, torch.full((6,), turn)), images, atol=1e-5, rtol=0)


def test_a_third_of_a_turn_changes_red_to_green() -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    turned = adjust_hue(red, torch.tensor([1 / 3])).flatten()
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_equals_torchvisions_with_a_kernel_of_three_sigma(sigma: float) -> None:
    images = colours(3)
    blurred = blur(images, torch.full((6,), sigma))
    torch.testing.assert_close(blurred, vision.gaussian_blur(images, [13, 13], [sigma, sigma]), atol=1e-5, rtol=0)


def test_each_image_is_blurred_with_its_own_sigma() -> None:
    images, sigma = colours(4), torch.tensor([0.0, 0.1, 0.3, 1.0, 1.7, 2.0])
    blurred = blur(images, sigma)
    torch.testing.assert_close(blurred[0], images[0], atol=1e-6, rtol=0)
    for i in range(1, 6):
        torch.testing.assert_close(blurred[i : i + 1], blur(images[i : i + 1], sigma[i : i + 1]), atol=1e-6, rtol=0)
    detail = (blurred - blurred.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(1, 2, 3))
    assert detail[5] < detail[2]


def test_the_draws_have_the_probabilities_and_ranges_of_the_paper() -> None:
    count = 20000
    draws = ViewDraws.draw(count, generator(0))
    for drawn, chance in ((draws.flip, 0.5), (draws.jitter, 0.8), (draws.grey, 0.2), (draws.sigma > 0, 0.5)):
        assert float(drawn.float().mean()) == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / count))
    ranges = [
        (draws.area, 0.2, 1.0),
        (draws.log_ratio, math.log(3 / 4), math.log(4 / 3)),
        (draws.brightness, 0.6, 1.4),
        (draws.contrast, 0.6, 1.4),
        (draws.saturation, 0.6, 1.4),
        (draws.hue, -0.1, 0.1),
        (draws.sigma[draws.sigma > 0], 0.1, 2.0),
    ]
    for drawn, low, high in ranges:
        width = high - low
        assert low <= float(drawn.min()) < low + 0.01 * width
        assert high - 0.01 * width < float(drawn.max()) <= high
        assert float(drawn.mean()) == pytest.approx((low + high) / 2, abs=4 * width / math.sqrt(12 * len(drawn)))


def test_every_order_of_the_colour_changes_occurs() -> None:
    assert len({ViewDraws.draw(1, generator(seed)).order for seed in range(300)}) == 24


def test_the_draws_for_an_image_are_independent() -> None:
    draws = ViewDraws.draw(5000, generator(1))
    columns = [value.reshape(5000, -1).float() for value in vars(draws).values() if isinstance(value, Tensor)]
    correlation = np.corrcoef(torch.cat(columns, dim=1).numpy().T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.06


def box_of(size: tuple[int, int], draws: ViewDraws, i: int) -> tuple[int, int, int, int]:
    return crop_box(size, draws.area[i].tolist(), draws.log_ratio[i].tolist(), draws.corner[i].tolist())


@pytest.mark.parametrize("size", [(300, 300), (1000, 100)])
def test_crops_have_the_distribution_of_torchvisions(size: tuple[int, int]) -> None:
    count = 3000
    draws = ViewDraws.draw(count, generator(0))
    ours = np.array([box_of(size, draws, i) for i in range(count)])
    torch.manual_seed(0)
    image = torch.zeros(3, *size)
    theirs = np.array(
        [torchvision.transforms.RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    )

    def distance(of) -> float:
        """Kolmogorov-Smirnov: the largest distance between the two distribution functions."""
        one, other = np.sort(of(ours)), np.sort(of(theirs))
        at = np.concatenate([one, other])
        return np.abs(np.searchsorted(one, at, "right") - np.searchsorted(other, at, "right")).max() / count

    limit = 0.05  # two samples of 3000 from one distribution exceed it once in a thousand
    assert distance(lambda box: box[:, 2] * box[:, 3]) < limit  # area
    assert distance(lambda box: box[:, 3] / box[:, 2]) < limit  # ratio
    assert distance(lambda box: box[:, 0] + box[:, 2] / 2) < limit  # centre
    assert distance(lambda box: box[:, 1] + box[:, 3] / 2) < limit


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (7, 300), (300, 400), (2, 2)])
def test_crops_are_inside_images_of_any_shape(size: tuple[int, int]) -> None:
    draws = ViewDraws.draw(300, generator(2))
    draws.corner[::3] = 0.99999994  # the largest possible draw
    for i in range(300):
        top, left, height, width = box_of(size, draws, i)
        assert top >= 0
        assert left >= 0
        assert height >= 1
        assert width >= 1
        assert top + height <= size[0]
        assert left + width <= size[1]


def test_the_first_crop_that_fits_is_used_or_else_the_middle() -> None:
    wide, square = math.log(4), 0.0
    assert crop_box((100, 100), (1.0, 0.25), (wide, square), (0.0, 0.0)) == (0, 0, 50, 50)
    assert crop_box((100, 300), (0.9, 0.8), (square, square), (0.9, 0.9)) == (0, 83, 100, 133)
    assert crop_box((300, 90), (0.9, 0.8), (square, square), (0.9, 0.9)) == (90, 0, 120, 90)
    assert crop_box((100, 110), (1.0,), (wide,), (0.5, 0.5)) == (0, 0, 100, 110)


def test_crops_can_touch_every_edge() -> None:
    nearly_one = 0.99999994  # the largest possible draw
    assert crop_box((10, 20), (0.25,), (math.log(2),), (0.0, 0.0)) == (0, 0, 5, 10)
    assert crop_box((10, 20), (0.25,), (math.log(2),), (nearly_one, nearly_one)) == (5, 10, 5, 10)
    assert {crop_box((3, 3), (0.4,), (0.0,), (corner / 10, 0.5))[0] for corner in range(10)} == {0, 1}


def test_a_crop_that_fits_has_the_drawn_area_and_ratio() -> None:
    _, _, height, width = crop_box((600, 600), (0.3,), (math.log(1.2),), (0.5, 0.5))
    assert width / height == pytest.approx(1.2, rel=0.01)
    assert width * height == pytest.approx(0.3 * 600 * 600, rel=0.01)


@pytest.mark.parametrize("size", [(64, 64), (50, 80), (33, 32)])
def test_a_view_without_changes_is_the_resized_image(size: tuple[int, int]) -> None:
    image = photo(0, *size)
    view = make_views([image], no_change(1, ratio=size[1] / size[0]), size=32, device=CPU)
    expected = vision.resize(image, [32, 32], antialias=True).float()
    torch.testing.assert_close(view[0], expected, atol=1e-3, rtol=0)


def test_flip_and_grey_change_nothing_else() -> None:
    image, draws = photo(1, 64, 64), no_change(2)
    yes = torch.tensor([True, False])
    plain = make_views([image, image], draws, size=32, device=CPU)
    flipped = make_views([image, image], replace(draws, flip=yes), size=32, device=CPU)
    torch.testing.assert_close(flipped, torch.stack([plain[0].flip(-1), plain[1]]))
    grey = make_views([image, image], replace(draws, grey=yes), size=32, device=CPU)
    torch.testing.assert_close(grey[0], vision.rgb_to_grayscale(plain[0], 3), atol=255 * GREY_TOLERANCE, rtol=0)
    torch.testing.assert_close(grey[1], plain[1])


def test_the_colour_changes_are_applied_in_the_drawn_order() -> None:
    image = photo(2, 32, 32)
    changes = {"brightness": 0.7, "contrast": 1.35, "saturation": 0.65, "hue": 0.08}
    factors = {name: torch.tensor([value]) for name, value in changes.items()}
    theirs = [getattr(vision, f"adjust_{name}") for name in changes]
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        draws = replace(no_change(1), jitter=torch.tensor([True]), order=order, **factors)
        view = make_views([image], draws, size=32, device=CPU)
        expected = image.float() / 255
        for change in order:
            expected = theirs[change](expected, list(changes.values())[change])
        torch.testing.assert_close(view[0], 255 * expected, atol=255 * 4e-4, rtol=0)


def test_views_are_a_function_of_the_seed() -> None:
    images = [photo(seed, 40, 60) for seed in range(4)]
    one, same, other = (
        make_views(images, ViewDraws.draw(4, generator(seed)), size=32, device=CPU) for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_two_views_of_one_image_differ() -> None:
    one_generator = generator(7)
    first, second = (
        make_views([photo(0, 40, 60)], ViewDraws.draw(1, one_generator), size=32, device=CPU) for _ in range(2)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("part", [slice(0, 4), slice(4, 8), slice(2, 3)])
def test_a_part_of_the_draws_makes_the_same_part_of_the_views(part: slice) -> None:
    images = [photo(seed, 40 + seed, 60 - 3 * seed) for seed in range(8)]
    draws = ViewDraws.draw(8, generator(8))
    whole = make_views(images, draws, size=32, device=CPU)
    assert torch.equal(make_views(images[part], draws.take(part), size=32, device=CPU), whole[part])


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3), (48, 64)])
def test_views_of_images_of_any_shape_have_pixels_from_0_to_255(size: tuple[int, int]) -> None:
    for value in (0, 255, None):
        image = photo(3, *size) if value is None else torch.full((3, *size), value, dtype=torch.uint8)
        views = make_views([image] * 32, ViewDraws.draw(32, generator(9)), size=32, device=CPU)
        assert views.shape == (32, 3, 32, 32)
        assert views.dtype == torch.float32
        assert float(views.min()) >= 0
        assert float(views.max()) <= 255 + 1e-3
