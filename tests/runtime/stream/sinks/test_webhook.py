import base64
import hashlib
import hmac
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from msc_edge import __version__
from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import WebhookConfig
from msc_edge.runtime.stream.events import Event, Waiting
from msc_edge.runtime.stream.outbox import Outbox
from msc_edge.runtime.stream.sinks.delivery import ChannelError, Delivery
from msc_edge.runtime.stream.sinks.webhook import WebhookChannel
from msc_edge.runtime.stream.state import State

if TYPE_CHECKING:
    from tests.runtime.stream.sinks.conftest import Server
else:
    Server = object

PASSWORD = "hunter2-is-secret"


def channel_to(url: str, *, secret: str | None = None, timeout: float = 10) -> WebhookChannel:
    return WebhookChannel(
        WebhookConfig(url=SecretStr(url), secret=SecretStr(secret) if secret is not None else None, timeout=timeout)
    )


def waiting(number: int = 1) -> Waiting:
    body = b'{"kind": "reject", "\xc3\xbc": 1}'
    return Waiting(number=number, id=f"event-{number}", kind="reject", source="cam1", body=body, attempts=0)


def test_the_body_arrives_byte_for_byte_with_the_headers(server: Server) -> None:
    server.start()
    assert channel_to(f"{server.url}?line=3").deliver([waiting()]) == [1]
    (request,) = server.requests
    assert request.path == "/hook?line=3"
    assert request.body == waiting().body
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"msc-edge/{__version__}"
    assert request.headers["webhook-id"] == "event-1"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert "webhook-signature" not in request.headers
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("plain words", b"plain words"),
        ("whsec_" + base64.b64encode(b"\x00\xff random key").decode(), b"\x00\xff random key"),
    ],
)
def test_a_receiver_computes_the_same_signature(server: Server, secret: str, key: bytes) -> None:
    server.start()
    channel_to(server.url, secret=secret).deliver([waiting()])
    (request,) = server.requests
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_the_signature_of_the_example_in_the_specification(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """The libraries of the specification test with this example."""
    server.start()
    monkeypatch.setattr(time, "time", lambda: 1614265330.0)
    event = replace(waiting(), id="msg_p5jXN8AQM9LWM0D4loKWxJek", body=b'{"test": 2432232314}')
    channel_to(server.url, secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").deliver([event])
    assert server.requests[0].headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_user_and_password_of_the_url_become_basic_authorization(server: Server) -> None:
    server.start()
    channel_to(f"http://robot:p%40ss%3Aword@127.0.0.1:{server.port}/hook").deliver([waiting()])
    (request,) = server.requests
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"robot:p@ss:word"
    assert request.path == "/hook"


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_acknowledges(server: Server, status: int) -> None:
    server.answer = lambda _: status
    server.start()
    assert channel_to(server.url).deliver([waiting(1), waiting(2)]) == [1, 2]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_busy_server_is_away_and_earlier_acknowledgements_count(server: Server, status: int) -> None:
    server.answer = lambda event_id: 200 if event_id == "event-1" else status
    server.start()
    with pytest.raises(ChannelError, match=f"HTTP {status}") as caught:
        channel_to(server.url).deliver([waiting(1), waiting(2), waiting(3)])
    assert caught.value.acknowledged == (1,)
    assert [one.id for one in server.requests] == ["event-1", "event-2"]


@pytest.mark.parametrize("status", [301, 308, 400, 401, 404, 410, 413])
def test_any_other_status_refuses_one_event_and_redirects_are_not_followed(server: Server, status: int) -> None:
    server.answer = lambda event_id: status if event_id == "event-2" else 200
    server.start()
    channel = channel_to(server.url)
    assert channel.deliver([waiting(1), waiting(2), waiting(3)]) == [1, 3]
    assert f"HTTP {status}" in channel.refusal
    assert {one.path for one in server.requests} == {"/hook"}


def test_a_server_that_does_not_answer_is_away_after_the_timeout(server: Server) -> None:
    server.start()
    server.stall()
    with pytest.raises(ChannelError, match="no answer in time"):
        channel_to(server.url, timeout=0.3).deliver([waiting()])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_sends_a_byte_at_times_is_away_after_the_timeout(scheme: str, until: Callable) -> None:
    """Each byte comes within the timeout of a read; the answer, or the TLS handshake, never ends."""
    ended = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection:
            data = b"HTTP/1.1 2" if scheme == "http" else b"\x16\x03\x03\x3f\xff"
            for byte in itertools.chain(data, itertools.repeat(ord("0"))):
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    break
                if ended.wait(0.05):
                    break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        with pytest.raises(ChannelError, match="no answer in time"):
            channel_to(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5).deliver([waiting()])
        until(lambda: not thread.is_alive(), "the server notices that it is disconnected")
        ended.set()


def test_a_closed_port_is_away(free_port: Callable[[], int]) -> None:
    with pytest.raises(ChannelError, match="refused"):
        channel_to(f"http://127.0.0.1:{free_port()}").deliver([waiting()])


def test_https_to_a_server_without_tls_is_away(server: Server) -> None:
    server.start()
    with pytest.raises(ChannelError, match=f"https://127.0.0.1:{server.port}: "):
        channel_to(f"https://127.0.0.1:{server.port}/hook", timeout=5).deliver([waiting()])


@pytest.mark.parametrize(
    "url",
    [
        "example.org/hook",
        f"ftp://robot:{PASSWORD}@example.org/",
        f"https://robot:{PASSWORD}@/hook",
        f"https://robot:{PASSWORD}@example.org:99999/",
        f"https://robot:{PASSWORD}@example.org:port/",
        f"https://robot:{PASSWORD}@[::1/",
        f"https://robot:{PASSWORD}@example.org/a b",
        f"https://robot:{PASSWORD}@example.org/\r\nX: y",
        f"https://robot:{PASSWORD}@example.org/ü",
        f"https://robot:{PASSWORD}@{'x' * 70}.org/",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UsageError, match="https://HOST/PATH") as caught:
        channel_to(url)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "whsec_", f"whsec_{PASSWORD}!"])
def test_a_secret_that_cannot_be_used_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(UsageError, match="`secret`") as caught:
        channel_to("https://example.org", secret=secret)
    assert PASSWORD not in str(caught.value)


def test_no_event_is_lost_when_the_server_stops_under_load(
    server: Server, tmp_path: Path, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    server.start()
    events = [make_event() for _ in range(120)]
    with State.open(tmp_path, channels=["webhook"]) as state:
        delivery = Delivery(channel_to(server.url, timeout=2), Outbox(state), longest_pause=0.5)
        delivery.start()
        for index, event in enumerate(events):
            state.record([event])
            delivery.wake()
            if index == 30:
                until(lambda: len(server.accepted()) >= 10, "the first events arrive")
                server.stop()
            if index == 90:
                until(lambda: not delivery.connected, "the loss is noticed")
                server.start()
        until(lambda: state.backlog() == {"webhook": 0}, "the outbox is empty")
        assert delivery.connected
        delivery.stop(5)
    assert set(server.accepted()) == {event.id for event in events}
    assert {json.loads(one.body)["id"] for one in server.requests} == {event.id for event in events}


def test_a_refused_event_does_not_block_later_ones(
    server: Server, tmp_path: Path, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    events = [make_event() for _ in range(50)]
    bad = events[3].id
    server.answer = lambda event_id: 400 if event_id == bad else 200
    server.start()
    with State.open(tmp_path, channels=["webhook"]) as state:
        state.record(events)
        delivery = Delivery(channel_to(server.url), Outbox(state))
        delivery.start()
        until(lambda: state.backlog() == {"webhook": 1}, "all others are delivered")
        assert server.accepted() == [event.id for event in events if event.id != bad]
        until(lambda: delivery.failure and "HTTP 400" in delivery.failure, "the refusal is reported")
        server.answer = lambda _: 200
        until(lambda: state.backlog() == {"webhook": 0}, "the refused one is retried")
        until(lambda: delivery.failure is None, "no failure is left")
        delivery.stop(5)


def test_after_503_the_same_event_is_sent_again(
    server: Server, tmp_path: Path, make_event: Callable[..., Event], until: Callable[..., None]
) -> None:
    server.answer = lambda _: 503 if len(server.requests) < 3 else 200
    server.start()
    events = [make_event() for _ in range(3)]
    with State.open(tmp_path, channels=["webhook"]) as state:
        state.record(events)
        delivery = Delivery(channel_to(server.url), Outbox(state), longest_pause=0.2)
        delivery.start()
        until(lambda: state.backlog() == {"webhook": 0}, "delivered")
        delivery.stop(5)
    assert server.accepted() == [event.id for event in events]
    assert {one.id for one in server.requests if one.status == 503} == {events[0].id}


def test_no_secret_reaches_a_log(
    server: Server,
    tmp_path: Path,
    make_event: Callable[..., Event],
    until: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://robot:{PASSWORD}@127.0.0.1:{server.port}/{PASSWORD}?token={PASSWORD}"
    with State.open(tmp_path, channels=["webhook"]) as state:
        state.record([make_event(), make_event()])
        delivery = Delivery(channel_to(url, secret=PASSWORD), Outbox(state), longest_pause=0.2)
        delivery.start()
        until(lambda: delivery.failure, "connection refused")
        failures = [delivery.failure]
        server.answer = lambda _: 400
        server.start()
        until(lambda: delivery.failure and "400" in delivery.failure, "refused")
        failures.append(delivery.failure)
        delivery.stop(5)
    assert "cannot be reached" in caplog.text
    assert "refused" in caplog.text
    assert PASSWORD not in caplog.text + str(failures)
    assert base64.b64encode(f"robot:{PASSWORD}".encode()).decode() not in caplog.text
