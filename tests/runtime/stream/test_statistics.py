import threading
import time
from datetime import UTC, datetime

import pytest

from msc_edge.calibration import Verdict
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream import statistics as module
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.statistics import Statistics

PATIENCE = 30.0


def decision(
    verdict: Verdict | None = "normal", *, total: float = 10, dropped: int = 0, source: str = "cam1"
) -> Decision:
    frame = Frame(source=source, index=0, time=datetime.now(UTC), captured=0, image=None, dropped=dropped)
    if verdict is None:
        return Decision("id", frame, None, None)
    return Decision("id", frame, Result(0.1, 0.5, verdict, (NearestImage(0, "a.png", 0.1),)), Stages(1, 2, 3, total))


def test_before_the_first_frame_there_is_no_latency_and_no_age() -> None:
    statistics = Statistics()
    line = statistics.line(outbox=0)
    assert line == "0.0 fps; 0 frames, 0 dropped, 0 warned, 0 rejected, 0 alarms; outbox 0"
    assert statistics.age_of_last("cam1") is None


def test_the_line_counts_what_was_decided_over_all_sources() -> None:
    statistics = Statistics()
    for verdict in ("normal", "warn", "warn", "reject", "reject", "reject", None):
        statistics.decided(decision(verdict, dropped=2, source=f"cam-{verdict}"))
    statistics.events["reject"] += 2
    line = statistics.line(outbox=17)
    assert "; 7 frames, 14 dropped, 2 warned, 3 rejected, 1 unreadable, 2 alarms; outbox 17" in line
    assert (statistics.frames, statistics.dropped, statistics.unreadable) == (7, 14, 1)
    assert statistics.verdicts == {"normal": 1, "warn": 2, "reject": 3}


@pytest.mark.parametrize(
    ("totals", "p50", "p95"),
    [
        (range(1, 102), 51, 96),  # the 95th percentile of 1 to 101 is 96
        (range(101, 0, -1), 51, 96),
        ([7], 7, 7),
        ([10, 20], 15, 20),  # 19.5, rounded to even
        ([0.2] * 5, 0, 0),
    ],
)
def test_latencies_are_percentiles_of_capture_to_decision(totals: list[float], p50: int, p95: int) -> None:
    statistics = Statistics()
    for total in totals:
        statistics.decided(decision(total=total))
    assert f"latency p50 {p50} ms p95 {p95} ms" in statistics.line(outbox=0)


def test_a_file_that_cannot_be_read_has_no_latency() -> None:
    statistics = Statistics()
    statistics.decided(decision(None))
    line = statistics.line(outbox=0)
    assert line.startswith("0.0 fps; 1 frames")
    assert "latency" not in line


def test_the_rate_is_that_of_the_frames() -> None:
    """From the first of them until now; how long that was is measured around it, however busy the machine is."""
    statistics = Statistics()
    earliest = time.monotonic()
    statistics.decided(decision())
    latest = time.monotonic()
    for _ in range(59):
        time.sleep(0.02)
        statistics.decided(decision())
    before = time.monotonic()
    rate = float(statistics.line(outbox=0).partition(" fps")[0])
    after = time.monotonic()
    assert before - latest > 1
    assert 60 / (after - earliest) - 0.05 <= rate <= 60 / (before - latest) + 0.05


def test_rates_and_latencies_forget_what_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LATELY", 0.2)
    statistics = Statistics()
    statistics.decided(decision(total=5000))
    end = time.monotonic() + PATIENCE
    while "latency" in statistics.line(outbox=0):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert statistics.line(outbox=0).startswith("0.0 fps; 1 frames"), "the count stays"
    statistics.decided(decision(total=10))
    assert "latency p50 10 ms p95 10 ms" in statistics.line(outbox=0)


def test_the_age_of_the_last_frame_is_told_for_each_source_and_begins_anew_with_each() -> None:
    statistics = Statistics()
    statistics.decided(decision(source="cam1"))
    time.sleep(0.1)
    statistics.decided(decision(None, source="cam2"))
    first, second = statistics.age_of_last("cam1"), statistics.age_of_last("cam2")
    assert first is not None
    assert second is not None
    assert first >= second + 0.1
    assert statistics.age_of_last("cam3") is None
    statistics.decided(decision(source="cam1"))
    again = statistics.age_of_last("cam1")
    assert again is not None
    assert again < first


def test_nothing_is_lost_when_several_sources_decide_at_once() -> None:
    statistics = Statistics()

    def decide() -> None:
        for number in range(500):
            statistics.decided(decision("reject" if number % 5 == 0 else "normal", dropped=1))
            if number % 50 == 0:
                statistics.line(outbox=0)

    threads = [threading.Thread(target=decide, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (statistics.frames, statistics.dropped) == (4000, 4000)
    assert statistics.verdicts == {"reject": 800, "normal": 3200}
