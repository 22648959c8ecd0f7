import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.config_sections import MqttConfig
from msc_edge.runtime.stream.events import Event, Waiting
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.delivery import ChannelError, Delivery
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
from msc_edge.runtime.stream.state import State

if TYPE_CHECKING:
    from tests.runtime.stream.conftest import Broker, Watcher
else:
    Broker = Watcher = object

PASSWORD = "hunter2-is-secret"
EVENT_TOPIC = "msc-edge/line3/event/reject"
STATUS_TOPIC = "msc-edge/line3/status"


def channel_to(
    port: int, *, sources: tuple[str, ...] = ("cam1",), station: str = "line3", **config: object
) -> MqttChannel:
    settings = {"host": "127.0.0.1", "port": port, "timeout": 5, **config}
    return MqttChannel(MqttConfig.model_validate(settings), station, sources)


def waiting(event: Event, number: int = 1) -> Waiting:
    body = event.model_dump_json().encode()
    return Waiting(number=number, id=event.id, kind=event.kind, source=event.source, body=body, attempts=0)


def test_events_arrive_byte_for_byte_in_order_and_are_not_retained(
    broker: Broker, watch: Callable[..., Watcher], make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    broker.start()
    watcher = watch(broker.port)
    batch = [waiting(make_event(), number) for number in range(40)]
    channel = channel_to(broker.port)
    assert channel.deliver(batch) == list(range(40))
    until(lambda: len(watcher.on(EVENT_TOPIC)) == 40, "all arrive")
    assert watcher.on(EVENT_TOPIC) == [one.body for one in batch]
    assert channel.deliver([waiting(make_event("source_lost"), 41)]) == [41]
    until(lambda: watcher.on("msc-edge/line3/event/source_lost"), "each kind has its topic")
    channel.close()
    late = watch(broker.port, name="late")
    until(lambda: late.on(STATUS_TOPIC), "the status is retained")
    assert [one.topic for one in late.received] == [STATUS_TOPIC]


def test_the_status_is_online_and_at_the_end_offline(
    broker: Broker, watch: Callable[..., Watcher], until: Callable[..., None]
) -> None:
    broker.start()
    watcher = watch(broker.port)
    channel = channel_to(broker.port, topic="factory/hall 2".replace(" ", "-"))
    channel.deliver([])
    until(lambda: watcher.on("factory/hall-2/line3/status") == [b"online"], "online")
    channel.close()
    until(lambda: watcher.on("factory/hall-2/line3/status") == [b"online", b"offline"], "offline")


def test_the_last_will_is_published_when_the_process_is_killed(
    broker: Broker, watch: Callable[..., Watcher], until: Callable[..., None]
) -> None:
    broker.start()
    watcher = watch(broker.port)
    script = f"""
from msc_edge.runtime.stream.config import MqttConfig
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.sinks.mqtt import MqttChannel
channel = MqttChannel(MqttConfig(host="127.0.0.1", port={broker.port}), "line3", [])
channel.deliver([])
print("connected", flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"connected\n"
        until(lambda: watcher.on(STATUS_TOPIC) == [b"online"], "online")
        process.send_signal(signal.SIGKILL)
    until(lambda: watcher.on(STATUS_TOPIC) == [b"online", b"offline"], "the broker publishes the will")
    late = watch(broker.port, name="late")
    until(lambda: late.on(STATUS_TOPIC) == [b"offline"], "and retains it")


def test_a_second_stream_of_the_same_name_is_reported(broker: Broker, until: Callable[..., None]) -> None:
    broker.start()
    first, second = channel_to(broker.port), channel_to(broker.port)
    first.deliver([])
    second.deliver([])
    failures: list[str] = []

    def disconnected() -> bool:
        try:
            first.deliver([])
        except ChannelError as error:
            failures.append(str(error))
        return bool(failures)

    until(disconnected, "the broker disconnects the first")
    assert "`station`" in failures[0]
    second.deliver([])
    second.close()


def test_events_wait_for_a_broker_that_is_down_at_the_start(
    broker: Broker, tmp_path: Path, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    events = [make_event() for _ in range(30)]
    with State.open(tmp_path / "state", channels=["mqtt"]) as state:
        state.record(events)
        delivery = Delivery(channel_to(broker.port), Outbox(state), longest_pause=0.5)
        delivery.start()
        until(lambda: delivery.failure, "connection refused")
        assert not delivery.connected
        assert state.backlog() == {"mqtt": 30}
        broker.start()
        until(lambda: state.backlog() == {"mqtt": 0}, "delivered")
        assert delivery.connected
        assert delivery.failure is None
        delivery.stop(5)


def test_an_event_larger_than_the_brokers_maximum_is_set_aside_and_blocks_no_other(
    broker: Broker,
    tmp_path: Path,
    watch: Callable[..., Watcher],
    make_event: Callable[..., Event],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The broker disconnects a client that sends it. MQTT 5 names the maximum when it connects."""
    broker.start("max_packet_size 2000")
    watcher = watch(broker.port)
    events = [make_event() for _ in range(30)]
    events[7] = events[7].model_copy(update={"message": "x" * 2000})
    with State.open(tmp_path / "state", channels=["mqtt"]) as state:
        outbox = Outbox(state)
        outbox.put(events)
        delivery = Delivery(channel_to(broker.port), outbox, longest_pause=0.5)
        delivery.start()
        until(lambda: outbox.backlog() == {"mqtt": 1}, "all others are delivered")
        until(lambda: delivery.set_aside == 1, "it is counted")
        assert watcher.ids() == [event.id for event in events if event is not events[7]]
        assert delivery.failure
        assert "larger than the broker's maximum packet size, 2000" in delivery.failure
        delivery.stop(5)
        assert outbox.backlog() == {"mqtt": 1}, "it is kept"
    assert f"1 events set aside, first {events[7].id}" in caplog.text


@pytest.mark.parametrize("failure", ["kill", "suspend"])
def test_no_event_is_lost_when_the_broker_fails_under_load(
    broker: Broker,
    tmp_path: Path,
    watch: Callable[..., Watcher],
    make_event: Callable[..., Event],
    until: Callable[..., None],
    failure: str,
) -> None:
    broker.start()
    watcher = watch(broker.port)
    events = [make_event() for _ in range(300)]
    with State.open(tmp_path / "state", channels=["mqtt"]) as state:
        delivery = Delivery(channel_to(broker.port, timeout=0.5), Outbox(state), longest_pause=0.5)
        delivery.start()
        for index, event in enumerate(events):
            state.record([event])
            delivery.wake()
            if index == 100:
                until(lambda: len(watcher.ids()) > 20, "the first events arrive")
                broker.kill() if failure == "kill" else broker.suspend()
            if index == 200:
                until(lambda: not delivery.connected, "the loss is noticed")
                broker.start() if failure == "kill" else broker.resume()
        until(lambda: state.backlog() == {"mqtt": 0}, "the outbox is empty")
        until(lambda: set(watcher.ids()) == {event.id for event in events}, "each event arrived")
        late = watch(broker.port, name="late")
        until(lambda: late.on(STATUS_TOPIC), "the status is retained")
        until(lambda: late.on(STATUS_TOPIC)[-1] == b"online", "the old connection's will does not come last")
        delivery.stop(5)
    assert [event.id for event in events] == list(dict.fromkeys(watcher.ids())), "oldest first"


def test_an_idle_connection_is_restored(
    broker: Broker,
    tmp_path: Path,
    watch: Callable[..., Watcher],
    until: Callable[..., None],
) -> None:
    """Without an event for hours, the status must still be correct."""
    broker.start()
    watcher = watch(broker.port)
    with State.open(tmp_path / "state", channels=["mqtt"]) as state:
        delivery = Delivery(channel_to(broker.port), Outbox(state), longest_pause=0.5)
        delivery.start()
        until(lambda: watcher.on(STATUS_TOPIC) == [b"online"], "online")
        broker.kill()
        until(lambda: not delivery.connected, "noticed without an event")
        broker.start()
        until(lambda: watcher.on(STATUS_TOPIC)[-2:] == [b"online", b"online"], "online again")
        delivery.stop(5)
    until(lambda: watcher.on(STATUS_TOPIC)[-1] == b"offline", "offline at the end")


def test_a_wrong_password_is_reported_without_repeating_it(
    broker: Broker,
    tmp_path: Path,
    make_event: Callable[..., Event],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = tmp_path / "passwords"
    subprocess.run([tool, "-b", "-c", passwords, "robot", "right"], check=True)
    broker.start("allow_anonymous false", f"password_file {passwords}")
    with State.open(tmp_path / "state", channels=["mqtt"]) as state:
        state.record([make_event()])
        wrong = channel_to(broker.port, username="robot", password=SecretStr(PASSWORD))
        delivery = Delivery(wrong, Outbox(state), longest_pause=0.2)
        delivery.start()
        until(lambda: delivery.failure, "refused")
        assert delivery.failure
        assert "check `username` and `password`" in delivery.failure
        delivery.stop(5)
        assert state.backlog() == {"mqtt": 1}
        assert PASSWORD not in caplog.text + delivery.failure

        right = Delivery(channel_to(broker.port, username="robot", password=SecretStr("right")), Outbox(state))
        right.start()
        until(lambda: state.backlog() == {"mqtt": 0}, "delivered with the right one")
        right.stop(5)


def test_an_event_that_the_broker_forbids_is_not_delivered(
    broker: Broker, tmp_path: Path, make_event: Callable[..., Event], caplog: pytest.LogCaptureFixture
) -> None:
    """With MQTT 3.1.1 a broker acknowledges what it discards."""
    rules = tmp_path / "acl"
    rules.write_text(f"topic write {EVENT_TOPIC}\n")
    broker.start(f"acl_file {rules}")
    channel = channel_to(broker.port)
    batch = [waiting(make_event("reject"), 1), waiting(make_event("source_up"), 2), waiting(make_event("reject"), 3)]
    assert channel.deliver(batch) == [1, 3]
    assert "the permissions of this user" in channel.refusal
    assert f"forbids to publish {STATUS_TOPIC}" in caplog.text
    channel.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_needs_a_trusted_certificate(
    broker: Broker, tmp_path: Path, make_event: Callable[..., Event], trusted: bool
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    broker.start(f"keyfile {key}", f"certfile {certificate}")
    channel = channel_to(broker.port, tls=True, ca_file=certificate if trusted else None)
    if trusted:
        assert channel.deliver([waiting(make_event())]) == [1]
        channel.close()
    else:
        with pytest.raises(ChannelError, match=r"certificate is not accepted.*`ca_file`"):
            channel.deliver([waiting(make_event())])


def test_tls_to_a_port_without_it_is_reported(broker: Broker) -> None:
    broker.start()
    with pytest.raises(ChannelError, match=r"TLS|disconnected"):
        channel_to(broker.port, tls=True).deliver([])


def test_a_broker_without_mqtt_5_gets_3_1_1() -> None:
    versions: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as old:

        def serve() -> None:
            for _ in range(2):
                connection, _ = old.accept()
                with connection:
                    # Fixed header and length, the name "MQTT" with its length, then the version.
                    versions.append(connection.recv(1000)[8])
                    connection.sendall(b"\x20\x02\x00\x01")  # refused: unacceptable protocol version

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        channel = channel_to(old.getsockname()[1])
        for _ in range(2):
            with pytest.raises(ChannelError, match=r"Unsupported protocol version|Protocol error"):
                channel.deliver([])
        thread.join(20)
    assert versions == [5, 4]


def test_home_assistant_discovers_each_source_and_its_states(
    broker: Broker, watch: Callable[..., Watcher], make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    broker.start()
    sources = ("cam1", "hall.2")
    channel = channel_to(broker.port, sources=sources, style="home-assistant")
    channel.deliver([waiting(make_event("source_up"), 1), waiting(make_event("source_frozen", "hall.2"), 2)])
    watcher = watch(broker.port)
    until(lambda: len(watcher.received) >= 7, "status, four sensors and two states are retained")
    configs = {one.topic: json.loads(one.payload) for one in watcher.received if one.topic.startswith("homeassistant/")}
    states = {one.topic: one.payload for one in watcher.received if "/source/" in one.topic}
    assert len(configs) == 4
    assert len({config["unique_id"] for config in configs.values()}) == 4
    assert len({json.dumps(config["device"]) for config in configs.values()}) == 1
    for topic, config in configs.items():
        prefix, component, *ids, last = topic.split("/")
        assert (prefix, component, last) == ("homeassistant", "binary_sensor", "config")
        # Home Assistant ignores a topic with any other character.
        assert len(ids) == 2
        assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for one in ids)
        assert config["availability_topic"] == STATUS_TOPIC
        assert config["device"]["identifiers"]
        assert config["device"]["name"] == "line3"
        assert config["origin"]["name"] == "msc-edge"
        assert config["name"]
    rejects = [config for config in configs.values() if config["device_class"] == "problem"]
    assert {config["state_topic"] for config in rejects} == {EVENT_TOPIC}
    assert all(config["off_delay"] > 0 for config in rejects)
    assert {source for source in sources for config in rejects if f'"{source}"' in config["value_template"]} == set(
        sources
    )
    connections = {c["name"]: c["state_topic"] for c in configs.values() if c["device_class"] == "connectivity"}
    assert states == {connections["cam1 connection"]: b"ON", connections["hall.2 connection"]: b"OFF"}
    channel.close()


def test_plain_style_publishes_nothing_for_home_assistant(
    broker: Broker, watch: Callable[..., Watcher], make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    broker.start()
    watcher = watch(broker.port)
    channel = channel_to(broker.port)
    channel.deliver([waiting(make_event("source_up"))])
    channel.close()
    until(lambda: watcher.on(STATUS_TOPIC) == [b"online", b"offline"], "online and offline")
    assert {one.topic for one in watcher.received} == {STATUS_TOPIC, "msc-edge/line3/event/source_up"}


@pytest.mark.parametrize("host", ["", f"mqtt://robot:{PASSWORD}@broker", f"robot:{PASSWORD}@broker", "a b"])
def test_a_value_that_is_not_a_host_is_refused_without_repeating_it(host: str) -> None:
    with pytest.raises(UsageError, match=r"mqtt\.host: expected a name or address only") as caught:
        check_config({"kit": "k", "source": [{"address": "0"}], "mqtt": {"host": host}})
    assert PASSWORD not in str(caught.value)


def test_a_file_that_is_not_a_ca_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    for path in (broken, tmp_path / "missing.pem"):
        with pytest.raises(UsageError, match=path.name):
            channel_to(8883, tls=True, ca_file=path)
