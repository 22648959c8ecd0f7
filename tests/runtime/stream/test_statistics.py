import threading
from datetime import UTC, datetime

import pytest

from msc_edge.calibration import Verdict
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream import statistics as module
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.statistics import Statistics

TIMEOUT = 30.0


class Clock:
    """A monotonic clock that the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def decision(
    verdict: Verdict | None = "normal", *, total: float = 10, dropped: int = 0, source: str = "cam1"
) -> Decision:
    frame = Frame(source=source, index=0, time=datetime.now(UTC), captured=0, image=None, dropped=dropped)
    if verdict is None:
        return Decision("id", frame, None, None)
    return Decision(
        "id",
        frame,
        Result(0.1, 0.1, None, 0.5, verdict, 0.2, (), (NearestImage(0, "a.png", 0.1),), "fp32", "kit"),
        Stages(1, 2, 3, total),
    )


def test_before_the_first_frame_there_is_no_latency_and_no_age() -> None:
    statistics = Statistics()
    line = statistics.status_line(outbox=0)
    assert line == "0.0 fps; 0 frames, 0 dropped, 0 warned, 0 rejected, 0 alarms; outbox 0"
    assert statistics.seconds_since_scored("cam1") is None


def test_the_line_counts_the_decisions_of_all_sources() -> None:
    statistics = Statistics()
    for verdict in ("normal", "warn", "warn", "reject", "reject", "reject", None):
        statistics.add_decision(decision(verdict, dropped=2, source=f"cam-{verdict}"))
    statistics.events["reject"] += 2
    line = statistics.status_line(outbox=17)
    assert "; 7 frames, 14 dropped, 2 warned, 3 rejected, 1 unreadable, 2 alarms; outbox 17" in line
    assert (statistics.frames, statistics.dropped, statistics.unreadable) == (7, 14, 1)
    assert statistics.verdicts == {"normal": 1, "warn": 2, "reject": 3}


@pytest.mark.parametrize(
    ("totals", "p50", "p95"),
    [
        (range(1, 102), 51, 96),  # the 95th percentile of 1 to 101
        (range(101, 0, -1), 51, 96),
        ([7], 7, 7),
        ([10, 20], 15, 20),  # 19.5, rounded to even
        ([0.2] * 5, 0, 0),
    ],
)
def test_latencies_are_percentiles_from_capture_to_decision(totals: list[float], p50: int, p95: int) -> None:
    statistics = Statistics()
    for total in totals:
        statistics.add_decision(decision(total=total))
    assert f"latency p50 {p50} ms p95 {p95} ms" in statistics.status_line(outbox=0)


def test_a_file_that_cannot_be_read_has_no_latency() -> None:
    statistics = Statistics()
    statistics.add_decision(decision(None))
    line = statistics.status_line(outbox=0)
    assert line.startswith("0.0 fps; 1 frames")
    assert "latency" not in line


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_the_rate_covers_the_time_from_the_first_frame_until_now(clock: Clock) -> None:
    statistics = Statistics()
    for _ in range(60):
        statistics.add_decision(decision())
        clock.now += 0.05
    assert statistics.status_line(outbox=0).startswith("20.0 fps, ")


def test_frames_of_less_than_a_second_are_not_extrapolated(clock: Clock) -> None:
    statistics = Statistics()
    for _ in range(5):
        statistics.add_decision(decision())
        clock.now += 0.01
    assert statistics.status_line(outbox=0).startswith("5.0 fps, ")


def test_rates_and_latencies_cover_the_last_ten_seconds(clock: Clock) -> None:
    statistics = Statistics()
    statistics.add_decision(decision(total=5000))
    clock.now += 9.9
    assert "latency p50 5000 ms" in statistics.status_line(outbox=0)
    clock.now += 0.2
    assert statistics.status_line(outbox=0).startswith("0.0 fps; 1 frames, 0 dropped"), "the count stays"
    statistics.add_decision(decision(total=10))
    assert "latency p50 10 ms p95 10 ms" in statistics.status_line(outbox=0)


def test_the_age_of_the_last_scored_frame_is_that_of_its_source(clock: Clock) -> None:
    statistics = Statistics()
    statistics.add_decision(decision(source="cam1"))
    clock.now += 2
    statistics.add_decision(decision(source="cam2"))
    clock.now += 1
    assert (statistics.seconds_since_scored("cam1"), statistics.seconds_since_scored("cam2")) == (3, 1)
    statistics.add_decision(decision(None, source="cam2"))
    assert statistics.seconds_since_scored("cam2") == 1, "a frame that cannot be scored does not count"
    assert statistics.seconds_since_scored("cam3") is None
    statistics.add_decision(decision(source="cam1"))
    assert statistics.seconds_since_scored("cam1") == 0


def test_threads_may_count_at_the_same_time() -> None:
    statistics = Statistics()

    def decide() -> None:
        for number in range(500):
            statistics.add_decision(decision("reject" if number % 5 == 0 else "normal", dropped=1))
            if number % 50 == 0:
                statistics.status_line(outbox=0)

    threads = [threading.Thread(target=decide, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert (statistics.frames, statistics.dropped) == (4000, 4000)
    assert statistics.verdicts == {"reject": 800, "normal": 3200}
