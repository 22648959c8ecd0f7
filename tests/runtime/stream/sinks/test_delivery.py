import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from msc_edge.runtime.stream.config_sections import MqttConfig, WebhookConfig
from msc_edge.runtime.stream.events import Event, Waiting
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks import delivery as module
from msc_edge.runtime.stream.sinks.delivery import Channel, ChannelError, Delivery, retry_delay
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
from msc_edge.runtime.stream.sinks.webhook import WebhookChannel
from msc_edge.runtime.stream.state import State

if TYPE_CHECKING:
    from tests.runtime.stream.sinks.conftest import Server
else:
    Server = object


def webhook(url: str, timeout: float = 5) -> WebhookChannel:
    return WebhookChannel(WebhookConfig(url=SecretStr(url), timeout=timeout))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", channels=["webhook"]) as state:
        yield state


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of one MB."""
    return disk_of("1m")


def test_the_channels_follow_the_protocol() -> None:
    channels: list[Channel] = [MqttChannel(MqttConfig(host="broker"), "line3", []), webhook("http://server")]
    assert [channel.name for channel in channels] == ["mqtt", "webhook"]


def test_events_arrive_oldest_first_over_several_batches(
    server: Server, state: State, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    server.start()
    events = [make_event() for _ in range(50)]
    state.record(events)
    delivery = Delivery(webhook(server.url), Outbox(state), batch=7)
    delivery.start()
    until(lambda: state.backlog() == {"webhook": 0}, "all delivered")
    assert server.accepted() == [event.id for event in events]
    delivery.stop(5)


def test_a_new_event_is_delivered_without_waiting_for_the_interval(
    server: Server,
    state: State,
    make_event: Callable[..., Event],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interval is set to a minute, after which the test would have failed."""
    monkeypatch.setattr(module, "_IDLE", 60.0)
    server.start()
    delivery = Delivery(webhook(server.url), Outbox(state))
    delivery.start()
    until(lambda: delivery.connected, "idle")
    for count in range(1, 6):
        state.record([make_event()])
        delivery.wake()
        until(lambda count=count: len(server.accepted()) == count, "it arrives")
    delivery.stop(5)


def test_stop_delivers_the_backlog(server: Server, state: State, make_event: Callable[..., Event]) -> None:
    server.start()
    delivery = Delivery(webhook(server.url), Outbox(state))
    delivery.start()
    events = [make_event() for _ in range(45)]
    state.record(events)
    delivery.stop(20)
    assert state.backlog() == {"webhook": 0}
    assert server.accepted() == [event.id for event in events]


def test_stop_ends_a_pause_and_keeps_the_backlog(
    state: State, free_port: Callable[[], int], make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    state.record([make_event()])
    delivery = Delivery(webhook(f"http://127.0.0.1:{free_port()}"), Outbox(state), longest_pause=10_000)
    before = set(threading.enumerate())
    delivery.start()
    until(lambda: delivery.failure, "connection refused")
    delivery.stop(30)
    assert set(threading.enumerate()) <= before
    assert state.backlog() == {"webhook": 1}


def test_stop_does_not_wait_for_a_silent_server(server: Server, state: State, make_event: Callable[..., Event]) -> None:
    """The server has an hour to answer."""
    server.start()
    server.stall()
    state.record([make_event()])
    delivery = Delivery(webhook(server.url, timeout=3600), Outbox(state))
    delivery.start()
    delivery.stop(0.3)
    assert not server.requests, "the server has not answered yet"
    assert state.backlog() == {"webhook": 1}


def test_stop_before_start_and_twice(server: Server, state: State) -> None:
    Delivery(webhook(server.url), Outbox(state)).stop(1)
    delivery = Delivery(webhook(server.url), Outbox(state))
    delivery.start()
    delivery.stop(5)
    delivery.stop(5)


def test_unreachable_and_back_are_logged_once_each(
    server: Server,
    state: State,
    make_event: Callable[..., Event],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    server.answer = lambda _: 503 if len(server.requests) < 5 else 200
    server.start()
    state.record([make_event()])
    delivery = Delivery(webhook(server.url), Outbox(state), longest_pause=0.1)
    delivery.start()
    until(lambda: state.backlog() == {"webhook": 0}, "delivered")
    until(lambda: delivery.failure is None, "no failure")
    delivery.stop(5)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "HTTP 503" in caplog.text
    assert "delivers again" in caplog.text


def test_a_full_disk_stops_neither_the_thread_nor_the_delivery(
    server: Server,
    small_disk: Path,
    make_event: Callable[..., Event],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    fill: Callable[[Path], Path],
) -> None:
    with State.open(small_disk, channels=["webhook"]) as state:
        outbox = Outbox(state)
        events = [make_event() for _ in range(60)]
        outbox.put(events)
        ballast = fill(small_disk)
        outbox.put([make_event() for _ in range(1000)])
        waiting = outbox.backlog()["webhook"]
        assert waiting == 1060
        server.start()
        delivery = Delivery(webhook(server.url), outbox, longest_pause=0.2)
        delivery.start()
        until(lambda: outbox.backlog() == {"webhook": 0}, "the backlog is delivered")
        ballast.unlink()
        outbox.retry()
        assert state.backlog() == {"webhook": 0}, "and removed when there is space"
        assert delivery.failure is None
        late = make_event()
        outbox.put([late])
        delivery.wake()
        until(lambda: late.id in server.accepted(), "the thread still runs")
        delivery.stop(5)
    assert {event.id for event in events} <= set(server.accepted())
    assert len(server.accepted()) == len(set(server.accepted())), "sent once, though the removal failed at first"
    assert len([record for record in caplog.records if "cannot be written" in record.getMessage()]) <= 1


class _Interrupted:
    """A channel that acknowledges the first two events and then loses the connection, until it is repaired."""

    name = "webhook"
    refusal = ""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.broken = True

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        if batch:
            self.batches.append([event.id for event in batch])
        if self.broken:
            first = len(self.batches) == 1
            raise ChannelError("away", acknowledged=[event.number for event in batch[:2]] if first else [])
        return [event.number for event in batch]

    def close(self) -> None:
        pass


def test_after_a_partly_failed_batch_exactly_the_acknowledged_events_are_removed(
    state: State, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    events = [make_event() for _ in range(5)]
    ids = [event.id for event in events]
    state.record(events)
    channel = _Interrupted()
    delivery = Delivery(channel, Outbox(state), longest_pause=0.05)
    delivery.start()
    until(lambda: len(channel.batches) >= 3, "the rest is retried")
    assert [event.id for event in state.waiting("webhook", limit=10)] == ids[2:]
    channel.broken = False
    until(lambda: state.backlog() == {"webhook": 0}, "delivered")
    delivery.stop(5)
    assert channel.batches[0] == ids
    assert channel.batches[1:3] == [ids[2:3]] * 2, "one by one after a failure"
    sent_later = {id for batch in channel.batches[1:] for id in batch}
    assert sent_later == set(ids[2:]), "no acknowledged event is sent a second time"


def test_an_event_that_makes_the_server_disconnect_blocks_no_other(
    server: Server,
    state: State,
    make_event: Callable[..., Event],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = [make_event() for _ in range(30)]
    poison = events[5].id

    def answer(id: str) -> int:
        if id == poison:
            raise ConnectionResetError
        return 200

    server.answer = answer
    server.start()
    outbox = Outbox(state)
    outbox.put(events)
    delivery = Delivery(webhook(server.url), outbox, longest_pause=0.05)
    delivery.start()
    until(lambda: outbox.backlog() == {"webhook": 1}, "all others are delivered")
    assert set(server.accepted()) == {event.id for event in events} - {poison}
    until(lambda: delivery.set_aside == 1, "it is counted")
    assert delivery.failure
    assert "while later events arrive" in delivery.failure
    assert f"1 events set aside, first {poison}" in caplog.text
    server.answer = lambda _: 200
    until(lambda: outbox.backlog() == {"webhook": 0}, "it is retried later")
    until(lambda: delivery.set_aside == 0, "no longer")
    delivery.stop(5)


def test_no_event_is_set_aside_while_the_server_fails_for_all(
    server: Server, state: State, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    failures = Counter[str]()

    def answer(id: str) -> int:
        failures[id] += 1
        return 503

    server.answer = answer
    server.start()
    events = [make_event() for _ in range(5)]
    outbox = Outbox(state)
    outbox.put(events)
    delivery = Delivery(webhook(server.url), outbox, longest_pause=0.02)
    delivery.start()
    until(lambda: failures[events[0].id] > 12, "the first is retried")
    assert failures[events[1].id] >= 1, "the one behind it was tried"
    assert delivery.set_aside == 0
    assert [each.attempts for each in state.waiting("webhook", limit=10)] == [0] * 5
    server.answer = lambda _: 200
    until(lambda: outbox.backlog() == {"webhook": 0}, "all are delivered")
    delivery.stop(5)


class _Defective:
    """A channel that raises an exception with a secret in its text, until it is repaired."""

    name = "webhook"
    refusal = ""

    def __init__(self) -> None:
        self.broken = True

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        if self.broken:
            raise ValueError("https://robot:hunter2@example.org")
        return [one.number for one in batch]

    def close(self) -> None:
        pass


def test_an_internal_error_of_a_channel_is_reported_without_its_text_and_retried(
    state: State, make_event: Callable[..., Event], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    state.record([make_event()])
    channel = _Defective()
    delivery = Delivery(channel, Outbox(state), longest_pause=0.1)
    delivery.start()
    until(lambda: delivery.failure, "reported")
    assert delivery.failure
    assert f"ValueError at {os.fspath(Path(__file__))}" in delivery.failure
    assert "hunter2" not in delivery.failure + caplog.text
    channel.broken = False
    until(lambda: state.backlog() == {"webhook": 0}, "delivered")
    delivery.stop(5)


def test_refused_events_are_retried_after_growing_delays() -> None:
    delays = [retry_delay(attempts) for attempts in range(1000)]
    assert delays == sorted(delays)
    assert delays[0] < 5
    assert 600 <= delays[-1] <= 3600


# -- with a whole stream


def rejects_in(running: Any) -> list[str]:
    """Ids of the reject events in the log."""
    return [entry["id"] for entry in running.entries("reject")]


def test_every_reject_arrives_although_broker_and_server_were_down_under_load(
    camera: Any,
    in_process: Callable,
    broker: Any,
    watch: Callable,
    server: Any,
    until: Callable,
) -> None:
    broker.start()
    watcher = watch(broker.port)
    server.start()
    running = in_process(camera.url(), mqtt={"host": "127.0.0.1", "port": broker.port}, webhook={"url": server.url})
    running.wait_for("reject", 5)
    until(lambda: watcher.ids() and server.accepted(), "events arrive")
    broker.kill()
    server.stop()
    down = len(rejects_in(running))
    running.wait_for("reject", down + 40)
    broker.start()
    server.start()
    back = len(rejects_in(running))
    running.wait_for("reject", back + 10)
    until(lambda: set(rejects_in(running)[:back]) <= set(watcher.ids()) & set(server.accepted()), "the backlog")
    assert running.stop()
    rejects = rejects_in(running)
    assert len(set(rejects)) == len(rejects)


@pytest.mark.slow
def test_no_recorded_reject_is_lost_when_the_process_is_killed(
    camera: Any, stream: Callable, in_process: Callable, server: Any, until: Callable
) -> None:
    """Killed four times while it writes and the server is down; then the server starts."""
    logs = []
    for _ in range(4):
        running = stream(camera.url(), "--webhook", server.url, "--jsonl", "rows.jsonl")
        running.wait_for("reject", 10)
        running.process.kill()
        running.process.wait()
        logs.append(running)
    server.start()
    running = in_process(camera.url(), webhook={"url": server.url})
    # An event of a camera is logged just before it is recorded: the last one of each process may be missing.
    recorded = {id for log in logs for id in rejects_in(log)[:-1]}
    until(lambda: recorded <= set(server.accepted()), "all recorded events")
    assert running.stop()
    bodies = [json.loads(request.body) for request in server.requests]
    assert len({body["id"] for body in bodies}) == len({(body["id"], body["time"], body["kind"]) for body in bodies})
    assert Counter(body["kind"] for body in bodies)["started"] >= 5


@pytest.fixture
def tiny_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 128 kB: 2 MB cannot be reserved on it."""
    return disk_of("128k")


def test_while_the_disk_of_the_state_is_full_alarms_are_delivered_and_none_is_lost(
    stream: Callable, server: Any, until: Callable, tiny_disk: Path, fill: Callable, toy: ModuleType, save: Callable
) -> None:
    folder = tiny_disk.parent / "in"
    folder.mkdir()
    running = stream(folder, "--webhook", server.url, "--state", tiny_disk)
    running.wait_for("source_up")
    fill(tiny_disk)
    for number in range(80):  # the server is away: the state fills up
        save(folder / f"early {number}.png", toy.draw(200 + number % 10, "scratch"))
    running.wait_for("reject", 80)
    until(lambda: any("wait in memory" in entry["message"] for entry in running.entries()), "the failure is logged")
    fill(tiny_disk)
    server.start()
    save(folder / "late.png", toy.draw(210, "scratch"))
    running.wait_for("reject", 81)
    until(lambda: set(rejects_in(running)) <= set(server.accepted()), "all of them, though the disk is still full")
    assert running.stop() == 0
    assert "stopped" in {json.loads(request.body)["kind"] for request in server.requests}


def test_a_stop_that_loses_events_says_so_and_fails(
    stream: Callable, until: Callable, tiny_disk: Path, fill: Callable, toy: ModuleType, save: Callable, free_port: Any
) -> None:
    """The disk is full and the server is away: what is in memory cannot be kept."""
    folder = tiny_disk.parent / "in"
    folder.mkdir()
    running = stream(folder, "--webhook", f"http://127.0.0.1:{free_port()}", "--state", tiny_disk)
    running.wait_for("source_up")
    fill(tiny_disk)
    for number in range(80):
        save(folder / f"part {number}.png", toy.draw(200 + number % 10, "scratch"))
    running.wait_for("reject", 80)
    until(lambda: any("wait in memory" in entry["message"] for entry in running.entries()), "the failure is logged")
    assert running.stop() == 5
    last = running.log.read_text(encoding="utf-8").splitlines()[-1]
    assert re.fullmatch(r"error: \d+ events are lost \(\d+ reject, 1 stopped\): .* takes nothing, .*", last)


def test_it_ends_although_the_server_accepts_connections_and_does_not_answer(
    in_process: Callable, server: Any, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    """The server has an hour to answer."""
    save(tmp_path / "in" / "part.png", toy.draw(200, "scratch"))
    server.start()
    server.stall()
    running = in_process(tmp_path / "in", webhook={"url": server.url, "timeout": 3600})
    running.wait_for("reject")
    assert running.stop()
    assert server.requests == []
