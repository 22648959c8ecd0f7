"""The watch of a source: drawn parts under a lamp that fades, a part that stands still, restarts, and damaged files."""

import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from msc_edge.drift import CALLED, DriftTest
from msc_edge.runtime import Detector
from msc_edge.runtime.stream import drift_watch
from msc_edge.runtime.stream.drift_watch import DriftWatch, Timeline, spacing_of
from msc_edge.runtime.stream.frame import Decision, Frame

START = datetime(2026, 5, 4, 6, 0, tzinfo=UTC)


class Journal:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reported: list[dict[str, Any]] = []

    def report(self, kind: str, message: str, **facts: Any) -> None:
        self.reported.append({"kind": kind, "message": message, **facts})


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def watch(tmp_path: Path, journal: Journal) -> Callable[..., DriftWatch]:
    def make(every: float | None = None) -> DriftWatch:
        return DriftWatch("cam", tmp_path / "drift-cam.json", every=every, journal=journal)  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture(scope="module")
def line(detector: Detector) -> Callable[..., list[Decision]]:
    """Decisions on drawn parts, ten seconds apart."""

    def of(images: Iterable[np.ndarray], first: int = 0) -> list[Decision]:
        return [
            Decision(
                str(number),
                Frame("cam", number, START + timedelta(seconds=10 * number), 10.0 * number, image),
                detector.score(image),
                None,
            )
            for number, image in enumerate(images, start=first)
        ]

    return of


@pytest.fixture(scope="module")
def limits(detector: Detector) -> Detector:
    """The kit with a reject limit that no drawn part reaches: a lamp that fades must not only reject."""
    return detector.with_limits(threshold=0.5)


def added(watch: DriftWatch, decisions: Iterable[Decision], detector: Detector) -> None:
    for decision in decisions:
        watch.add(decision, detector)


def images_in(file: Path) -> int:
    """How many images a stored test has seen."""
    return DriftTest.of(json.loads(file.read_text())["test"]).images


def normal(toy: ModuleType, count: int, first: int = 3000) -> list[np.ndarray]:
    return [toy.draw(first + number) for number in range(count)]


def test_a_lamp_that_fades_is_called_once_with_what_has_changed(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal
) -> None:
    own = watch()
    assert own.evidence == 1
    added(own, line(normal(toy, 150)), limits)
    assert journal.reported == []
    assert own.evidence < CALLED
    faded = [(image * 0.92).astype(np.uint8) for image in normal(toy, 150, first=4000)]
    added(own, line(faded, first=150), limits)
    (event,) = journal.reported
    assert own.evidence >= CALLED
    assert (event["kind"], event["source"]) == ("drift_suspected", "cam")
    found = re.fullmatch(
        r"scores are higher since about (\S+), over (\d+) images: brightness (\d+) to (\d+) of 255, "
        r"sharpness [+-]\d+ %, position \S+ % of the width, \S+ % of the height; warned or rejected \S+ % to 100 %",
        event["message"],
    )
    assert found, event["message"]
    began = datetime.fromisoformat(found[1])
    assert abs(began - (START + timedelta(seconds=1500))) < timedelta(seconds=100)
    assert int(found[2]) == event["count"] < 40
    assert int(found[4]) == pytest.approx(0.92 * int(found[3]), abs=1.5)


def test_a_change_after_which_all_parts_are_rejected_is_called(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal
) -> None:
    own = watch()
    added(own, line(normal(toy, 200)), limits)
    added(own, line([image // 2 for image in normal(toy, 40, first=4000)], first=200), limits)
    (event,) = journal.reported
    assert event["message"].startswith("more parts are rejected since about 2026-05-04T06:3")


def test_parts_that_do_not_change_are_not_called(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal
) -> None:
    added(watch(), line(normal(toy, 400)), limits)
    assert journal.reported == []


def test_a_part_that_stands_still_counts_once(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal, tmp_path: Path
) -> None:
    own = watch(0)
    rng = np.random.default_rng(0)
    part = cv2.GaussianBlur(toy.draw(3000), (0, 0), 3)  # its score is higher than that of most
    noisy = [np.clip(part + rng.normal(0, 1, part.shape), 0, 255).astype(np.uint8) for _ in range(300)]
    added(own, line(noisy), limits)
    own.save(now=True)
    assert journal.reported == []
    assert images_in(tmp_path / "drift-cam.json") == 1


def test_the_spacing_of_a_bank_is_the_median_distance_to_the_nearest_other_row() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [
        min(1 - row @ other for place, other in enumerate(rows) if place != own) for own, row in enumerate(rows)
    ]
    assert spacing_of(rows) == pytest.approx(float(np.median(expected)), abs=1e-6)
    assert spacing_of(np.repeat(rows[:1], 2, axis=0)) == pytest.approx(0, abs=1e-6)


def test_the_spacing_is_measured_once_for_each_kit(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(drift_watch, "spacing_of", lambda rows: measured.append(len(rows)) or 1e-3)
    own = watch(1e6)  # seconds: after the first frame no other one counts
    added(own, line(normal(toy, 20)), limits)
    added(own, line(normal(toy, 20), first=20), limits.with_limits(threshold=0.4))
    assert len(measured) == 2


def test_of_a_live_source_a_frame_in_every_so_many_seconds_counts(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, tmp_path: Path
) -> None:
    counted = []
    for every in (0, 30):
        own = watch(every)
        added(own, line(normal(toy, 30)), limits)
        own.save(now=True)
        counted.append(images_in(tmp_path / "drift-cam.json"))
        (tmp_path / "drift-cam.json").unlink()
    assert counted == [30, 10]


def test_after_a_restart_the_test_goes_on_and_the_call_is_not_repeated(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal, tmp_path: Path
) -> None:
    drifting = [(image * 0.92).astype(np.uint8) for image in normal(toy, 300, first=4000)]
    decisions = line([*normal(toy, 60), *drifting])
    for start in range(0, len(decisions), 30):
        own = watch()
        added(own, decisions[start : start + 30], limits)
        own.save(now=True)
    assert [each["kind"] for each in journal.reported] == ["drift_suspected"]
    uninterrupted = Journal()
    added(
        DriftWatch("cam", tmp_path / "other.json", every=None, journal=uninterrupted),  # pyright: ignore[reportArgumentType]
        decisions,
        limits,
    )
    assert uninterrupted.reported[0]["count"] == journal.reported[0]["count"]


def test_other_limits_or_another_kit_start_again(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal, tmp_path: Path
) -> None:
    own = watch()
    added(own, line([(image * 0.92).astype(np.uint8) for image in normal(toy, 300)]), limits)
    assert len(journal.reported) == 1
    other = limits.with_limits(threshold=0.4)
    added(own, line(normal(toy, 20), first=300), other)
    own.save(now=True)
    state = json.loads((tmp_path / "drift-cam.json").read_text())
    assert state["use"]["limit"] == 0.4
    assert not state["called"]
    assert DriftTest.of(state["test"]).images == 20
    foreign = [replace(each, result=replace(each.result, kit="0" * 64)) for each in line(normal(toy, 5), first=400)]
    added(own, foreign, other)
    own.save(now=True)
    assert images_in(tmp_path / "drift-cam.json") == 20


def test_after_a_call_a_reload_starts_the_test_again(
    toy: ModuleType, watch: Callable, line: Callable, limits: Detector, journal: Journal, tmp_path: Path
) -> None:
    own = watch()
    added(own, line(normal(toy, 50)), limits)
    own.start_again()  # nothing was called: it goes on
    own.save(now=True)
    assert images_in(tmp_path / "drift-cam.json") == 50
    added(own, line([(image * 0.92).astype(np.uint8) for image in normal(toy, 100)], first=50), limits)
    assert len(journal.reported) == 1
    own.start_again()
    own.save(now=True)
    assert not (tmp_path / "drift-cam.json").exists(), "the call does not come back at the next start"
    added(own, line(normal(toy, 100), first=200), limits)
    assert len(journal.reported) == 1
    added(own, line([(image * 0.92).astype(np.uint8) for image in normal(toy, 100)], first=300), limits)
    assert len(journal.reported) == 2


def test_frames_that_were_not_scored_take_no_part(watch: Callable, limits: Detector, tmp_path: Path) -> None:
    own = watch()
    own.add(Decision("1", Frame("cam", 0, START, 0.0, None, error="damaged"), None, None), limits)
    own.save(now=True)
    assert not (tmp_path / "drift-cam.json").exists()


@pytest.mark.parametrize("content", ["", "{", "{}", '{"use": 1}', '{"test": {"limit": "x"}, "use": {}}', "\0" * 50])
def test_a_damaged_state_is_named_and_the_test_starts_again(
    content: str,
    watch: Callable,
    toy: ModuleType,
    line: Callable,
    limits: Detector,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "drift-cam.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        own = watch()
    assert "drift-cam.json cannot be read, so the drift test starts again" in caplog.text
    added(own, line(normal(toy, 3)), limits)
    own.save(now=True)
    assert json.loads((tmp_path / "drift-cam.json").read_text())["use"]["limit"] == 0.5


def test_a_state_that_cannot_be_written_is_logged_once(
    watch: Callable, toy: ModuleType, line: Callable, limits: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = watch()
    added(own, line(normal(toy, 3)), limits)
    (tmp_path / "drift-cam.json").mkdir()
    (tmp_path / "drift-cam.json" / "occupied").touch()
    with caplog.at_level(logging.INFO):
        own.save(now=True)
        own.save(now=True)
    assert caplog.text.count("the state of the drift test cannot be written") == 1


def test_the_state_is_written_once_a_minute(
    watch: Callable, toy: ModuleType, line: Callable, limits: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = watch()
    added(own, line(normal(toy, 3)), limits)
    own.save()
    assert not (tmp_path / "drift-cam.json").exists()
    monkeypatch.setattr(drift_watch, "_SAVE_INTERVAL", 0.0)
    own.save()
    assert (tmp_path / "drift-cam.json").exists()


def test_a_timeline_covers_a_whole_life_in_bounded_memory(
    toy: ModuleType, line: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_watch, "_REMEMBERED", 20)
    timeline, (decision,) = Timeline(), line([toy.draw(3000)])
    for number in range(1, 1001):
        timeline.add(number, replace(decision, frame=replace(decision.frame, captured=float(number))))
    numbers = [each.number for each in timeline.seen]
    assert len(numbers) <= 21
    assert numbers[0] == 1
    assert numbers[-1] > 900
    assert max(np.diff(numbers)) <= 4 * 1000 / 20
    assert Timeline.of(json.loads(json.dumps(timeline.state()))).state() == timeline.state()


def test_a_stream_reports_a_drift_of_a_watched_folder_once_over_a_restart(
    stream: Callable, until: Callable, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()

    def arrive(images: Iterable[np.ndarray], first: int) -> None:
        for number, image in enumerate(images, start=first):
            save(tmp_path / "in" / f"{number:04d}.png", image)

    arrive(normal(toy, 100), 0)
    arrive([image // 2 for image in normal(toy, 30, first=4000)], 100)
    running = stream(tmp_path / "in", "--jsonl", tmp_path / "rows.jsonl")
    event = running.wait_for("drift_suspected")
    assert event["source"] == "in"
    assert "more parts are rejected since about" in event["message"]
    assert running.stop() == 0
    assert images_in(tmp_path / "state" / "drift-in.json") > 100
    arrive([image // 2 for image in normal(toy, 30, first=5000)], 130)
    again = stream(tmp_path / "in", "--jsonl", tmp_path / "rows.jsonl")
    until(lambda: len((tmp_path / "rows.jsonl").read_text().splitlines()) == 160, "160 rows")
    assert again.stop() == 0
    assert again.entries("drift_suspected") == []
