import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.config import MqttConfig, WebhookConfig
from msc_edge.runtime.stream.events import Event
from msc_edge.runtime.stream.sinks.delivery import Channel, Delivery, delay_after
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
from msc_edge.runtime.stream.sinks.webhook import WebhookChannel
from msc_edge.runtime.stream.state import State, Waiting

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


def test_the_channels_are_what_delivery_asks_for() -> None:
    channels: list[Channel] = [MqttChannel(MqttConfig(host="broker"), "line3", []), webhook("http://server")]
    assert [channel.name for channel in channels] == ["mqtt", "webhook"]


def test_the_oldest_arrives_first_over_several_batches(
    server: Server, state: State, make_event: Callable[..., Event], eventually: Callable[..., None]
) -> None:
    server.start()
    events = [make_event() for _ in range(50)]
    state.record(events)
    delivery = Delivery(webhook(server.url), state, batch=7)
    delivery.start()
    eventually(lambda: state.depth() == {"webhook": 0}, "all delivered")
    assert server.accepted() == [event.id for event in events]
    delivery.stop(5)


def test_a_new_event_wakes_it(
    server: Server, state: State, make_event: Callable[..., Event], eventually: Callable[..., None]
) -> None:
    """Twenty events one after the other, each awaited: with looks at the outbox alone that would take 20 s."""
    server.start()
    delivery = Delivery(webhook(server.url), state)
    delivery.start()
    eventually(lambda: delivery.connected, "idle")
    began = time.monotonic()
    for count in range(1, 21):
        state.record([make_event()])
        delivery.wake()
        eventually(lambda count=count: len(server.accepted()) == count, "it arrives")
    assert time.monotonic() - began < 15
    delivery.stop(5)


def test_stop_delivers_what_waits(server: Server, state: State, make_event: Callable[..., Event]) -> None:
    server.start()
    delivery = Delivery(webhook(server.url), state)
    delivery.start()
    events = [make_event() for _ in range(45)]
    state.record(events)
    delivery.stop(20)
    assert state.depth() == {"webhook": 0}
    assert server.accepted() == [event.id for event in events]


def test_stop_ends_a_pause_and_keeps_what_waits(
    state: State, unused_port: int, make_event: Callable[..., Event], eventually: Callable[..., None]
) -> None:
    state.record([make_event()])
    delivery = Delivery(webhook(f"http://127.0.0.1:{unused_port}"), state, longest_pause=10_000)
    before = set(threading.enumerate())
    delivery.start()
    eventually(lambda: delivery.trouble, "nobody listens")
    delivery.stop(30)
    assert set(threading.enumerate()) <= before
    assert state.depth() == {"webhook": 1}


def test_stop_does_not_wait_for_a_silent_server(server: Server, state: State, make_event: Callable[..., Event]) -> None:
    server.start()
    server.stall()
    state.record([make_event()])
    delivery = Delivery(webhook(server.url, timeout=30), state)
    delivery.start()
    began = time.monotonic()
    delivery.stop(0.5)
    assert time.monotonic() - began < 15
    assert state.depth() == {"webhook": 1}


def test_stop_before_start_and_twice(server: Server, state: State) -> None:
    Delivery(webhook(server.url), state).stop(1)
    delivery = Delivery(webhook(server.url), state)
    delivery.start()
    delivery.stop(5)
    delivery.stop(5)


def test_unreachable_and_back_are_logged_once_each(
    server: Server,
    state: State,
    make_event: Callable[..., Event],
    eventually: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    server.answer = lambda _: 503 if len(server.requests) < 5 else 200
    server.start()
    state.record([make_event()])
    delivery = Delivery(webhook(server.url), state, longest_pause=0.1)
    delivery.start()
    eventually(lambda: state.depth() == {"webhook": 0}, "delivered")
    eventually(lambda: delivery.trouble is None, "no trouble")
    delivery.stop(5)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "HTTP 503" in caplog.text
    assert "delivers again" in caplog.text


def test_a_full_disk_stops_neither_the_thread_nor_delivery(
    server: Server,
    small_disk: Path,
    make_event: Callable[..., Event],
    eventually: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    fill: Callable[[Path], Path],
) -> None:
    with State.open(small_disk, channels=["webhook"]) as state:
        events = [make_event() for _ in range(60)]
        state.record(events)
        ballast = fill(small_disk)
        with pytest.raises(OutputError, match="free some space"):
            state.record([make_event() for _ in range(5000)])
        fill(small_disk)
        waiting = state.depth()["webhook"]
        server.start()
        delivery = Delivery(webhook(server.url), state, longest_pause=0.2)
        delivery.start()
        eventually(lambda: delivery.trouble or not state.depth()["webhook"], "trouble with the disk, or a way round it")
        eventually(lambda: len(set(server.accepted())) == waiting, "what waits is delivered all the same")
        ballast.unlink()
        eventually(lambda: state.depth() == {"webhook": 0}, "and removed once there is space")
        eventually(lambda: delivery.trouble is None, "no trouble")
        late = make_event()
        state.record([late])
        delivery.wake()
        eventually(lambda: late.id in server.accepted(), "the thread lives")
        delivery.stop(5)
    assert {event.id for event in events} <= set(server.accepted())
    assert len(server.accepted()) == len(set(server.accepted())), "sent once, though the removal failed at first"
    assert len([record for record in caplog.records if "cannot be written" in record.getMessage()]) <= 1


def test_a_state_that_is_gone_does_not_kill_the_thread(
    server: Server, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    state = State.open(tmp_path / "state", channels=["webhook"])
    delivery = Delivery(webhook(server.url), state)
    delivery.start()
    eventually(lambda: delivery.connected, "idle")
    state.close()
    eventually(lambda: delivery.trouble and "cannot be read" in delivery.trouble, "told")
    delivery.stop(5)


class _Defect:
    """A channel with a bug that shows a secret in its exception, until it is repaired."""

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


def test_a_defect_of_a_channel_is_told_without_its_text_and_tried_again(
    state: State, make_event: Callable[..., Event], eventually: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    state.record([make_event()])
    channel = _Defect()
    delivery = Delivery(channel, state, longest_pause=0.1)
    delivery.start()
    eventually(lambda: delivery.trouble, "told")
    assert delivery.trouble
    assert f"ValueError at {os.fspath(Path(__file__))}" in delivery.trouble
    assert "hunter2" not in delivery.trouble + caplog.text
    channel.broken = False
    eventually(lambda: state.depth() == {"webhook": 0}, "delivered")
    delivery.stop(5)


def test_refused_events_are_tried_again_ever_more_rarely() -> None:
    delays = [delay_after(attempts) for attempts in range(1000)]
    assert delays == sorted(delays)
    assert delays[0] < 5
    assert 600 <= delays[-1] <= 3600
