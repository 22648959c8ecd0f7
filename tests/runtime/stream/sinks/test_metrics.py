import threading
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.events import Event, EventKind, new_id, now
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sinks.metrics import Metrics

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def decision(verdict: str | None = "normal", *, source: str = "cam", dropped: int = 0) -> Decision:
    frame = Frame(source, 0, NOON, 0.0, None, dropped=dropped, error=None if verdict else "the file is empty")
    nearest = (NearestImage(0, "n.png", 0.1),)
    result = Result(0.25, 0.25, None, 0.01, verdict, 0.2, (), nearest, "fp32", "kit") if verdict else None  # pyright: ignore
    return Decision(new_id(), frame, result, Stages(0.5, 20.0, 1.5, 22.0) if verdict else None)


def event(kind: EventKind, **fields: object) -> Event:
    return Event(id=new_id(), kind=kind, time=now(), station="line3", message="m", **fields)  # pyright: ignore


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """As Prometheus reads them: name and labels -> value."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.as_text().decode())
        for sample in family.samples
    }


def test_frames_are_counted() -> None:
    metrics = Metrics()
    metrics.add_decision(decision("normal", dropped=3))
    metrics.add_decision(decision("reject", dropped=1))
    metrics.add_decision(decision("reject"))
    metrics.add_decision(decision(None, source="in"))
    found = values(metrics)
    assert found["msc_edge_frames_total", "source=cam", "verdict=normal"] == 1
    assert found["msc_edge_frames_total", "source=cam", "verdict=reject"] == 2
    assert found["msc_edge_frames_dropped_total", "source=cam"] == 4
    assert found["msc_edge_unreadable_total", "source=in"] == 1
    assert found["msc_edge_last_frame_timestamp_seconds", "source=cam"] == NOON.timestamp()
    assert ("msc_edge_last_frame_timestamp_seconds", "source=in") not in found


def test_stages_are_seconds() -> None:
    metrics = Metrics()
    metrics.add_decision(decision())
    metrics.add_decision(decision())
    found = values(metrics)
    assert found["msc_edge_stage_seconds_count", "stage=infer"] == 2
    assert found["msc_edge_stage_seconds_sum", "stage=infer"] == pytest.approx(0.04)
    assert found["msc_edge_stage_seconds_sum", "stage=age"] == pytest.approx(0.001)
    assert found["msc_edge_stage_seconds_sum", "stage=search"] == pytest.approx(0.003)
    assert found["msc_edge_stage_seconds_sum", "stage=total"] == pytest.approx(0.044)
    limits = [float(key[1].removeprefix("le=")) for key in found if "stage=total" in key and "bucket" in key[0]]
    assert limits[0] == 0.001
    assert limits[-2:] == [10, float("inf")]
    assert found["msc_edge_stage_seconds_bucket", "le=0.05", "stage=total"] == 2
    assert found["msc_edge_stage_seconds_bucket", "le=0.02", "stage=total"] == 0


def test_events_change_the_state_of_their_source_and_the_losses() -> None:
    metrics = Metrics()
    metrics.add_source("cam")
    assert values(metrics)["msc_edge_source_up", "source=cam"] == 0
    metrics.add_event(event("source_up", source="cam"))
    assert values(metrics)["msc_edge_source_up", "source=cam"] == 1
    metrics.add_event(event("reject", source="cam"))
    assert values(metrics)["msc_edge_source_up", "source=cam"] == 1
    metrics.add_event(event("source_frozen", source="cam"))
    metrics.add_event(event("results_lost", count=5))
    metrics.add_event(event("events_lost", count=7))
    metrics.add_event(event("events_lost", count=1))
    found = values(metrics)
    assert found["msc_edge_source_up", "source=cam"] == 0
    assert found["msc_edge_events_total", "kind=events_lost"] == 2
    assert found["msc_edge_events_total", "kind=reject"] == 1
    assert found["msc_edge_results_lost_total",] == 5
    assert found["msc_edge_events_lost_total",] == 8


def test_counts_start_at_zero() -> None:
    metrics = Metrics()
    metrics.add_source("cam")
    found = values(metrics)
    for key in [
        ("msc_edge_frames_total", "source=cam", "verdict=reject"),
        ("msc_edge_frames_dropped_total", "source=cam"),
        ("msc_edge_source_restarts_total", "source=cam"),
        ("msc_edge_unreadable_total", "source=cam"),
        ("msc_edge_events_total", "kind=source_lost"),
        ("msc_edge_results_lost_total",),
        ("msc_edge_events_lost_total",),
    ]:
        assert found[key] == 0


def test_restarts_the_backlog_and_the_active_kit() -> None:
    metrics = Metrics()
    metrics.add_restart("cam")
    metrics.set_backlog({"mqtt": 4, "webhook": 0}, {"mqtt": 1, "webhook": 0})
    metrics.set_kits([("aa", "edge-small")])
    metrics.set_kits([("bb", "edge-small")])
    found = values(metrics)
    assert found["msc_edge_source_restarts_total", "source=cam"] == 1
    assert found["msc_edge_outbox_depth", "channel=mqtt"] == 4
    assert [key for key in found if key[0] == "msc_edge_kit_info"] == [
        ("msc_edge_kit_info", "backbone=edge-small", "kit=bb")
    ]
    assert all(key[0].startswith("msc_edge_") for key in found)


def test_triggers_are_counted_from_zero_and_only_verdicts_are_timed() -> None:
    metrics = Metrics()
    metrics.add_triggers(["scored", "busy"])
    assert values(metrics)["msc_edge_triggers_total", "status=scored"] == 0
    metrics.add_answer("scored", 0.03)
    metrics.add_answer("busy", 0.0)
    found = values(metrics)
    assert found["msc_edge_triggers_total", "status=scored"] == found["msc_edge_triggers_total", "status=busy"] == 1
    assert found["msc_edge_trigger_answer_seconds_count",] == 1
    assert found["msc_edge_trigger_answer_seconds_sum",] == pytest.approx(0.03)


def test_the_evidence_of_a_drift_is_that_of_its_source() -> None:
    metrics = Metrics()
    metrics.set_drift("cam", 12.5)
    metrics.set_drift("other", 0.5)
    assert values(metrics)["msc_edge_drift_evidence", "source=cam"] == 12.5


def test_two_streams_in_one_process_have_separate_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.add_decision(decision())
    assert ("msc_edge_frames_total", "source=cam", "verdict=normal") not in values(other)


def test_threads_may_count_at_the_same_time() -> None:
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.add_decision(decision()) for _ in range(250)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(metrics)["msc_edge_frames_total", "source=cam", "verdict=normal"] == 1000
