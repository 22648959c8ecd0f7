"""Drawn tiles: their colours, sizes and texts."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from msc_edge.calibration import Verdict
from msc_edge.drawing import VERDICT_COLOURS
from msc_edge.runtime import Detector
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.tiles import BAR, arranged, cell_size, drawn, not_inspected, without_image

BORDER = 4  # pixels that the coloured border covers
TIME = datetime(2026, 1, 2, 14, 2, 11, tzinfo=UTC)


def decision(
    image: np.ndarray | None, verdict: Verdict | None = "reject", *, source: str = "cam1", error: str | None = None
) -> Decision:
    frame = Frame(source=source, index=0, time=TIME, captured=0, image=image, error=error)
    if verdict is None:
        return Decision("id", frame, None, None)
    result = Result(0.1234, 0.1234, None, 0.01, verdict, 0.2, (), (NearestImage(0, "part_00.png", 0.1),), "fp32", "kit")
    return Decision("id", frame, result, Stages(1, 2, 3, 6))


def noise(height: int, width: int) -> np.ndarray:
    """Grey noise: it contains no colour of a verdict."""
    grey = np.random.default_rng(0).integers(0, 255, (height, width, 1), np.uint8)
    return np.repeat(grey, 3, axis=2)


def share_of(colour: tuple[int, int, int], image: np.ndarray) -> float:
    return float(np.mean(np.all(image == colour, axis=2)))


@pytest.mark.parametrize(
    ("height", "width", "verdict"),
    [
        *((48, 64, verdict) for verdict in VERDICT_COLOURS),
        *((1, 1, "reject"), (2, 3, "warn"), (720, 1280, "normal"), (2160, 3840, "reject")),
        *((4001, 801, "warn"), (3, 4000, "normal"), (4000, 10, "reject")),
    ],
)
def test_a_frame_of_any_size_fits_on_a_screen_with_the_colour_of_its_verdict(
    height: int, width: int, verdict: Verdict
) -> None:
    image = drawn(decision(noise(height, width), verdict))
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    assert BAR < image.shape[0] <= 1000, "a screen has 1080 lines, some of them for bars"
    assert 1 <= image.shape[1] <= 1280
    others = [colour for other, colour in VERDICT_COLOURS.items() if other != verdict]
    assert np.all(image == VERDICT_COLOURS[verdict], axis=2).sum() > 50
    assert [share_of(colour, image) for colour in others] == [0, 0]


@pytest.mark.parametrize(("height", "width"), [(240, 320), (241, 333), (720, 1280)])
def test_a_frame_that_fits_keeps_its_pixels(height: int, width: int) -> None:
    image = noise(height, width)
    before = image.copy()
    shown = drawn(decision(image))
    assert shown.shape[1] == width
    inside = np.s_[BORDER : height - BORDER, BORDER : width - BORDER]
    assert np.array_equal(shown[inside], image[inside])
    assert np.array_equal(image, before), "the frame itself is unchanged: it may be saved afterwards"


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (3000, 3000), (720, 2000)])
def test_a_large_frame_keeps_its_proportions_and_brightness(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = (200, 100, 50)
    shown = drawn(decision(image))[:-BAR]
    shown_height, shown_width = shown.shape[:2]
    assert shown_width / shown_height == pytest.approx(width / height, rel=0.01)
    inside = shown[2 * BORDER : -2 * BORDER]
    assert np.all(inside[:, shown_width // 2 + 2 : -2 * BORDER] == (200, 100, 50))
    assert not inside[:, 2 * BORDER : shown_width // 2 - 2].any()


def test_a_small_frame_is_enlarged_without_blur() -> None:
    """Each pixel of 48 x 64, the size of the toy kit, becomes 5 x 5."""
    image = noise(48, 64)
    shown = drawn(decision(image))
    assert shown.shape[1] == 320
    assert np.array_equal(shown[2:240:5, 2:320:5][1:-1, 1:-1], image[1:-1, 1:-1])


def test_the_bar_depends_on_verdict_and_name() -> None:
    image = noise(240, 640)
    bars = [
        drawn(decision(image, "normal"))[240:],
        drawn(decision(image, "normal", source="cam2"))[240:],
        drawn(decision(image, "warn"))[240:],
    ]
    assert not np.array_equal(bars[0], bars[1])
    assert not np.array_equal(bars[0], bars[2])


@pytest.mark.parametrize("source", ["c", "a" * 63])
def test_texts_of_any_length_fit_into_the_bar(source: str) -> None:
    bar = drawn(decision(noise(240, 320), "reject", source=source))[240:]
    red = np.flatnonzero(np.all(bar == VERDICT_COLOURS["reject"], axis=2).any(axis=1))
    assert red.max() < 40, "the first line"
    assert (bar[40:] > 100).any(), "the second line"
    assert not (bar[:, -6:] > 100).any(), "shortened, not cut through a letter: the last columns are empty"


@pytest.mark.parametrize(
    "error",
    [
        None,
        "truncated",
        "größer, 写真 \x1b[31m\n",
        "the image is 64x48, and the region of interest is 640x480 pixels from (0, 0); give images of another size",
    ],
)
def test_a_frame_that_was_not_scored_has_no_colour_of_a_verdict(error: str | None) -> None:
    image = drawn(decision(noise(240, 320), None, error=error))
    assert [share_of(colour, image) for colour in VERDICT_COLOURS.values()] == [0, 0, 0]
    bar = image[240:]
    assert (bar > 100).any(), "there is a text"
    # A text that does not fit is shortened, not cut through a letter: the last columns are empty.
    assert not (bar[:, -6:] > 100).any()


def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are drawn from now on."""
    found: list[str] = []
    monkeypatch.setattr("msc_edge.runtime.stream.tiles.draw_text", lambda _, text, **__: found.append(text))
    return found


def test_verdict_score_limit_source_and_time_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(monkeypatch)
    drawn(decision(noise(240, 640)))
    assert found == ["reject  0.1234, limit 0.2000", f"cam1  {TIME.astimezone():%H:%M:%S}"]


def test_a_tile_without_image_says_so_and_since_when_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    since = datetime.now().astimezone() - timedelta(seconds=25.5)
    outage = Outage("lost", "the connection ended", time.monotonic() - 25.5, since)
    found = texts(monkeypatch)
    without_image("left", outage, drawn(decision(noise(240, 640)))[:])
    moment = f"{since:%H:%M:%S}" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d %H:%M:%S}"
    assert found[2:] == [
        f"NO IMAGE, left, lost for 25 s, since {moment}",
        "the connection ended",
        "NO IMAGE",
        "NO IMAGE",
    ]


@pytest.mark.parametrize("verdict", list(VERDICT_COLOURS))
def test_a_tile_without_image_has_no_colour_at_all(verdict: Verdict) -> None:
    last = drawn(decision(np.full((240, 320, 3), (20, 120, 140), np.uint8), verdict))
    tile = without_image("cam1", Outage("lost", "x"), last)
    assert tile.shape == last.shape
    assert np.ptp(tile, axis=2).max() == 0
    assert np.ptp(without_image("cam1", Outage("connecting"), None), axis=2).max() == 0
    for earlier in (last, None):
        assert np.ptp(not_inspected(decision(None, None, error="x"), earlier), axis=2).max() == 0


def test_a_tile_of_a_part_that_was_not_inspected_says_when_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(monkeypatch)
    not_inspected(decision(None, None, error="it is truncated"), None)
    assert found == [f"NO IMAGE, cam1, {TIME.astimezone():%H:%M:%S}", "it is truncated", "NO IMAGE", "NO IMAGE"]


@pytest.mark.parametrize("count", range(1, 17))
def test_the_tiles_of_all_sources_fit_on_a_screen_and_none_covers_another(count: int) -> None:
    width, height = cell_size(count)
    images = [drawn(decision(noise(720, 1280), "reject"), width=width, height=height) for _ in range(count)]
    canvas = arranged(images)
    assert canvas.shape[0] <= 720 + BAR
    assert canvas.shape[1] <= 1280
    reds = sum(np.all(image == VERDICT_COLOURS["reject"], axis=2).sum() for image in images)
    assert np.all(canvas == VERDICT_COLOURS["reject"], axis=2).sum() == reds


def test_a_rejected_frame_is_shown_with_its_heatmap_and_a_normal_one_is_not(patch_kit, toy):
    detector = Detector.load(patch_kit, threads=1)
    for seed, defect, differs in ((200, "stain", True), (101, None, False)):
        image = toy.draw(seed, defect)
        result = detector.score(image)
        shown = [drawn(replace(decision(image), result=each)) for each in (result, replace(result, grid_map=None))]
        assert bool((shown[0] != shown[1]).any()) == differs
