from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from msc_edge.errors import UnreadableImageError
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import PresetName, Region, preset
from msc_edge.train.loading import decoded, pixel_digest, training_copy


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("whole-frame", (480, 640), (74, 74)),  # ceil(64 * 8 / 7), square as the stretched frame
        ("whole-frame", (1, 500), (74, 74)),
        ("whole-frame", (50, 60), (60, 60)),  # not larger than the longer side of the image
        ("whole-frame", (30, 30), (30, 30)),
        ("whole-frame", (1, 1), (1, 1)),
        ("paper", (480, 640), (74, 99)),
        ("paper", (640, 480), (99, 74)),
        ("paper", (50, 60), (50, 60)),  # never enlarged
        ("paper", (60, 900), (60, 900)),
        ("paper", (1, 1), (1, 1)),
    ],
)
def test_a_training_copy_has_the_shape_of_the_preset(
    name: PresetName, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    copy = training_copy(noise(*size), preset(name, image_size=64))
    assert copy.shape == (3, *expected)
    assert copy.dtype == torch.uint8
    assert copy.is_contiguous()


def test_the_training_copy_of_a_small_image_is_an_independent_copy() -> None:
    image = noise(60, 60)
    for name in ("whole-frame", "paper"):
        copy = training_copy(image, preset(name, image_size=64))
        np.testing.assert_array_equal(copy.permute(1, 2, 0), image)
        copy.zero_()  # it does not share memory with the image
        assert image.any()


def test_a_training_copy_is_resized_with_antialiasing() -> None:
    # A fine checkerboard becomes uniform grey. Without antialiasing, some of its fields would be visible.
    image = np.kron(np.indices((296, 296)).sum(axis=0) % 2, np.ones((2, 2)))[..., None].repeat(3, axis=2) * 255
    copy = training_copy(image.astype(np.uint8), preset("whole-frame", image_size=64))
    assert np.abs(copy[:, 1:-1, 1:-1].numpy().astype(int) - 127).max() <= 2


def test_a_training_copy_contains_only_the_region() -> None:
    image, region = noise(200, 300), Region(x=40, y=10, width=150, height=90)
    cut = np.ascontiguousarray(image[10:100, 40:190])
    for name in ("whole-frame", "paper"):
        with_region = training_copy(image, preset(name, image_size=64, region=region))
        assert torch.equal(with_region, training_copy(cut, preset(name, image_size=64)))


def test_images_are_in_order_and_unreadable_ones_are_reported(tmp_path: Path, save: Callable) -> None:
    names = [f"{i:02d} ü.png" for i in range(12)]
    for i, name in enumerate(names):
        save(tmp_path / name, np.full((8, 9, 3), 10 * i, dtype=np.uint8))
    (tmp_path / names[4]).write_bytes(b"not an image")
    (tmp_path / names[7]).unlink()
    unreadable: list[tuple[str, str]] = []
    counted: list[int] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        counted.append(done)

    images = list(
        decoded(
            tmp_path,
            names,
            DecodePolicy(),
            task="reading",
            report=report,
            unreadable=lambda name, reason: unreadable.append((name, reason)),
        )
    )
    assert [name for name, _ in images] == [name for i, name in enumerate(names) if i not in (4, 7)]
    assert all((image == 10 * int(name[:2])).all() for name, image in images)
    assert [name for name, _ in unreadable] == [names[4], names[7]]
    assert all(reason for _, reason in unreadable)
    assert counted == list(range(1, 13))


def test_without_a_callback_an_unreadable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(UnreadableImageError, match=r"bad\.png"):
        list(decoded(tmp_path, ["bad.png"], DecodePolicy(), task="reading"))


def test_twelve_bit_images_are_decoded_with_the_bit_depth_of_the_policy(tmp_path: Path) -> None:
    deep = np.full((5, 5), 4000, dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    ((_, image),) = decoded(tmp_path, ["deep.png"], DecodePolicy(bit_depth=12), task="reading")
    assert (image == 4000 >> 4).all()


def test_the_digest_of_pixels_is_that_of_an_image_and_not_of_its_memory() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert pixel_digest(image) == pixel_digest(np.asfortranarray(image)) == pixel_digest(image[::1].copy())
    others = [image.reshape(2, 8, 3), image[::-1], image.transpose(1, 0, 2), image + np.uint8(1)]
    assert len({pixel_digest(each) for each in [image, *others]}) == 5
