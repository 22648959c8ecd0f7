"""Near-duplicates of a standing part are thinned, and parts that differ are not."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from msc_edge.runtime.stream.training_images.similarity import (
    COMPARED,
    LEAST_LIMIT,
    MOST_LIMIT,
    SimilarityCheck,
    difference,
    view_of,
)

FRAMES = 40
Image = np.ndarray


def kept_of(frames: list[Image], check: SimilarityCheck) -> int:
    """How many frames of a camera with 30 frames a second are kept."""
    kept = 0
    for index, frame in enumerate(frames):
        view = view_of(frame)
        check.observe(view, index / 30)
        if not check.is_similar(view):
            check.keep(view)
            kept += 1
    return kept


def bands(phase: float, depth: float) -> np.ndarray:
    """The light of a lamp that flickers, on a sensor that reads row by row."""
    rows = np.arange(240)[:, None, None] / 240
    return 1 - depth / 2 + depth / 2 * np.sin(2 * np.pi * (2 * rows + phase))


def shifted(image: Image, x: float, y: float) -> Image:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(image, matrix, (320, 240), borderMode=cv2.BORDER_REPLICATE)


STANDING: dict[str, tuple[int, Callable[[Image, int], Image]]] = {
    "as it is": (1, lambda image, _: image),
    "a lamp that flickers by 10 %": (1, lambda image, i: image * (1 - 0.1 * (i % 7) / 7)),
    "a lamp that loses half of its light": (1, lambda image, i: image * (1 - 0.5 * i / FRAMES)),
    "bands of flicker of 3 %": (1, lambda image, i: image * bands(i * 0.37, 0.03)),
    "compression": (1, lambda image, i: np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, [1, 60 + i % 10])[1], 1))),
    "vibration of a pixel": (3, lambda image, i: shifted(image, 0.5 * np.sin(i), 0.5 * np.cos(2 * i))),
}


@pytest.mark.parametrize("deviation", [0, 2, 8])
@pytest.mark.parametrize("name", STANDING)
def test_a_standing_part_is_kept_once(name: str, deviation: int, scene: Callable, noisy: Callable) -> None:
    most, change = STANDING[name]
    frames = [noisy(change(scene(1), i), deviation, i) for i in range(FRAMES)]
    assert 1 <= kept_of(frames, SimilarityCheck()) <= most


@pytest.mark.parametrize("deviation", [0, 2, 8])
def test_each_of_several_parts_is_kept(deviation: int, scene: Callable, noisy: Callable) -> None:
    frames = [noisy(scene(i // 10), deviation, i) for i in range(100)]
    assert kept_of(frames, SimilarityCheck()) == 10


@pytest.mark.parametrize("deviation", [0, 2, 8])
def test_a_small_change_of_a_standing_part_is_kept(deviation: int, scene: Callable, noisy: Callable) -> None:
    """A mark of a twentieth of the frame in width and height, 40 grey levels darker."""
    changed = scene(1)
    changed[200:212, 150:166] -= 40
    frames = [noisy(changed if i >= FRAMES // 2 else scene(1), deviation, i) for i in range(FRAMES)]
    assert kept_of(frames, SimilarityCheck()) == 2


def test_the_noise_of_a_camera_raises_the_limit_and_no_more_than_to_its_maximum(
    scene: Callable, noisy: Callable
) -> None:
    limits = []
    for deviation in (0, 12, 60):
        check = SimilarityCheck()
        kept_of([noisy(scene(1), deviation, i) for i in range(20)], check)
        limits.append(check.limit)
    assert limits[0] == LEAST_LIMIT < limits[1] < limits[2] <= MOST_LIMIT


def test_where_everything_moves_parts_are_still_kept(scene: Callable) -> None:
    """No frame stands still, so the noise cannot be measured."""
    assert kept_of([scene(i) for i in range(FRAMES)], SimilarityCheck()) == FRAMES


@pytest.mark.parametrize("moments", [(None, None), (0.0, 5.0), (5.0, 0.0), (None, 0.1)])
def test_frames_that_do_not_follow_each_other_tell_nothing_about_noise(
    moments: tuple[float | None, float | None], scene: Callable
) -> None:
    check = SimilarityCheck()
    for number, moment in enumerate(moments):
        check.observe(view_of(scene(number)), moment)
    assert check.limit == LEAST_LIMIT


def test_images_of_an_earlier_run_count(scene: Callable) -> None:
    check = SimilarityCheck([scene(1), scene(2)])
    assert check.is_similar(view_of(scene(1)))
    assert not check.is_similar(view_of(scene(3)))


def test_as_many_images_count_as_memory_is_meant_for(scene: Callable) -> None:
    check, views = SimilarityCheck(), [view_of(scene(number)) for number in (0, 1, 2)]
    for number in (0, *[1] * (COMPARED - 1)):
        check.keep(views[number])
    assert [check.is_similar(view) for view in views] == [True, True, False]
    check.keep(views[2])
    assert [check.is_similar(view) for view in views] == [False, True, True]


def test_frames_of_other_proportions_differ(scene: Callable) -> None:
    assert difference(view_of(scene(1)), view_of(scene(1, height=320))) == float("inf")


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3, 2), (64, 64)])
def test_frames_of_any_size_have_a_view(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 77, np.uint8)
    assert difference(view_of(image), view_of(image)) == 0
