"""Delivers events by MQTT."""

import ssl
import time
from collections.abc import Collection, Sequence

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import MqttConfig
from msc_edge.runtime.stream.events import SCORED_AFTER, Waiting
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sinks.delivery import ChannelError
from msc_edge.runtime.stream.sinks.home_assistant import OFFLINE, ONLINE, connection_topic, discovery

# Seconds of silence until a ping. The broker publishes the will after 1.5 times this.
_KEEP_ALIVE = 30
# Messages without acknowledgement at one time. Some brokers, HiveMQ for one, disconnect a client with more than ten.
_IN_FLIGHT = 10
_PACKET_OVERHEAD = 16  # bytes of a PUBLISH packet without topic and payload, at most
_REMEDIES = {
    "Bad user name or password": "check `username` and `password` in [mqtt]",
    "Not authorized": "check `username` and `password` in [mqtt], and the permissions of this user at the broker",
    "Session taken over": "another stream has the same name at this broker; give each its own `station`",
}


class MqttChannel:
    """Publishes to one broker, with QoS 1. The topics, where BASE is `<topic>/<station>`:

    - `BASE/event/<kind>`: each event, as in docs/event.schema.json; not retained.
    - `BASE/status`: `online` or `offline`, retained. It is the last will too: the broker publishes `offline` 45 s
      after a power cut or a cable was unplugged, and at once when the process was killed.

    With style "home-assistant" also, retained:
    - `BASE/source/<source>`: `ON` while frames of the source are scored, `OFF` after source_lost, source_frozen and
      source_ended.
    - `homeassistant/binary_sensor/<station>/<source>_reject/config` and `.../<source>_connection/config`: discovery,
      one message for each sensor, all of one device. "Reject" (device class problem) is on for 5 s after a reject
      event; "connection" (connectivity) shows `BASE/source/<source>`. Characters that discovery does not allow in a
      topic become `_` and eight hex digits.

    The client id contains the station's name: give each stream at a broker its own. The protocol is MQTT 5, whose
    acknowledgements report a forbidden topic, or 3.1.1 if the broker does not support 5.

    Has no thread of its own: call `deliver` every few seconds, with an empty batch when there is no event. A connection
    that fails is closed with all messages that paho has queued; the outbox still has them.
    """

    name = "mqtt"

    def __init__(self, config: MqttConfig, station: str, sources: Sequence[str]) -> None:
        """Connects at the first `deliver`. Raises UsageError for a host or a ca_file that cannot be used."""
        if not config.host:
            raise UsageError("[mqtt] has no `host`; name the broker")
        self._config = config
        self._host = config.host
        self._where = f"{config.host}:{config.port}"
        self._tls = tls_context(config)
        self._station = station
        self._base = f"{config.topic}/{station}"
        self._sources = tuple(sources)
        self._home_assistant = config.style == "home-assistant"
        # Published after each reconnect: a broker may lose retained messages when it restarts.
        self._scored: dict[str, bool] = {}
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._client: Client | None = None
        self._connect_reason: ReasonCode | None = None
        self._disconnect_reason: ReasonCode | None = None
        self._acknowledgements: dict[int, ReasonCode] = {}
        self._max_packet: int | None = None  # bytes that the broker accepts; None: it has not named a limit
        self.refusal = ""

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        """Publish all, then wait up to `timeout` seconds for each acknowledgement; see Channel."""
        if self._client is None:
            self._client = self._connect()
        client = self._client
        try:
            self._loop(client, 0)
            self._acknowledgements = {}
            messages = {event.number: self._publish_event(client, event) for event in batch if self._fits(event)}
            try:
                self._wait_for({mid for mids in messages.values() for mid in mids}, client)
            except ChannelError as error:
                raise ChannelError(error.reason, acknowledged=self._accepted(messages)) from error
        except BaseException:
            # Without a DISCONNECT, so that the broker publishes the will if there is no reconnect.
            self._client = None
            _close_socket(client)
            raise
        return self._accepted(messages)

    def close(self) -> None:
        """Publish `offline` and disconnect. Without an acknowledgement in a second, the broker publishes the will."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            self._acknowledgements = {}
            self._wait_for({self._publish(client, f"{self._base}/status", OFFLINE, retain=True)}, client, seconds=1)
            client.disconnect()
        except ChannelError:
            pass
        finally:
            _close_socket(client)

    def _connect(self) -> Client:
        # Message numbers restart: acknowledgements of the previous connection must not count.
        self._connect_reason, self._disconnect_reason, self._acknowledgements = None, None, {}
        self._max_packet = None
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"msc-edge-{self._station}",
            protocol=self._protocol,
            reconnect_on_failure=False,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.connect_timeout = self._config.timeout
        client.max_inflight_messages = _IN_FLIGHT
        client.will_set(f"{self._base}/status", OFFLINE, qos=1, retain=True)
        password = self._config.password.get_secret_value() if self._config.password else None
        if self._config.username is not None or password is not None:
            client.username_pw_set(self._config.username, password)
        if self._tls:
            client.tls_set_context(self._tls)
        try:
            client.connect(self._host, self._config.port, keepalive=_KEEP_ALIVE)
            deadline = time.monotonic() + self._config.timeout
            while self._connect_reason is None:
                if (left := deadline - time.monotonic()) <= 0:
                    raise self._error("connected, and no answer; is an MQTT broker at this port?")
                self._loop(client, left)
            self._check(self._connect_reason)
            topics = {self._publish(client, *message, retain=True): message[0] for message in self._retained()}
            self._wait_for(topics, client)
        except BaseException as error:
            _close_socket(client)
            if isinstance(error, (OSError, UnicodeError)):
                raise self._error(_description(error)) from error
            raise
        if forbidden := [topics[mid] for mid, reason in self._acknowledgements.items() if reason.is_failure]:
            LOG.warning("mqtt: %s forbids to publish %s; allow it at the broker", self._where, ", ".join(forbidden))
        return client

    def _retained(self) -> list[tuple[str, bytes]]:
        """The retained messages: topic and payload."""
        messages = [(f"{self._base}/status", ONLINE)]
        if self._home_assistant:
            for source in self._sources:
                messages += discovery(self._base, self._station, source)
            messages += [self._connection_message(source) for source in self._scored]
        return messages

    def _connection_message(self, source: str) -> tuple[str, bytes]:
        return connection_topic(self._base, source), b"ON" if self._scored[source] else b"OFF"

    def _fits(self, event: Waiting) -> bool:
        """Whether the broker accepts an event of this size; a larger one would make it disconnect."""
        size = len(event.body) + len(self._topic_of(event).encode()) + _PACKET_OVERHEAD
        if self._max_packet is None or size <= self._max_packet:
            return True
        self.refusal = (
            f"{self._where}: an event of {len(event.body)} bytes is larger than the broker's maximum packet size, "
            f"{self._max_packet}; raise it at the broker"
        )
        return False

    def _topic_of(self, event: Waiting) -> str:
        return f"{self._base}/event/{event.kind}"

    def _publish_event(self, client: Client, event: Waiting) -> list[int]:
        mids = [self._publish(client, self._topic_of(event), event.body, retain=False)]
        if self._home_assistant and event.source is not None and event.kind in SCORED_AFTER:
            self._scored[event.source] = SCORED_AFTER[event.kind]
            mids.append(self._publish(client, *self._connection_message(event.source), retain=True))
        return mids

    def _publish(self, client: Client, topic: str, payload: bytes, *, retain: bool) -> int:
        # A failure here is a lost connection; the next `_loop` raises it.
        return client.publish(topic, payload, qos=1, retain=retain).mid

    def _wait_for(self, mids: Collection[int], client: Client, *, seconds: float | None = None) -> None:
        """Wait until all messages are acknowledged. ChannelError after `seconds` without any acknowledgement."""
        timeout = seconds or self._config.timeout
        missing = set(mids) - self._acknowledgements.keys()
        deadline = time.monotonic() + timeout
        while missing:
            if (left := deadline - time.monotonic()) <= 0:
                raise self._error(f"connected, and no acknowledgement for {timeout:g} s")
            self._loop(client, left)
            if len(rest := missing - self._acknowledgements.keys()) < len(missing):
                missing = rest
                deadline = time.monotonic() + timeout

    def _loop(self, client: Client, seconds: float) -> None:
        """Let paho read, write and ping. Raises ChannelError when the connection is lost."""
        if client.loop(seconds) != MQTTErrorCode.MQTT_ERR_SUCCESS or client.socket() is None:
            if self._connect_reason and self._connect_reason.is_failure:
                self._check(self._connect_reason)
            reason = self._disconnect_reason
            name = reason.getName() if reason and reason.is_failure else ""
            if name in ("", "Unspecified error"):
                raise self._error(
                    "the connection was lost; was the broker stopped, or does another stream have this `station`?"
                )
            raise self._error(with_remedy(name))

    def _check(self, reason: ReasonCode) -> None:
        if not reason.is_failure:
            return
        if reason == "Unsupported protocol version":
            self._protocol = MQTTProtocolVersion.MQTTv311
        raise self._error(f"connection refused: {with_remedy(reason.getName())}")

    def _error(self, reason: str) -> ChannelError:
        return ChannelError(f"{self._where}: {reason}")

    def _accepted(self, messages: dict[int, list[int]]) -> list[int]:
        for reason in self._acknowledgements.values():
            if reason.is_failure:
                self.refusal = f"{self._where}: {with_remedy(reason.getName())}"
        accepted = {mid for mid, reason in self._acknowledgements.items() if not reason.is_failure}
        return [number for number, mids in messages.items() if accepted.issuperset(mids)]

    def _on_connect(
        self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._connect_reason = reason
        self._max_packet = getattr(properties, "MaximumPacketSize", None)  # MQTT 5, 3.2.2.3.6

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: DisconnectFlags, reason: ReasonCode, *_: object
    ) -> None:
        self._disconnect_reason = reason

    def _on_publish(self, _client: Client, _data: object, mid: int, reason: ReasonCode, *_: object) -> None:
        self._acknowledgements[mid] = reason


def tls_context(config: MqttConfig) -> ssl.SSLContext | None:
    """The TLS of a connection; None without. UsageError for a ca_file that cannot be used."""
    if not config.tls:
        return None
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise UsageError(
            f"[mqtt] ca_file {config.ca_file} cannot be used ({error.strerror or error}); "
            "give the certificate of the authority as a PEM file"
        ) from error


def _close_socket(client: Client) -> None:
    if (sock := client.socket()) is not None:
        sock.close()


def with_remedy(reason: str) -> str:
    """The reason that a broker gives for a refusal, with what to do."""
    return f"{reason}; {_REMEDIES[reason]}" if reason in _REMEDIES else reason


def _description(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message}); is `ca_file` in [mqtt] right?"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}); is `port` in [mqtt] the broker's TLS port?"
    if isinstance(error, ConnectionResetError):
        return "disconnected; is `port` in [mqtt] the right one, with or without TLS?"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not a host name"
