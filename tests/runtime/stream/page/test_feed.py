"""What waits for the page: nothing twice, nothing lost, and bounded."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.page import feed as module
from msc_edge.runtime.stream.page.feed import PageFeed, halved

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def decision(detector, toy):
    """A decision at so many seconds, of a good part or a reject."""

    def make(seconds: float = 0.0, *, reject: bool = False, source: str = "a") -> Decision:
        image = toy.draw(200, "scratch") if reject else toy.draw(100)
        frame = Frame(source, 0, START + timedelta(seconds=seconds), 0.0, image)
        return Decision(f"{source} {seconds} {reject}", frame, detector.score(image), None)

    return make


def test_what_was_stored_is_not_given_again(decision, detector) -> None:
    feed = PageFeed(1)
    feed.add(decision(reject=True), None, detector)
    assert len(feed.take().findings) == 1
    feed.stored()
    feed.put_back()
    assert feed.take().findings == ()


def test_what_was_not_stored_is_given_again_in_order_and_counted_once(decision, detector) -> None:
    feed = PageFeed(1)
    feed.add(decision(0, reject=True), None, detector)
    feed.add(decision(1), None, detector)
    feed.take()
    feed.add(decision(2, reject=True), None, detector)
    feed.put_back()
    taken = feed.take()
    assert [finding.time for finding in taken.findings] == [START.timestamp(), START.timestamp() + 2]
    assert taken.counts == {("a", START.timestamp() // 60): {"normal": 1, "reject": 2}}


def test_the_frame_of_a_reject_stays_until_it_is_taken(decision, detector) -> None:
    feed = PageFeed(1)
    feed.add(decision(0), None, detector)
    feed.add(decision(0.01, reject=True), None, detector)
    feed.add(decision(5), None, detector)
    (frame,) = feed.take().frames
    assert frame.scored.outcome == "reject"
    feed.add(decision(6), None, detector)
    feed.add(decision(7), None, detector)
    (frame,) = feed.take().frames
    assert frame.scored.time == START.timestamp() + 7
    assert np.array_equal(frame.image, decision(7).frame.image)


def test_without_a_page_memory_is_bounded_and_counts_are_complete(decision, detector, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "_MOST_FINDINGS", 3)
    feed = PageFeed(1)
    made = decision(reject=True)
    for number in range(1000):
        feed.add(replace(made, id=str(number)), None, detector)
    taken = feed.take()
    assert [finding.id for finding in taken.findings] == ["997", "998", "999"]
    assert len(taken.scored) == 600
    assert taken.counts == {("a", START.timestamp() // 60): {"reject": 1000}}
    assert "997 rejects and warnings are missing in the gallery" in caplog.text


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1080, 1920), (540, 960)), ((720, 1280), (720, 1280)), ((2161, 3843), (540, 960)), ((1, 5000), (1, 1250))],
)
def test_a_frame_is_halved_until_it_fits(size, expected) -> None:
    image = np.full((*size, 3), 77, np.uint8)
    small = halved(image, width=1280, height=960)
    assert small.shape == (*expected, 3)
    assert (small == 77).all()
    assert not np.shares_memory(small, image)
