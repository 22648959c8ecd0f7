import base64

import numpy as np
import pytest

from msc_edge.errors import KitError
from msc_edge.images import decode_image, read_image
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.batch import Row, score_file
from msc_edge.runtime.tools.report.gallery import as_data_url, card


def pixels(url: str) -> np.ndarray:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return decode_image(np.frombuffer(base64.b64decode(data, validate=True), np.uint8))


@pytest.fixture
def opened(toy_kit):
    with Kit.open(toy_kit) as opened:
        yield opened


class TestImages:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((48, 64), (48, 64)),
            ((320, 100), (320, 100)),
            ((480, 640), (240, 320)),
            ((1000, 10), (320, 3)),
            ((1, 5000), (1, 320)),
            ((1, 1), (1, 1)),
        ],
    )
    def test_are_made_small_in_proportion_and_never_large(self, shape, expected):
        assert pixels(as_data_url(np.zeros((*shape, 3), np.uint8))).shape == (*expected, 3)

    def test_keep_their_colours(self):
        red = np.full((40, 40, 3), (200, 30, 40), np.uint8)
        assert np.abs(pixels(as_data_url(red)).mean((0, 1)) - (200, 30, 40)).max() < 4

    def test_show_what_the_image_shows(self, toy):
        image = toy.draw(7, "stain")
        assert np.abs(pixels(as_data_url(image)).astype(int) - image).mean() < 6


class TestCard:
    def test_has_the_row_and_the_nearest_normals_with_their_thumbnails(self, detector, opened, photos):
        path = photos / "warn.png"
        row = score_file(detector, path)
        made = card(detector, opened, path, row, name="w", label="odd")
        assert (made.name, made.label, made.row, made.trouble) == ("w", "odd", row, "")
        nearest_images = detector.score_file(path).nearest_images
        assert [(near.name, near.distance) for near in made.nearest] == [
            (each.path, each.distance) for each in nearest_images[:2]
        ]
        assert made.nearest[0].name == row.nearest
        for near, neighbour in zip(made.nearest, nearest_images, strict=False):
            thumbnail = read_image(opened.path(f"thumbnails/{neighbour.row:05d}.jpg"))
            assert np.array_equal(pixels(near.image), thumbnail)

    def test_of_a_image_that_has_gone_says_so(self, detector, opened, photos, tmp_path):
        row = score_file(detector, photos / "warn.png")
        made = card(detector, opened, tmp_path / "warn.png", row, name="w")
        assert (made.image, made.nearest) == ("", ())
        assert "cannot be read any more: cannot be opened: No such file" in made.trouble

    def test_of_a_image_that_has_changed_says_so(self, detector, opened, photos):
        row = score_file(detector, photos / "warn.png")
        made = card(detector, opened, photos / "good_100.png", row, name="w")
        assert (made.image, made.trouble) == ("", "the file has changed since it was scored")

    def test_takes_a_score_as_a_score_file_has_it(self, detector, opened, photos):
        row = score_file(detector, photos / "warn.png")
        written = Row(row.path, round(row.score or 0, 6), row.p_value, row.verdict, row.nearest, 1.0)
        assert card(detector, opened, photos / "warn.png", written, name="w").trouble == ""

    def test_a_kit_that_has_gone_is_an_error_of_the_kit(self, kit, photos):
        with Kit.open(kit) as opened:
            detector = Detector.of(opened, threads=1)
            row = score_file(detector, photos / "warn.png")
            for thumbnail in kit.glob("thumbnails/*"):
                thumbnail.unlink()
            with pytest.raises(KitError, match=r"thumbnails/.*\.jpg cannot be read any more"):
                card(detector, opened, photos / "warn.png", row, name="w")
