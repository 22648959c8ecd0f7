"""What is refused, and how each check is turned off."""

from collections.abc import Callable, Collection

import cv2
import numpy as np
import pytest

from msc_edge.runtime.stream.training_images.checks import EXPLANATIONS, REFUSALS, FrameChecks, Refusal


def frames_of(scene: Callable) -> dict[str, np.ndarray]:
    return {
        "similar": scene(1),
        "blurred": cv2.GaussianBlur(scene(2), (0, 0), 4),
        "dark": scene(3) // 12,
        "bright": np.full_like(scene(4), 255),
    }


@pytest.mark.parametrize("allowed", [(), ("similar",), ("bright", "dark"), REFUSALS])
def test_only_what_is_not_allowed_is_refused(allowed: Collection[Refusal], scene: Callable) -> None:
    checks = FrameChecks(allowed=allowed, kept=[scene(1)])
    checks.observe(scene(1), 0.0)
    found = {name: checks.refusal(image) for name, image in frames_of(scene).items()}
    assert found == {name: None if name in allowed else name for name in frames_of(scene)}
    assert checks.refusal(scene(5)) is None


def test_frames_that_are_not_examined_show_how_sharp_a_camera_is(scene: Callable) -> None:
    blurred = frames_of(scene)["blurred"]
    assert FrameChecks().refusal(blurred) is None
    checks = FrameChecks()
    checks.observe(scene(1), 0.0)
    assert checks.refusal(blurred) == "blurred"


def test_a_refused_frame_is_not_compared_with(scene: Callable) -> None:
    checks = FrameChecks()
    checks.observe(scene(1), 0.0)
    assert checks.refusal(cv2.GaussianBlur(scene(2), (0, 0), 4)) == "blurred"
    assert checks.refusal(scene(2)) is None
    assert checks.refusal(scene(2)) == "similar"


def test_each_reason_is_explained_with_a_remedy() -> None:
    assert set(EXPLANATIONS) == set(REFUSALS)
    assert all("--keep" in text for text in EXPLANATIONS.values())
