"""Triggers by MQTT: a message on one topic asks for a frame, a message on another one has its row."""

import socket
from contextlib import suppress
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from msc_edge.runtime.stream.config_sections import MqttConfig
from msc_edge.runtime.stream.logs import FailureLog
from msc_edge.runtime.stream.sinks.mqtt import tls_context, with_remedy
from msc_edge.runtime.stream.triggers.answer import Answer
from msc_edge.runtime.stream.triggers.message import parse_message
from msc_edge.runtime.stream.triggers.pending import Triggers

_KEEP_ALIVE = 10  # seconds; a dead connection must be seen soon, because no trigger arrives by it
_MOST_QUEUED = 5000  # answers that wait for the broker, some megabytes; further ones are lost
_CLOSE_TIMEOUT = 1.0  # seconds to deliver the last answers
_REFUSED = 0x80  # smallest reason code that is a failure


class MqttInput:
    """Takes triggers from `BASE/trigger`, where BASE is `<topic>/<station>`, and publishes answers on `BASE/answer`.

    The session is a clean one: the broker keeps no trigger for later, when the part is gone. A retained trigger is an
    old one, and is refused. Has a connection and a thread of its own, apart from those of the events.
    """

    def __init__(self, config: MqttConfig, station: str, triggers: Triggers) -> None:
        """Connect in the background, and again whenever the connection is lost. UsageError for an unusable ca_file."""
        assert config.host, "checked with the configuration"
        base = f"{config.topic}/{station}"
        self._trigger_topic, self._answer_topic = f"{base}/trigger", f"{base}/answer"
        self._where = f"{config.host}:{config.port}"
        self._triggers = triggers
        self._failures = FailureLog(f"trigger: {self._where}: triggers arrive again")
        self._last: MQTTMessageInfo | None = None
        self.failure = f"{self._where}: not connected yet"
        """Why no triggers can arrive; empty while they can."""
        self._client = client = Client(CallbackAPIVersion.VERSION2, client_id=f"msc-edge-{station}-trigger")
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        client.on_socket_open = _send_at_once
        client.connect_timeout = config.timeout
        client.reconnect_delay_set(1, 10)
        client.max_queued_messages_set(_MOST_QUEUED)
        password = config.password.get_secret_value() if config.password else None
        if config.username is not None or password is not None:
            client.username_pw_set(config.username, password)
        if tls := tls_context(config):
            client.tls_set_context(tls)
        client.connect_async(config.host, config.port, keepalive=_KEEP_ALIVE)
        client.loop_start()

    def close(self) -> None:
        """Deliver the last answers, and disconnect."""
        if self._last and self._client.is_connected():
            with suppress(ValueError, RuntimeError):  # it was not queued, or the connection is lost
                self._last.wait_for_publish(_CLOSE_TIMEOUT)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            trigger = parse_message(bytes(message.payload))
        except ValueError as error:
            self._publish(Answer("", None, "invalid", 0.0, error=str(error)))
            return
        if message.retain:
            error = "a retained trigger is an old one; publish triggers without `retain`"
            self._publish(Answer(trigger.id, trigger.source, "invalid", 0.0, error=error))
            return
        self._triggers.ask(trigger.id, trigger.source, self._publish)

    def _publish(self, answer: Answer) -> None:
        self._last = self._client.publish(self._answer_topic, answer.as_json(), qos=1)

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._fail(f"connection refused: {with_remedy(reason.getName())}")
        else:
            client.subscribe(self._trigger_topic, qos=1)

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _: Any) -> None:
        if any(reason.value >= _REFUSED for reason in reasons):
            self._fail(f"subscribing to {self._trigger_topic} is forbidden; allow it at the broker")
            return
        self.failure = ""
        self._failures.recovered()

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        self._fail("no connection; check `host` and `port` in [mqtt]")

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._fail("the connection was lost")

    def _fail(self, reason: str) -> None:
        self.failure = f"{self._where}: {reason}"
        self._failures.report_failure(f"trigger: {self.failure}; no triggers arrive, trying again")


def _send_at_once(_client: Client, _data: Any, opened: Any) -> None:
    """Without this, TCP holds an answer back until the broker has confirmed what was sent before, for up to 40 ms."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
