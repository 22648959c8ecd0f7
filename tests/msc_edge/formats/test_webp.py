"""The orientation of WebP files, in both forms of their EXIF data."""

import io

import numpy as np
import PIL.Image
import pytest

from msc_edge.formats.orientation import turned
from msc_edge.images import decode_image

SCENE = np.random.default_rng(3).integers(0, 256, (16, 22, 3), dtype=np.uint8)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_with_and_without_the_prefix_of_jpeg(prefix, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    PIL.Image.fromarray(SCENE).save(file, "WEBP", lossless=True, exif=prefix + block)
    found = decode_image(np.frombuffer(file.getvalue(), np.uint8))
    np.testing.assert_array_equal(found, turned(SCENE, orientation))


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"rubbish" * 9])
def test_damaged_exif_data_leave_the_image_as_it_is(block):
    file = io.BytesIO()
    PIL.Image.fromarray(SCENE).save(file, "WEBP", lossless=True, exif=b"Exif\0\0" + block)
    np.testing.assert_array_equal(decode_image(np.frombuffer(file.getvalue(), np.uint8)), SCENE)


def test_of_an_animation_the_first_image_is_read():
    file = io.BytesIO()
    other = PIL.Image.fromarray(255 - SCENE)
    PIL.Image.fromarray(SCENE).save(file, "WEBP", lossless=True, save_all=True, append_images=[other], duration=40)
    np.testing.assert_array_equal(decode_image(np.frombuffer(file.getvalue(), np.uint8)), SCENE)
