import base64
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msc_edge.drawing import SHOWN_SIDE, THUMBNAIL_SIDE, encode_image, thumbnail
from msc_edge.errors import KitError
from msc_edge.images import decode_image, read_image
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import NearestImage
from msc_edge.runtime.tools.report.gallery import Gallery, card
from msc_edge.runtime.tools.report.outcome import Truth


def pixels(url: str) -> np.ndarray:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return decode_image(np.frombuffer(base64.b64decode(data, validate=True), np.uint8))


@pytest.fixture
def opened(toy_kit):
    with Kit.open(toy_kit) as opened:
        yield opened


@pytest.fixture
def warned(detector, photos) -> ImageResult:
    """The result of photos/warn.png, without a thumbnail."""
    return ImageResult(str(photos / "warn.png"), detector.score_file(photos / "warn.png"), 1.0)


def test_a_card_has_the_result_and_the_nearest_normal_images(opened, warned):
    made = card(opened, warned, name="w")
    assert (made.name, made.truth, made.result, made.problem) == ("w", None, warned.result, "")
    nearest_images = made.result.nearest_images
    assert [(each.name, each.distance) for each in made.nearest] == [
        (each.path, each.distance) for each in nearest_images[:2]
    ]
    for shown, nearest in zip(made.nearest, nearest_images, strict=True):
        # Encoded once more, as a JPEG.
        stored = read_image(opened.file(f"thumbnails/{nearest.row:05d}.jpg")).astype(int)
        assert np.abs(pixels(shown.url) - stored).mean() < 4


@pytest.mark.parametrize(
    ("verdict", "truth", "kind"),
    [
        ("normal", None, "normal"),
        ("warn", None, "warn"),
        ("reject", None, "reject"),
        ("normal", Truth("crack", True), "wrong"),
        ("reject", Truth("crack", True), "right"),
        ("normal", Truth("good", False), "right"),
        ("reject", Truth("good", False), "wrong"),
    ],
)
def test_colours_show_right_or_wrong_where_the_label_is_known(opened, warned, verdict, truth, kind):
    image = replace(warned, result=replace(warned.result, verdict=verdict))
    assert card(opened, image, name="w", truth=truth).kind == kind


@pytest.mark.parametrize(
    ("verdict", "patch_score", "beginning"),
    [("reject", 0.5, "Rejected, although"), ("normal", 0.5, ""), ("reject", None, "")],
)
def test_a_card_explains_a_verdict_that_its_heatmap_does_not_show(opened, warned, verdict, patch_score, beginning):
    result = replace(warned.result, verdict=verdict, patch_score=patch_score, regions=())
    made = card(opened, replace(warned, result=result), name="w")
    assert made.disagreement.partition(" the heatmap")[0] == beginning


def test_the_alt_text_says_what_is_seen(opened, warned, toy):
    drawn = thumbnail(toy.draw(7))
    result = replace(warned.result, verdict="reject", score=0.41, limit=0.33)
    image = replace(warned, result=result, thumbnail=drawn, overlay=drawn)
    assert card(opened, image, name="part_0012.png", truth=Truth("crack", True)).alt_text == (
        "part_0012.png with its heatmap: rejected, score 0.41 over the limit 0.33, a defect of type crack"
    )
    image = replace(image, result=replace(result, verdict="warn", score=0.33), overlay=None)
    assert card(opened, image, name="a.png", truth=Truth("good", False)).alt_text == (
        "a.png: warning, score 0.33 not over the limit 0.33, a good part"
    )
    assert card(opened, image, name="a.png").alt_text == "a.png: warning, score 0.33 not over the limit 0.33"


def test_the_least_p_value_is_explained_once_for_all_cards(opened, warned):
    """The toy kit has twelve calibration images."""

    def gallery(*p_values: float | None) -> Gallery:
        results = (replace(warned.result, p_value=p_value) for p_value in p_values)
        return Gallery("", "", 3, [card(opened, replace(warned, result=each), name="w") for each in results])

    least = "at most 1 in 13: all 12 calibration images scored lower"
    for p_values, explained, differ in (
        ((1 / 13, 1 / 13), least, False),
        ((1 / 13, 2 / 13), least, True),
        ((2 / 13, 3 / 13), "", True),
        ((None, None), "", False),
    ):
        found = gallery(*p_values)
        assert (found.least_p_value, found.p_values_differ) == (explained, differ)
    assert [each.p_value for each in gallery(1 / 13, 2 / 13, None).cards] == ["at most 1 in 13", "0.1538", ""]


def test_an_image_with_a_thumbnail_is_shown_as_it_was_scored(opened, warned, toy, tmp_path):
    image = replace(warned, path=str(tmp_path / "gone.png"), thumbnail=thumbnail(toy.draw(7, "stain")))
    made = card(opened, image, name="w")
    assert made.problem == ""
    assert np.abs(pixels(made.url).astype(int) - toy.draw(7, "stain")).mean() < 6


def test_an_image_of_an_earlier_run_is_read_and_made_small(opened, warned, save, tmp_path):
    large = save(tmp_path / "large.png", np.full((960, 1280, 3), (200, 30, 40), np.uint8))
    made = card(opened, replace(warned, path=str(large)), name="w")
    assert pixels(made.url).shape == (round(SHOWN_SIDE * 480 / 640), SHOWN_SIDE, 3)
    assert np.abs(pixels(made.url).mean((0, 1)) - (200, 30, 40)).max() < 4


def test_a_row_of_a_score_file_is_shown_from_the_named_file(opened, warned, photos):
    made = card(opened, replace(warned, path="as\\written.png"), name="w", file=photos / "warn.png")
    assert (made.problem, pixels(made.url).shape) == ("", (48, 64, 3))


def test_an_image_that_is_gone_has_a_card_with_the_reason(opened, warned, tmp_path):
    made = card(opened, replace(warned, path=str(tmp_path / "gone.png")), name="w")
    assert (made.url, made.problem) == ("", "the file cannot be read any more: No such file or directory")
    assert len(made.nearest) == 2


def test_an_image_that_is_damaged_now_has_a_card_with_the_reason(opened, warned, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"cut")
    made = card(opened, replace(warned, path=str(tmp_path / "cut.png")), name="w")
    assert (made.url, made.problem[:32]) == ("", "the file cannot be read any more")


def test_an_image_that_changed_after_it_was_scored_is_not_shown(opened, warned, toy, save, tmp_path):
    path = save(tmp_path / "a.png", toy.draw(7))
    changed = path.stat().st_ctime
    image = replace(warned, path=str(path))
    assert card(opened, image, name="w", earlier_rows=changed + 1).problem == ""
    made = card(opened, image, name="w", earlier_rows=changed - 1)
    assert (made.url, made.problem) == ("", "the file has changed since it was scored")
    os.utime(path, (0, 0))  # a file that keeps its old times, such as a copy, is seen by its ctime
    assert card(opened, image, name="w", earlier_rows=changed - 1).problem


@pytest.mark.parametrize("content", [b"", b"<script>", b"\xff\xd8 not a JPEG"])
def test_a_thumbnail_that_is_not_an_image_is_not_embedded(kit, warned, content):
    for path in kit.glob("thumbnails/*"):
        path.write_bytes(content)
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
    with Kit.open(kit) as opened:
        assert [each.url for each in card(opened, warned, name="a.png").nearest] == ["", ""]


def test_a_thumbnail_is_embedded_small(kit, warned):
    noise = np.random.default_rng(0).integers(0, 256, (250, 400, 3), np.uint8)
    for path in kit.glob("thumbnails/*"):
        path.write_bytes(encode_image(noise, ".jpg"))
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
    with Kit.open(kit) as opened:
        for shown in card(opened, warned, name="a.png").nearest:
            assert max(pixels(shown.url).shape) == THUMBNAIL_SIDE


def test_a_nearest_image_without_a_thumbnail_has_only_its_name(opened, warned):
    result = replace(warned.result, nearest_images=(NearestImage(999, "n.png", 0.1),))
    (nearest,) = card(opened, replace(warned, result=result), name="w").nearest
    assert (nearest.name, nearest.url) == ("n.png", "")


def test_a_kit_that_was_removed_is_a_kit_error(kit, photos):
    with Kit.open(kit) as opened:
        result = Detector.of(opened, threads=1).score_file(photos / "warn.png")
        for path in kit.glob("thumbnails/*"):
            path.unlink()
        with pytest.raises(KitError, match=r"thumbnails/.*\.jpg cannot be read any more"):
            card(opened, ImageResult(str(Path(photos / "warn.png")), result, 1.0), name="w")
