"""Events by MQTT, for plain subscribers and for Home Assistant."""

import hashlib
import json
import logging
import re
import ssl
import time
from collections.abc import Collection, Sequence

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from msc_edge import __version__
from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config import MqttConfig
from msc_edge.runtime.stream.sinks.delivery import ChannelError
from msc_edge.runtime.stream.state import Waiting

_LOG = logging.getLogger("msc_edge.stream")

# Seconds of silence after which a ping is sent; the broker gives us up, and publishes the will, after 1.5 times this.
_KEEP_ALIVE = 30
# Messages that wait for their acknowledgement at one time: HiveMQ, for one, hangs up on more than ten.
_IN_FLIGHT = 10
# Seconds that Home Assistant shows a reject.
_OFF_DELAY = 5
_ONLINE, _OFFLINE = b"online", b"offline"
# Whether frames of a source are scored after such an event.
_SCORED = {"source_up": True, "source_lost": False, "source_frozen": False, "source_ended": False}
_REMEDY = {
    "Bad user name or password": "check `username` and `password` in [mqtt]",
    "Not authorized": "check `username` and `password` in [mqtt], and what the broker lets this user do",
    "Session taken over": "another stream has the same name at this broker; give each a `station` of its own",
}


class MqttChannel:
    """Publishes to one broker, with QoS 1. The topics, where BASE is `<topic>/<station>`:

    - `BASE/event/<kind>`: each event, as docs/event.schema.json has it; not retained.
    - `BASE/status`: `online` or `offline`, retained. It is the last will too, so that the broker says `offline`
      45 s after a power cut or cable pull, and at once when the process was killed.

    With style "home-assistant" also, retained:
    - `BASE/source/<source>`: `ON` while frames of the source are scored, `OFF` after source_lost, source_frozen and
      source_ended.
    - `homeassistant/binary_sensor/<station>/<source>_reject/config` and `.../<source>_connection/config`: discovery
      (https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery), one payload for each sensor, all of one
      device. "Reject" (device class problem) is on for 5 s after a reject event; "connection" (connectivity) shows
      `BASE/source/<source>`. Letters that discovery does not allow in a topic become `_` and eight hex digits.

    The station's name is the client id: give each stream at a broker its own. MQTT 5 is spoken, whose
    acknowledgements tell when a topic is forbidden, and 3.1.1 to a broker that does not know it.

    Without a thread of its own: call deliver every few seconds, with an empty batch when there is nothing. A connection
    that fails is thrown away with all that paho has queued; the outbox has it still.
    """

    name = "mqtt"

    def __init__(self, config: MqttConfig, station: str, sources: Sequence[str]) -> None:
        """Connects at the first `deliver`. Raises UsageError for a host or a ca_file that cannot be used."""
        if not config.host:
            raise UsageError("[mqtt] has no `host`; name the broker")
        self._config = config
        self._host = config.host
        self._where = f"{config.host}:{config.port}"
        self._tls = _tls_context(config)
        self._station = station
        self._base = f"{config.topic}/{station}"
        self._sources = tuple(sources)
        self._home_assistant = config.style == "home-assistant"
        # Told again after each reconnect: a broker that was restarted may have forgotten them.
        self._scored: dict[str, bool] = {}
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._client: Client | None = None
        self._welcome: ReasonCode | None = None
        self._goodbye: ReasonCode | None = None
        self._answers: dict[int, ReasonCode] = {}
        self.refusal = ""

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        """Publish all, then wait for each acknowledgement for `timeout` seconds; see Channel."""
        if self._client is None:
            self._client = self._connect()
        client = self._client
        try:
            self._turn(client, 0)
            self._answers = {}
            messages = {event.number: self._publish_event(client, event) for event in batch}
            try:
                self._await({mid for mids in messages.values() for mid in mids}, client)
            except ChannelError as error:
                raise ChannelError(error.reason, acknowledged=self._accepted(messages)) from error
        except BaseException:
            # Without a DISCONNECT, so that the broker publishes the will should we not come back.
            self._client = None
            _close_socket(client)
            raise
        return self._accepted(messages)

    def close(self) -> None:
        """Publish `offline` and leave. When that is not acknowledged within a second, the will says it."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            self._answers = {}
            self._await({self._publish(client, f"{self._base}/status", _OFFLINE, retain=True)}, client, seconds=1)
            client.disconnect()
        except ChannelError:
            pass
        finally:
            _close_socket(client)

    def _connect(self) -> Client:
        # Message numbers begin anew: answers to the old ones must not be taken for theirs.
        self._welcome, self._goodbye, self._answers = None, None, {}
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
        client.will_set(f"{self._base}/status", _OFFLINE, qos=1, retain=True)
        password = self._config.password.get_secret_value() if self._config.password else None
        if self._config.username is not None or password is not None:
            client.username_pw_set(self._config.username, password)
        if self._tls:
            client.tls_set_context(self._tls)
        try:
            client.connect(self._host, self._config.port, keepalive=_KEEP_ALIVE)
            deadline = time.monotonic() + self._config.timeout
            while self._welcome is None:
                if (left := deadline - time.monotonic()) <= 0:
                    raise self._error("connected, and no answer; is an MQTT broker at this port?")
                self._turn(client, left)
            self._check(self._welcome)
            topics = {self._publish(client, *message, retain=True): message[0] for message in self._greetings()}
            self._await(topics, client)
        except BaseException as error:
            _close_socket(client)
            if isinstance(error, (OSError, UnicodeError)):
                raise self._error(_words(error)) from error
            raise
        if forbidden := [topics[mid] for mid, answer in self._answers.items() if answer.is_failure]:
            _LOG.warning("mqtt: %s does not let us publish %s; allow it there", self._where, ", ".join(forbidden))
        return client

    def _greetings(self) -> list[tuple[str, bytes]]:
        """What the broker should keep: topic and payload."""
        greetings = [(f"{self._base}/status", _ONLINE)]
        if self._home_assistant:
            for source in self._sources:
                greetings += discovery(self._base, self._station, source)
            greetings += [self._scored_message(source) for source in self._scored]
        return greetings

    def _scored_message(self, source: str) -> tuple[str, bytes]:
        return f"{self._base}/source/{_id(source)}", b"ON" if self._scored[source] else b"OFF"

    def _publish_event(self, client: Client, event: Waiting) -> list[int]:
        body = json.loads(event.body)
        mids = [self._publish(client, f"{self._base}/event/{body['kind']}", event.body, retain=False)]
        if self._home_assistant and body.get("source") is not None and body["kind"] in _SCORED:
            self._scored[body["source"]] = _SCORED[body["kind"]]
            mids.append(self._publish(client, *self._scored_message(body["source"]), retain=True))
        return mids

    def _publish(self, client: Client, topic: str, payload: bytes, *, retain: bool) -> int:
        # A failure here is a lost connection, and shows in the next turn of the loop.
        return client.publish(topic, payload, qos=1, retain=retain).mid

    def _await(self, mids: Collection[int], client: Client, *, seconds: float | None = None) -> None:
        """Until all are answered; so many seconds without any answer are too long."""
        patience = seconds or self._config.timeout
        missing = set(mids) - self._answers.keys()
        deadline = time.monotonic() + patience
        while missing:
            if (left := deadline - time.monotonic()) <= 0:
                raise self._error(f"connected, and no acknowledgement for {patience:g} s")
            self._turn(client, left)
            if len(rest := missing - self._answers.keys()) < len(missing):
                missing = rest
                deadline = time.monotonic() + patience

    def _turn(self, client: Client, seconds: float) -> None:
        """Let paho read, write and ping. Raises ChannelError when the connection is gone."""
        if client.loop(seconds) != MQTTErrorCode.MQTT_ERR_SUCCESS or client.socket() is None:
            if self._welcome and self._welcome.is_failure:
                self._check(self._welcome)
            told = self._goodbye.getName() if self._goodbye and self._goodbye.is_failure else ""
            if told in ("", "Unspecified error"):
                raise self._error("the connection was lost (broker stopped, or another has our `station`?)")
            raise self._error(_with_remedy(told))

    def _check(self, welcome: ReasonCode) -> None:
        if not welcome.is_failure:
            return
        if welcome == "Unsupported protocol version":
            self._protocol = MQTTProtocolVersion.MQTTv311
        raise self._error(f"connection refused: {_with_remedy(welcome.getName())}")

    def _error(self, reason: str) -> ChannelError:
        return ChannelError(f"{self._where}: {reason}")

    def _accepted(self, messages: dict[int, list[int]]) -> list[int]:
        for answer in self._answers.values():
            if answer.is_failure:
                self.refusal = f"{self._where}: {_with_remedy(answer.getName())}"
        good = {mid for mid, answer in self._answers.items() if not answer.is_failure}
        return [number for number, mids in messages.items() if good.issuperset(mids)]

    def _on_connect(self, _client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, *_: object) -> None:
        self._welcome = reason

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: DisconnectFlags, reason: ReasonCode, *_: object
    ) -> None:
        self._goodbye = reason

    def _on_publish(self, _client: Client, _data: object, mid: int, reason: ReasonCode, *_: object) -> None:
        self._answers[mid] = reason


def discovery(base: str, station: str, source: str) -> list[tuple[str, bytes]]:
    """The discovery messages of a source: topic and payload."""
    node = _id(station)
    common = {
        "availability_topic": f"{base}/status",
        "payload_available": _ONLINE.decode(),
        "payload_not_available": _OFFLINE.decode(),
        "qos": 1,
        "device": {
            "identifiers": [f"msc-edge_{node}"],
            "name": station,
            "manufacturer": "msc-edge",
            "model": "visual inspection",
            "sw_version": __version__,
        },
        "origin": {"name": "msc-edge", "sw_version": __version__},
    }
    reject = {
        "name": f"{source} reject",
        "device_class": "problem",
        "state_topic": f"{base}/event/reject",
        # An empty answer: the message is about another source, and is ignored.
        "value_template": "{{ 'ON' if value_json.source == " + json.dumps(source) + " else '' }}",
        "off_delay": _OFF_DELAY,
    }
    state = f"{base}/source/{_id(source)}"
    connection = {"name": f"{source} connection", "device_class": "connectivity", "state_topic": state}
    messages = []
    for kind, special in (("reject", reject), ("connection", connection)):
        config = {"unique_id": f"msc-edge_{node}_{_id(source)}_{kind}", **special, **common}
        messages.append(
            (f"homeassistant/binary_sensor/{node}/{_id(source)}_{kind}/config", json.dumps(config).encode())
        )
    return messages


def _id(name: str) -> str:
    """The name in letters that discovery allows, and still another one for each name."""
    if (allowed := re.sub(r"[^A-Za-z0-9_-]", "_", name)) == name:
        return name
    return f"{allowed}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _tls_context(config: MqttConfig) -> ssl.SSLContext | None:
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


def _with_remedy(told: str) -> str:
    return f"{told}; {_REMEDY[told]}" if told in _REMEDY else told


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message}); is `ca_file` in [mqtt] right?"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}); is `port` in [mqtt] the broker's TLS port?"
    if isinstance(error, ConnectionResetError):
        return "hung up; is `port` in [mqtt] the right one, with or without TLS?"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not a host name"
