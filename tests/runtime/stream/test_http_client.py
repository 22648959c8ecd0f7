"""Real servers, with and without TLS, that are friendly, slow, or after a password."""

import base64
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from msc_edge.runtime.stream.http_client import CertificateError, HttpClient, HttpError, Login, login_of, without_login

TIMEOUT = 5.0
LOGIN = Login("viewer", "hunter2")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNAUTHORIZED = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\nConnection: close\r\n'


@dataclass
class Server:
    """Answers each request with the same bytes, and keeps the requests."""

    answer: bytes
    port: int = 0
    requests: list[str] = field(default_factory=list)
    endless: bytes = b""
    """Sent after the answer until the client goes away."""

    def serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    self.requests.append(connection.recv(65536).decode("latin-1"))
                    connection.sendall(self.answer.replace(b"PORT", str(self.port).encode()))
                    while self.endless:
                        connection.sendall(self.endless)
                if listener.fileno() < 0:
                    return


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, as a camera has."""
    path = tmp_path_factory.mktemp("tls") / "camera.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=camera", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture
def serve(certificate: Path) -> Iterator[Callable[..., Server]]:
    """Start a server."""
    listeners: list[socket.socket] = []

    def start(answer: bytes, *, tls: bool = False, endless: bytes = b"") -> Server:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Server(answer, listener.getsockname()[1], endless=endless)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            listener = context.wrap_socket(listener, server_side=True)
        listeners.append(listener)
        threading.Thread(target=server.serve, args=(listener,), daemon=True).start()
        return server

    yield start
    for listener in listeners:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(listener, socket.SHUT_RDWR)
        listener.close()


def get(server: Server, scheme: str = "http", **options: object) -> bytes:
    client = HttpClient(timeout=TIMEOUT, **options)  # pyright: ignore[reportArgumentType]
    with contextlib.closing(client):
        return client.get(f"{scheme}://127.0.0.1:{server.port}/secret?key=secret").raw.read()


def test_a_certificate_is_checked(serve: Callable[..., Server], certificate: Path, tmp_path: Path) -> None:
    server = serve(OK, tls=True)
    with pytest.raises(CertificateError, match=r"^its certificate is not accepted \(self-signed certificate\)$"):
        get(server, "https")
    assert server.requests == []
    assert get(server, "https", ca_file=certificate.with_suffix(".crt")) == b"ok"
    assert get(server, "https", insecure=True) == b"ok"
    with pytest.raises(HttpError, match=r"`ca_file` .*missing.pem cannot be used: No such file"):
        get(server, "https", ca_file=tmp_path / "missing.pem")


def test_a_login_is_sent_when_it_is_asked_for_and_to_no_other_server(serve: Callable[..., Server]) -> None:
    thief = serve(OK)
    for location in (f"http://127.0.0.1:{thief.port}/", f"http://localhost:{thief.port}/", "https://127.0.0.1:PORT/"):
        server = serve(UNAUTHORIZED + b"\r\n")
        with pytest.raises(HttpError, match="login is refused"):
            get(server, login=LOGIN)
        assert ["Authorization: Basic" in request for request in server.requests] == [False, True]
        server.answer = f"HTTP/1.1 307 Go\r\nLocation: {location}\r\nConnection: close\r\n\r\n".encode()
        with pytest.raises(HttpError, match="another server; if that is right, give its address") as caught:
            get(server, login=LOGIN)
        assert "secret" not in str(caught.value)
    assert thief.requests == []


@pytest.mark.parametrize("challenge", ["Basic realm=x", 'Digest realm="x", nonce="y"'])
def test_the_body_of_a_refusal_is_not_read(serve: Callable[..., Server], challenge: str) -> None:
    """It may never end."""
    head = f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nConnection: close\r\n\r\n"
    with pytest.raises(HttpError, match=r"login is refused \(HTTP 401 Unauthorized\); check user and password"):
        get(serve(head.encode(), endless=b"x" * 65536), login=LOGIN)


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        ("Digest", "has no realm"),
        ('Digest realm="x"', "has no nonce"),
        ('Digest realm="x", nonce="y", algorithm=SHA-512-256', r"not supported \(algorithm=SHA-512-256\)"),
        ('Digest realm="x", nonce="y", qop="auth-int"', r"not supported \(qop=auth-int\)"),
    ],
)
def test_a_digest_that_cannot_be_computed_is_a_reason(
    serve: Callable[..., Server], challenge: str, reason: str
) -> None:
    head = f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nConnection: close\r\n\r\n"
    with pytest.raises(HttpError, match=f"login by Digest.* {reason}"):
        get(serve(head.encode()), login=LOGIN)


def test_the_environment_changes_nothing(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy would get the password, and .netrc another one."""
    server, proxy = serve(OK), serve(OK)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password hunter3\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    assert get(server) == b"ok"
    assert proxy.requests == []
    assert "Authorization" not in server.requests[0]


@pytest.mark.parametrize("host", ["127.0.0.1:1", "name.invalid", "[::1", "host:x", "a b"])
def test_a_reason_contains_neither_path_nor_password(host: str) -> None:
    client = HttpClient(timeout=TIMEOUT, login=LOGIN)
    with pytest.raises(HttpError) as caught:
        client.get(f"http://{host}/secret?key=secret")
    assert not any(word in str(caught.value) for word in ("secret", "hunter2"))
    assert caught.value.__cause__ is None


def test_the_reason_of_a_host_that_does_not_answer(serve: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(HttpError, match=r"^cannot be reached: Connection refused$"):
        HttpClient(timeout=TIMEOUT).get(f"http://127.0.0.1:{port}/")
    with pytest.raises(HttpError, match=r"^the answer is not HTTP"):
        get(serve(b"HTTP/9 maybe\r\n\r\n"))


def test_a_post_sends_the_login_at_once_and_does_not_follow(serve: Callable[..., Server]) -> None:
    server = serve(b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:PORT/other\r\nConnection: close\r\n\r\n")
    client = HttpClient(timeout=TIMEOUT, login=Login("größe", "p:ä"))
    assert client.post(f"http://127.0.0.1:{server.port}/hook", b"body", {"X-Id": "1"}) == 302
    (request,) = server.requests
    encoded = base64.b64encode("größe:p:ä".encode()).decode()
    assert f"Authorization: Basic {encoded}\r\n" in request
    assert "X-Id: 1\r\n" in request


def test_the_login_of_a_url_is_decoded_and_removed() -> None:
    url = urlsplit("http://vi%40wer:p%2F%C3%A4@host:80/a?b=c#d")
    assert login_of(url) == Login("vi@wer", "p/ä")
    assert without_login(url) == "http://host:80/a?b=c"
    assert login_of(urlsplit("http://host/")) is None
