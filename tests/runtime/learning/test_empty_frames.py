"""A covered lens, and anything else that shows no part of this camera, is not learned; a flaw that is harmless is."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from msc_edge.errors import UsageError
from msc_edge.kit.layout import THUMBNAILS
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector
from msc_edge.runtime.learning import guards
from msc_edge.runtime.learning.learner import Learner

SIZE = (48, 64, 3)
WHO = {"by": "Anna", "reason": "false alarm"}


def levels(mean: float, deviation: float, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, SIZE).clip(0, 255).astype(np.uint8)


@pytest.fixture
def learner(station: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guards, "MAX_LOST", 1.0)  # tested in test_learner.py
    with Learner(station / "patches.kit", threads=1) as opened:
        yield opened


@pytest.mark.parametrize(
    ("frame", "looks_like"),
    [
        (levels(0, 0), "a black frame"),
        (levels(4, 3), "a black frame"),
        (levels(255, 0), "a white frame"),
        (levels(250, 5), "a white frame"),
        (levels(128, 0), "a (grey frame|frame of one colour)"),
        (levels(90, 0), "a (black|grey) frame"),
        (levels(128, 10), "(a grey frame|a frame of one colour|noise)"),
        (np.random.default_rng(6).integers(0, 256, SIZE, dtype=np.uint8), "(noise|a grey frame|a frame of one colour)"),
    ],
    ids=["black", "sensor noise", "white", "overexposed", "grey", "dark grey", "grey and noise", "noise"],
)
def test_a_covered_lens_is_not_learned(
    learner: Learner, station: Path, save: Callable, frame: np.ndarray, looks_like: str
) -> None:
    message = rf"lens\.png: is not learned: it looks more like {looks_like} \(distance .*\) than like any normal image"
    with pytest.raises(UsageError, match=message):
        learner.add(save(station / "lens.png", frame), **WHO)
    assert learner.file.images() == []
    assert not list(station.glob("*.sqlite"))


def test_another_object_is_not_learned(learner: Learner, station: Path, save: Callable) -> None:
    """The other way round: dark where the part is light, in other colours."""
    other = np.zeros(SIZE, np.uint8)
    other[:24, :, 2] = 255
    with pytest.raises(
        UsageError, match=r"other\.png: is not learned: it (is further from the normal|looks more like)"
    ):
        learner.add(save(station / "other.png", other), **WHO)


def stained(part: np.ndarray) -> np.ndarray:
    cv2.circle(part, (14, 36), 6, (70, 30, 20), -1)
    return part


def shadowed(part: np.ndarray) -> np.ndarray:
    part[:20, :20] //= 2
    return part


def stamped(part: np.ndarray) -> np.ndarray:
    cv2.rectangle(part, (4, 4), (14, 10), (60, 60, 160), -1)
    return part


@pytest.mark.parametrize(
    "change",
    [
        stained,
        shadowed,
        stamped,
        lambda part: cv2.line(part, (20, 8), (46, 40), (250, 250, 250), 3),
        lambda part: np.roll(part, (3, 4), (0, 1)),
        lambda part: np.clip(part * 1.25, 0, 255).astype(np.uint8),
    ],
    ids=["a stain", "a shadow", "another stamp", "a scratch", "a moved part", "more light"],
)
def test_a_false_alarm_is_learned(
    learner: Learner, station: Path, toy: ModuleType, save: Callable, change: Callable
) -> None:
    learned = learner.add(save(station / "part.png", change(toy.draw(300))), **WHO)
    assert learned.before.verdict != "normal"
    assert learned.after.verdict == "normal"


def test_what_was_learned_before_does_not_open_the_door(
    learner: Learner, station: Path, toy: ModuleType, save: Callable
) -> None:
    """The guard compares with the kit's own normal images."""
    for number, change in enumerate((shadowed, stained, stamped)):
        learner.add(save(station / f"{number}.png", change(toy.draw(300 + number))), **WHO)
    with pytest.raises(UsageError, match="it looks more like a black frame"):
        learner.add(save(station / "black.png", levels(3, 2)), **WHO)


def test_a_kit_without_thumbnails_knows_a_black_frame_too(station: Path, picture: Callable, save: Callable) -> None:
    kit = station / "patches.kit"
    manifest = Detector.load(kit, threads=1).manifest
    shutil.rmtree(kit / THUMBNAILS)
    (kit / "manifest.json").unlink()
    (kit / "manifest.sha256").unlink()
    seal(kit, manifest)
    with Learner(kit, threads=1) as learner:
        learner.keep_defect(picture("defect.png", 100, "empty"), by="Anna", reason="empty")
        with pytest.raises(UsageError, match="it looks more like a black frame"):
            learner.add(save(station / "black.png", levels(3, 2)), **WHO)
        assert learner.add(picture("a.png", 100, "stain"), **WHO).after.verdict == "normal"
