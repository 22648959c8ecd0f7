"""Start and end of a server: the port, the options, TLS, and signals."""

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from urllib.request import urlopen

import pytest

from msc_edge.runtime import Detector

TIMEOUT = 60.0


def refused(kit, *options: object) -> str:
    """The line that a server prints that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "msc_edge", "serve", str(kit), *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    return done.stderr


def test_a_port_in_use_is_one_line(toy_kit):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused(toy_kit, "--port", port)
    assert f"port {port} of 127.0.0.1 cannot be opened: another program uses it; choose another --port" in line


def test_an_address_of_another_pc_is_one_line(toy_kit):
    assert "this PC has no such address; correct --host" in refused(toy_kit, "--host", "192.0.2.1")


def test_other_pcs_need_a_token_or_insecure_in_so_many_words(toy_kit, start):
    assert "--token-file FILE" in refused(toy_kit, "--port", 0, "--host", "0.0.0.0")
    assert start(toy_kit, "--host", "0.0.0.0", "--insecure").request("/kit").status == 200


def test_the_addresses_of_a_server_for_other_pcs_can_be_opened(toy_kit, start):
    """0.0.0.0 is no address that a browser opens."""
    printed = start(toy_kit, "--host", "0.0.0.0", "--insecure").started
    addresses = re.findall(r"http://[^ ;]+(?= and |;)", printed)
    assert addresses
    assert "//0.0.0.0" not in printed
    assert f"{addresses[0]}/docs describes the server" in printed
    with urlopen(f"{addresses[0]}/healthz", timeout=TIMEOUT) as response:
        assert response.read() == b"ok\n"


@pytest.mark.parametrize("content", ["short", "two words in one token", "", "ü" * 20, "a" * 20 + "\nsecond line"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(toy_kit, tmp_path, content):
    (tmp_path / "token").write_text(content, encoding="utf-8")
    line = refused(toy_kit, "--port", 0, "--token-file", tmp_path / "token")
    assert "at least 16 letters and digits" in line
    assert not content or content not in line


def test_a_token_file_that_is_missing(toy_kit, tmp_path):
    assert "cannot be read" in refused(toy_kit, "--port", 0, "--token-file", tmp_path / "none")


def test_a_certificate_without_a_key_or_that_is_none(toy_kit, tmp_path):
    assert "--tls-key" in refused(toy_kit, "--port", 0, "--tls-cert", tmp_path / "a.pem")
    (tmp_path / "a.pem").write_text("nothing")
    assert "PEM" in refused(toy_kit, "--port", 0, "--tls-cert", tmp_path / "a.pem", "--tls-key", tmp_path / "a.pem")


def test_https(start, toy_kit, certificate, photos):
    server = start(toy_kit, "--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem")
    trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    connection = http.client.HTTPSConnection("localhost", server.port, timeout=TIMEOUT, context=trusted)
    connection.request("POST", "/score", (photos / "warn.png").read_bytes(), {"Content-Type": "image/png"})
    assert json.load(connection.getresponse())["verdict"] == "warn"
    connection.request("GET", "/openapi.json")
    assert json.load(connection.getresponse())["servers"] == [{"url": f"https://localhost:{server.port}"}]
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_0(start, toy_kit, number):
    server = start(toy_kit)
    assert server.request("/healthz").status == 200
    assert server.stop(number) == (0, "")


def test_a_request_that_has_begun_is_answered_after_sigterm(start, patch_kit, photos):
    server = start(patch_kit)
    image = (photos / "warn.png").read_bytes()
    connection = server.connect()
    connection.putrequest("POST", "/score")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(len(image)))
    connection.endheaders(image[:100])
    # The head was processed when a later connection was.
    assert server.request("/healthz").status == 200
    server.process.send_signal(signal.SIGTERM)
    while True:  # until the port is closed
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT).close()
        except ConnectionError:
            break
        time.sleep(0.01)
    connection.send(image[100:])
    response = connection.getresponse()
    assert response.status == 200
    expected = Detector.load(patch_kit, threads=1).score_file(photos / "warn.png")
    assert json.load(response)["score"] == expected.to_dict()["score"]
    assert server.end() == (0, "")


def test_more_images_than_the_queue_takes_are_503_and_none_is_lost(start, patch_kit, toy, save, tmp_path):
    """One image at a time and none in the queue: of many at once, each is either scored or refused."""
    large = save(tmp_path / "large.png", toy.draw(1).repeat(60, axis=0).repeat(60, axis=1)).read_bytes()
    server = start(patch_kit, "--workers", 1, "--queue", 0)
    answers = []
    together = threading.Barrier(8)

    def send() -> None:
        together.wait()
        answers.append(server.request("/score", large))

    clients = [threading.Thread(target=send) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    statuses = {answer.status for answer in answers}
    assert len(answers) == 8
    assert statuses == {200, 503}
    assert {answer.headers["Retry-After"] for answer in answers if answer.status == 503} == {"1"}
    assert server.request("/readyz").status == 200
    assert server.request("/score", large).status == 200


def test_large_bodies_at_once_are_bounded(start, toy_kit):
    """Each body is small enough, and all of them together are not."""
    server = start(toy_kit, "--max-bytes", 1000)
    connections = [server.connect() for _ in range(5)]
    for connection in connections[:4]:
        connection.putrequest("POST", "/score")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(bytes(999))
    answer = server.request("/score", bytes(1000))
    while answer.status == 422:  # until the bodies of the others have arrived
        answer = server.request("/score", bytes(1000))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    for connection in connections[:4]:
        connection.send(b"\0")
        assert connection.getresponse().status == 422
        connection.close()
    assert server.request("/score", bytes(1000)).status == 422
