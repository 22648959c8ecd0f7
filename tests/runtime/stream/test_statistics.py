import threading
import time
from datetime import UTC, datetime

import pytest

from msc_edge.calibration import Verdict
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream import statistics as module
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.statistics import Statistics, fitted

TIMEOUT = 30.0


class Clock:
    """A monotonic clock that the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def decision(
    verdict: Verdict | None = "normal", *, total: float = 10, dropped: int = 0, skipped: int = 0, source: str = "cam1"
) -> Decision:
    frame = Frame(source, 0, datetime.now(UTC), 0, None, dropped=dropped, skipped=skipped)
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
    assert line == "0 normal, 0 warn, 0 reject, 0 unreadable; 0 alarms; 0.0 fps; 0 dropped, 0 skipped; outbox 0"
    assert statistics.seconds_since_scored("cam1") is None


def test_the_line_counts_the_decisions_of_all_sources() -> None:
    statistics = Statistics()
    for verdict in ("normal", "warn", "warn", "reject", "reject", "reject", None):
        statistics.add_decision(decision(verdict, dropped=2, skipped=3, source=f"cam-{verdict}"))
    statistics.events["reject"] += 2
    line = statistics.status_line(outbox=17)
    assert line.startswith("1 normal, 2 warn, 3 reject, 1 unreadable; 2 alarms; ")
    assert line.endswith("; 14 dropped, 21 skipped; outbox 17")
    assert (statistics.frames, statistics.dropped, statistics.skipped, statistics.unreadable) == (7, 14, 21, 1)
    assert statistics.verdicts == {"normal": 1, "warn": 2, "reject": 3}


@pytest.mark.parametrize(
    ("totals", "p95"),
    [
        (range(1, 102), 96),  # the 95th percentile of 1 to 101
        (range(101, 0, -1), 96),
        ([7], 7),
        ([10, 20], 20),  # 19.5, rounded to even
        ([0.2] * 5, 0),
    ],
)
def test_the_latency_is_a_percentile_from_capture_to_decision(totals: list[float], p95: int) -> None:
    statistics = Statistics()
    for total in totals:
        statistics.add_decision(decision(total=total))
    assert f"; p95 {p95} ms; " in statistics.status_line(outbox=0)


def test_a_file_that_cannot_be_read_has_no_latency() -> None:
    statistics = Statistics()
    statistics.add_decision(decision(None))
    line = statistics.status_line(outbox=0)
    assert "; 0.0 fps; 0 dropped" in line
    assert "p95" not in line


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
    assert "; 20.0 fps; " in statistics.status_line(outbox=0)


def test_frames_of_less_than_a_second_are_not_extrapolated(clock: Clock) -> None:
    statistics = Statistics()
    for _ in range(5):
        statistics.add_decision(decision())
        clock.now += 0.01
    assert "; 5.0 fps; " in statistics.status_line(outbox=0)


def test_rates_and_latencies_cover_the_last_ten_seconds(clock: Clock) -> None:
    statistics = Statistics()
    statistics.add_decision(decision(total=5000))
    clock.now += 9.9
    assert "p95 5000 ms" in statistics.status_line(outbox=0)
    clock.now += 0.2
    line = statistics.status_line(outbox=0)
    assert line.startswith("1 normal, "), "the count stays"
    assert "; 0.0 fps; 0 dropped" in line
    statistics.add_decision(decision(total=10))
    assert "p95 10 ms" in statistics.status_line(outbox=0)


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


def test_a_source_without_frames_comes_directly_after_the_verdicts() -> None:
    statistics = Statistics()
    lost = Outage("lost", "the connection ended", time.monotonic() - 25.5)
    line = statistics.status_line(outbox=0, outages={"left": lost})
    assert line.startswith("0 normal, 0 warn, 0 reject, 0 unreadable; left: NO FRAMES, lost for 25 s; 0 alarms; ")
    assert "; left lost for 25 s, since " in line, "at the end, where there is space"
    assert line.endswith(": the connection ended")
    line = statistics.status_line(outbox=0, outages={"left": lost, "right": lost})
    assert "unreadable; 2 SOURCES WITHOUT FRAMES; " in line


@pytest.mark.parametrize("factor", [1, 100, 10**4, 10**7, 10**10])
def test_verdicts_alarms_and_rate_fit_into_80_columns(factor: int) -> None:
    statistics = Statistics(frames=9 * factor, dropped=9 * factor, unreadable=9 * factor)
    statistics.verdicts.update(normal=9 * factor, warn=9 * factor, reject=9 * factor)
    statistics.events["reject"] = 9 * factor
    line = fitted(statistics.status_line(outbox=9 * factor), 80)
    assert len(line) <= 80
    for part in ("normal", "warn", "reject", "unreadable", "alarms", "fps"):
        assert part in line
    assert fitted(line, 10).endswith("unreadable"), "the verdicts are never omitted"
