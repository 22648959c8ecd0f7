"""Triggers by MQTT: a real broker, a real stream, and a camera whose parts the test changes."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.reloading import Reloader, ReloadResult

if TYPE_CHECKING:
    from tests.runtime.stream.conftest import Broker, Watcher
else:
    Broker = Watcher = object

TRIGGER, ANSWER = "msc-edge/line3/trigger", "msc-edge/line3/answer"


@pytest.fixture
def asker(broker: Broker) -> Iterator[Client]:
    """A program that publishes triggers."""
    broker.start()
    client = Client(CallbackAPIVersion.VERSION2, client_id="asker")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def by_mqtt(
    broker: Broker, asker: Client, triggered: Callable[..., Any], until: Callable[..., Any]
) -> Callable[..., Any]:
    """Start a stream that takes triggers."""

    def start(**trigger: Any) -> Any:
        mqtt = {"host": "127.0.0.1", "port": broker.port}
        running = triggered("mqtt", options={"mqtt": mqtt, "station": "line3"}, **trigger)
        until(lambda: running.stream._trigger_input.failure == "", "triggers arrive")
        return running

    assert asker
    return start


def answers_in(watcher: Watcher) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in watcher.on(ANSWER)]


def test_each_part_gets_its_own_verdict(
    by_mqtt: Callable[..., Any],
    asker: Client,
    broker: Broker,
    watch: Callable[..., Watcher],
    part_camera: Any,
    good_part: np.ndarray,
    stained_part: np.ndarray,
    until: Callable[..., Any],
) -> None:
    running = by_mqtt()
    watcher = watch(broker.port)
    for number in range(6):
        part_camera.show(stained_part if number % 2 else good_part)
        asker.publish(TRIGGER, json.dumps({"id": f"part-{number}"}), qos=1)
        until(lambda number=number: len(watcher.on(ANSWER)) == number + 1, "an answer")
    found = answers_in(watcher)
    assert [(each["trigger"], each["status"]) for each in found] == [(f"part-{n}", "scored") for n in range(6)]
    assert [each["verdict"] == "reject" for each in found] == [False, True] * 3
    assert running.wait_for("reject")["trigger"] == "part-1"


@pytest.mark.parametrize(
    ("payload", "retain", "trigger", "status"),
    [
        (b"part-1", False, "", "invalid"),
        (b'{"id": "a b"}', False, "a b", "invalid"),
        (b'{"id": "part-1", "source": "other"}', False, "part-1", "unknown_source"),
    ],
)
def test_what_cannot_be_scored_is_answered_too(
    by_mqtt: Callable[..., Any],
    asker: Client,
    broker: Broker,
    watch: Callable[..., Watcher],
    until: Callable[..., Any],
    payload: bytes,
    retain: bool,
    trigger: str,
    status: str,
) -> None:
    by_mqtt()
    watcher = watch(broker.port)
    asker.publish(TRIGGER, payload, qos=1, retain=retain)
    (answer,) = until(lambda: answers_in(watcher), "an answer")
    assert (answer["trigger"], answer["status"], answer["verdict"]) == (trigger, status, None)
    assert answer["error"]


def test_a_trigger_from_before_the_start_is_never_scored(
    by_mqtt: Callable[..., Any], asker: Client, broker: Broker, watch: Callable[..., Watcher], until: Callable[..., Any]
) -> None:
    """The part is gone; a retained one comes with each connection."""
    watcher = watch(broker.port)
    asker.publish(TRIGGER, json.dumps({"id": "old"}), qos=1, retain=True).wait_for_publish(20)
    running = by_mqtt()
    (answer,) = until(lambda: answers_in(watcher), "an answer")
    assert (answer["trigger"], answer["status"]) == ("old", "invalid")
    assert running.stream._parts.statistics.frames == 0


def test_a_broker_that_is_away_is_in_readyz_and_triggers_arrive_when_it_is_back(
    by_mqtt: Callable[..., Any], asker: Client, broker: Broker, watch: Callable[..., Watcher], until: Callable[..., Any]
) -> None:
    running = by_mqtt()
    watcher = watch(broker.port)
    broker.kill()
    until(lambda: any("no triggers arrive" in reason for reason in running.stream.not_ready()), "not ready")
    broker.start()
    until(lambda: running.stream._trigger_input.failure == "", "triggers arrive again")
    until(asker.is_connected, "the asker is back")
    asker.publish(TRIGGER, json.dumps({"id": "part-1"}), qos=1)
    until(lambda: [each["status"] for each in answers_in(watcher)] == ["scored"], "a verdict")


def test_a_flood_is_answered_and_parts_are_scored_meanwhile(
    by_mqtt: Callable[..., Any], asker: Client, broker: Broker, watch: Callable[..., Watcher], until: Callable[..., Any]
) -> None:
    by_mqtt()
    watcher = watch(broker.port)
    for number in range(300):
        asker.publish(TRIGGER, json.dumps({"id": f"part-{number}"}), qos=1)
    until(lambda: len(watcher.on(ANSWER)) >= 300, "an answer to each")
    statuses = [each["status"] for each in answers_in(watcher)]
    assert len(statuses) == 300
    assert set(statuses) == {"scored", "busy"}


def test_without_a_broker_the_configuration_is_refused(triggered: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"mqtt needs `host` in \[mqtt\]"):
        triggered("mqtt")


def test_a_reload_keeps_the_triggers_and_refuses_another_broker(
    by_mqtt: Callable[..., Any], asker: Client, broker: Broker, watch: Callable[..., Watcher], until: Callable[..., Any]
) -> None:
    running = by_mqtt()
    watcher = watch(broker.port)
    config = running.stream._parts.config
    other = config.model_copy(update={"mqtt": config.mqtt.model_copy(update={"timeout": 3.0})})
    results: list[ReloadResult] = []
    for reread in (config, other):
        Reloader(running.stream._parts, reread=lambda reread=reread: reread).start(results.append)
        until(lambda reread=reread: len(results) == 1 + (reread is other), "the reload has ended")
    assert [each.loaded for each in results] == [True, False]
    assert "restart the stream to change [mqtt]" in results[1].message
    asker.publish(TRIGGER, json.dumps({"id": "part-1"}), qos=1)
    until(lambda: [each["status"] for each in answers_in(watcher)] == ["scored"], "a verdict")
