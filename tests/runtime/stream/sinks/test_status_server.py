import http.client
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.events import Event, EventKind, new_id, now
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sinks.status_server import Metrics, StatusServer

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def decided(verdict: str | None = "normal", *, source: str = "cam", dropped: int = 0) -> Decision:
    image, error = None, None if verdict else "the file is empty"
    frame = Frame(source, 0, NOON, 0.0, image, dropped=dropped, error=error)
    result = Result(0.25, 0.01, verdict, (NearestImage(0, "n.png", 0.1),)) if verdict else None  # pyright: ignore
    return Decision(new_id(), frame, result, Stages(0.5, 20.0, 1.5, 22.0) if verdict else None)


def event(kind: EventKind, **fields: object) -> Event:
    return Event(id=new_id(), kind=kind, time=now(), station="line3", message="m", **fields)  # pyright: ignore


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """As Prometheus reads them: name and labels -> value."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


class TestMetrics:
    def test_frames_are_counted(self):
        metrics = Metrics()
        metrics.decided(decided("normal", dropped=3))
        metrics.decided(decided("reject", dropped=1))
        metrics.decided(decided("reject"))
        metrics.decided(decided(None, source="in"))
        found = values(metrics)
        assert found["msc_edge_frames_total", "source=cam", "verdict=normal"] == 1
        assert found["msc_edge_frames_total", "source=cam", "verdict=reject"] == 2
        assert found["msc_edge_frames_dropped_total", "source=cam"] == 4
        assert found["msc_edge_unreadable_total", "source=in"] == 1
        assert found["msc_edge_last_frame_timestamp_seconds", "source=cam"] == NOON.timestamp()
        assert ("msc_edge_last_frame_timestamp_seconds", "source=in") not in found

    def test_stages_are_seconds(self):
        metrics = Metrics()
        metrics.decided(decided())
        metrics.decided(decided())
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

    def test_events_and_what_they_say(self):
        metrics = Metrics()
        metrics.source("cam")
        assert values(metrics)["msc_edge_source_up", "source=cam"] == 0
        metrics.event(event("source_up", source="cam"))
        assert values(metrics)["msc_edge_source_up", "source=cam"] == 1
        metrics.event(event("reject", source="cam"))
        assert values(metrics)["msc_edge_source_up", "source=cam"] == 1
        metrics.event(event("source_frozen", source="cam"))
        metrics.event(event("results_lost", count=5))
        metrics.event(event("events_lost", count=7))
        metrics.event(event("events_lost", count=1))
        found = values(metrics)
        assert found["msc_edge_source_up", "source=cam"] == 0
        assert found["msc_edge_events_total", "kind=events_lost"] == 2
        assert found["msc_edge_events_total", "kind=reject"] == 1
        assert found["msc_edge_results_lost_total",] == 5
        assert found["msc_edge_events_lost_total",] == 8

    def test_what_has_not_happened_is_there_as_zero(self):
        metrics = Metrics()
        metrics.source("cam")
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

    def test_the_others(self):
        metrics = Metrics()
        metrics.restarted("cam")
        metrics.outbox({"mqtt": 4, "webhook": 0})
        metrics.kit("aa", "edge-small")
        metrics.kit("bb", "edge-small")
        found = values(metrics)
        assert found["msc_edge_source_restarts_total", "source=cam"] == 1
        assert found["msc_edge_outbox_depth", "channel=mqtt"] == 4
        assert [key for key in found if key[0] == "msc_edge_kit_info"] == [
            ("msc_edge_kit_info", "backbone=edge-small", "kit=bb")
        ]
        assert all(key[0].startswith("msc_edge_") for key in found)

    def test_two_streams_in_one_process_do_not_mix(self):
        one, other = Metrics(), Metrics()
        one.decided(decided())
        assert ("msc_edge_frames_total", "source=cam", "verdict=normal") not in values(other)

    def test_several_threads(self):
        metrics = Metrics()
        work = [threading.Thread(target=lambda: [metrics.decided(decided()) for _ in range(500)]) for _ in range(4)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        assert values(metrics)["msc_edge_frames_total", "source=cam", "verdict=normal"] == 2000


class Stream:
    """What the server asks."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reasons: list[str] = []
        self.failure: Exception | None = None

    def ready(self) -> list[str]:
        if self.failure:
            raise self.failure
        return self.reasons


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def server(stream: Stream) -> Iterator[StatusServer]:
    server = StatusServer("127.0.0.1", 0, stream.metrics, ready=stream.ready)
    yield server
    server.close()


@pytest.fixture
def impatient(stream: Stream) -> Iterator[StatusServer]:
    server = StatusServer("127.0.0.1", 0, stream.metrics, ready=stream.ready, patience=0.5)
    yield server
    server.close()


def ask(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


class TestStatusServer:
    def test_metrics(self, server, stream):
        stream.metrics.decided(decided("reject"))
        status, text, headers = ask(server, "/metrics")
        assert status == 200
        assert headers.get_content_type() == "text/plain"
        families = {family.name for family in text_string_to_metric_families(text)}
        assert {"msc_edge_frames", "msc_edge_stage_seconds", "msc_edge_outbox_depth"} <= families
        assert text == stream.metrics.text().decode()

    def test_health_and_readiness(self, server, stream):
        assert ask(server, "/healthz")[:2] == (200, "ok\n")
        assert ask(server, "/readyz")[:2] == (200, "ready\n")
        stream.reasons = ["the kit is not verified", "no frame of ümlaut for 40 s"]
        assert ask(server, "/readyz")[:2] == (503, "the kit is not verified\nno frame of ümlaut for 40 s\n")
        stream.failure = OutputError("the state cannot be read")
        assert ask(server, "/readyz")[0] == 503
        assert "the state cannot be read" in ask(server, "/readyz")[1]
        assert ask(server, "/healthz?again")[:2] == (200, "ok\n")

    @pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/healthz%00"])
    def test_there_is_nothing_else(self, server, path):
        assert ask(server, path)[0] == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
    def test_other_methods_are_refused(self, server, method):
        status, _, headers = ask(server, "/metrics", method)
        assert status == 405
        assert headers["Allow"] == "GET, HEAD"

    @pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/no"])
    def test_head_is_get_without_the_body(self, server, path):
        status, body, headers = ask(server, path, "HEAD")
        expected = ask(server, path)
        assert (status, body) == (expected[0], "")
        assert headers["Content-Length"] == expected[2]["Content-Length"]

    def test_nothing_is_printed(self, server, capfd):
        ask(server, "/no")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b"Bad Request" in client.makefile("rb").read()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /metrics HT")
        ask(server, "/healthz")
        assert capfd.readouterr() == ("", "")

    def test_slow_clients_do_not_block_another(self, server):
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        for client in slow:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        for _ in range(5):
            assert ask(server, "/healthz")[0] == 200
        for client in slow:
            client.close()

    def test_silent_clients_are_hung_up_on_and_places_are_free_again(self, impatient):
        silent = [socket.create_connection(("127.0.0.1", impatient.port), timeout=60) for _ in range(50)]
        # Those that found no place at once, the others when they have said nothing for some seconds.
        for client in silent:
            try:
                assert client.recv(1) == b""
            except ConnectionError:
                pass
            finally:
                client.close()
        assert ask(impatient, "/healthz")[0] == 200

    def test_a_client_that_drips_is_hung_up_on(self, impatient):
        end = time.monotonic() + 60
        with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\n")
            with pytest.raises(ConnectionError):  # noqa: PT012
                while time.monotonic() < end:
                    client.sendall(b"X: y\r\n")
                    time.sleep(0.1)

    def test_a_port_that_is_taken_is_told_with_what_to_do(self, server, stream):
        with pytest.raises(UsageError, match=rf"port {server.port} of 127\.0\.0\.1.*another `port`.*\[http\]"):
            StatusServer("127.0.0.1", server.port, stream.metrics, ready=stream.ready)

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a..b"])
    def test_an_address_that_is_not_of_this_pc(self, stream, host):
        with pytest.raises(UsageError, match=r"correct `host` in \[http\]"):
            StatusServer(host, 0, stream.metrics, ready=stream.ready)

    def test_the_port_is_free_again_after_close(self, stream):
        first = StatusServer("127.0.0.1", 0, stream.metrics, ready=stream.ready)
        kept = socket.create_connection(("127.0.0.1", first.port), timeout=60)
        ask(first, "/healthz")
        first.close()
        assert kept.recv(1) == b""
        kept.close()
        with pytest.raises(ConnectionError):
            ask(first, "/healthz")
        again = StatusServer("127.0.0.1", first.port, stream.metrics, ready=stream.ready)
        assert ask(again, "/healthz")[0] == 200
        again.close()

    def test_ipv6(self, stream):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        server = StatusServer("::1", 0, stream.metrics, ready=stream.ready)
        connection = http.client.HTTPConnection("::1", server.port, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        server.close()
