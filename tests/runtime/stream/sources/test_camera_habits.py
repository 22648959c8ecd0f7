"""What cameras were seen to send by HTTP, right and wrong, byte by byte: whole frames come of it, or a reason."""

import base64
import contextlib
import functools
import gzip
import hashlib
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from msc_edge.images import decode_image
from msc_edge.runtime.stream.sources.messages import ConnectionBrokenError
from msc_edge.runtime.stream.sources.mjpeg import open_image_stream

TIMEOUT = 2.0  # seconds of silence after which a connection is broken; a reason comes within twice that
CRLF, LF = b"\r\n", b"\n"
PASSWORD = "p@ss#w/rd?1 %41"
NUMBER_OF_IMAGES = 8


def blocks(number: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Random blocks: no two images have a row in common."""
    small = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


@functools.cache
def jpeg(number: int) -> bytes:
    height, width = ((120, 160), (240, 320))[number % 7 == 5]
    return cv2.imencode(".jpg", blocks(number, height, width))[1].tobytes()


@functools.cache
def with_thumbnail(number: int) -> bytes:
    """A whole JPEG within a JPEG, as cameras embed it in their metadata."""
    data, thumbnail = jpeg(number), cv2.imencode(".jpg", blocks(1000 + number, 16, 16))[1].tobytes()
    return data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]


@functools.cache
def png(number: int) -> bytes:
    return cv2.imencode(".png", blocks(number))[1].tobytes()


@functools.cache
def known(encode: Callable[[int], bytes]) -> dict[bytes, int]:
    """The pixels of the images that exist."""
    images = ((decode_image(np.frombuffer(encode(number), np.uint8)), number) for number in range(NUMBER_OF_IMAGES))
    return {image.tobytes(): number for image, number in images}


def cut(number: int) -> bytes:
    """Of four images one is half an image."""
    data = jpeg(number)
    return data[: len(data) // 2] if number % 4 == 2 else data


def cut_early(number: int) -> bytes:
    """Cut within the thumbnail, so that the length of its segment reaches into the next image."""
    data = with_thumbnail(number)
    return data[:300] if number % 4 == 2 else data


def chunked(data: bytes, size: int = 7) -> bytes:
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x;x=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def body(
    *,
    encode: Callable[[int], bytes] = jpeg,
    line: bytes = b"--frame",
    nl: bytes = CRLF,
    head: bytes = b"Content-Type: image/jpeg\r\nContent-Length: SIZE\r\n",
    wrong: int = 0,
    before: bytes = b"",
    after: bytes | None = None,
    between: bytes = b"",
    count: int = NUMBER_OF_IMAGES,
) -> bytes:
    """A multipart body: for each image `line`, the head of a part with a SIZE that is `wrong`, and the image."""
    out = before
    for number in range(count):
        data = encode(number)
        out += (
            line
            + nl
            + head.replace(b"SIZE", b"%d" % (len(data) + wrong)).replace(CRLF, nl)
            + nl
            + data
            + (nl if after is None else after)
            + between
        )
    return out


def answer(content: bytes, kind: str = "multipart/x-mixed-replace; boundary=frame", *more: str) -> bytes:
    """An HTTP/1.0 answer without length."""
    lines = ["HTTP/1.0 200 OK", *([f"Content-Type: {kind}"] if kind else []), *more, "", ""]
    return CRLF.join(line.encode() for line in lines) + content


def status(line: str, *headers: str, content: bytes = b"no") -> bytes:
    return CRLF.join(each.encode() for each in (f"HTTP/1.1 {line}", *headers, "Connection: close", "", "")) + content


@dataclass
class Habit:
    """What a camera sends, and what comes of it."""

    sent: bytes | Callable[["Request"], bytes | Iterator[bytes]]
    """Or a function of the request."""
    frames: int | None = None
    """The least number of frames; by default all images, or none where there is a reason."""
    cut: int = 0
    """Number of images that are skipped."""
    reason: str = ""
    """Why no frames come, or no more."""
    encode: Callable[[int], bytes] = jpeg
    login: str = ""

    @property
    def wanted(self) -> int:
        return self.frames if self.frames is not None else 0 if self.reason else NUMBER_OF_IMAGES - self.cut


@dataclass
class Request:
    """A request to a camera."""

    server: "Server"
    head: str
    number: int
    """Of requests before it."""


def snapshot(number: int, kind: str = "image/jpeg", *more: str, version: str = "1.1", wrong: int = 0) -> bytes:
    data = jpeg(number % NUMBER_OF_IMAGES)
    length = [f"Content-Length: {len(data) + wrong}"] if version == "1.1" else []
    lines = [f"HTTP/{version} 200 OK", *([f"Content-Type: {kind}"] if kind else []), *length, *more, "", ""]
    return CRLF.join(line.encode() for line in lines) + data


def digest(request: Request, *, qop: bool, snapshots: bool = False) -> bytes:
    """Check the response to the challenge, as RFC 7616 defines it. A nonce is good for one answer."""
    nonce = f"nonce{request.server.answers}"
    given = re.search(r"(?im)^Authorization: Digest (.*?)\r?$", request.head)
    values = dict(re.findall(r'(\w+)="?([^",]*)"?', given[1])) if given else {}
    if values.get("nonce") != nonce:
        stale = ", stale=true" if values else ""
        quality = ', qop="auth"' if qop else ""
        challenge = f'Digest realm="cam", nonce="{nonce}"{quality}, algorithm=MD5{stale}'
        return status("401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"', f"WWW-Authenticate: {challenge}")

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    path = request.head.split(" ")[1]
    extra = f"{values.get('nc')}:{values.get('cnonce')}:{values.get('qop')}:" if qop else ""
    wanted = md5(f"{md5(f'viewer:cam:{PASSWORD}')}:{nonce}:{extra}{md5(f'GET:{path}')}")
    if values["response"] != wanted:
        return status("403 Forbidden")
    request.server.answers += 1
    return snapshot(request.number, "image/jpeg", "Connection: close") if snapshots else answer(body())


def basic(request: Request) -> bytes:
    login = base64.b64encode(f"viewer:{PASSWORD}".encode()).decode()
    if f"Authorization: Basic {login}" not in request.head:
        return status("401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"')
    return answer(body())


def same_host(request: Request, then: Callable[[Request], bytes] = lambda _: answer(body())) -> bytes:
    if "/here?x=1" not in request.head:
        return status("302 Found", f"Location: http://127.0.0.1:{request.server.port}/here?x=1")
    return then(request)


def trickle(start: bytes, rest: bytes) -> Iterator[bytes]:
    yield start
    for byte in rest:
        time.sleep(0.02)
        yield bytes([byte])


def stalls(content: bytes) -> Iterator[bytes]:
    yield content
    time.sleep(3 * TIMEOUT)


def without_end(number: int) -> bytes:
    return jpeg(number).removesuffix(b"\xff\xd9")


MIXED = "multipart/x-mixed-replace"
NO_LENGTH = b"Content-Type: image/jpeg\r\n"
ENDED = "the connection ended"

HABITS: dict[str, Habit] = {
    # boundaries
    "a stream as it should be": Habit(answer(body())),
    "quoted boundary": Habit(answer(body(), f'{MIXED}; boundary="frame"')),
    "boundary declared with dashes": Habit(answer(body(), f"{MIXED}; boundary=--frame")),
    "boundary with blanks": Habit(answer(body(line=b"--video boundary--"), f"{MIXED};boundary=--video boundary--")),
    "no boundary declared": Habit(answer(body(), MIXED)),
    "another boundary than declared": Habit(answer(body(line=b"--other"))),
    "boundary without dashes in the body": Habit(answer(body(line=b"frame"))),
    "a boundary of one letter": Habit(answer(body(line=b"--B", head=NO_LENGTH), f"{MIXED}; boundary=B")),
    "no boundary before the first part": Habit(answer(body().removeprefix(b"--frame\r\n"))),
    "header on the line of the boundary": Habit(answer(body(line=b"--frameX-Part: 1"))),
    # headers and lengths of parts
    "lines end in LF only": Habit(answer(body(nl=LF)).replace(CRLF, LF, 6)),
    "no length": Habit(answer(body(head=NO_LENGTH))),
    "length too small": Habit(answer(body(wrong=-40))),
    "length too large": Habit(answer(body(wrong=5000))),
    "length 0": Habit(answer(body(head=b"Content-Length: 0\r\n"))),
    "length above 64 MB": Habit(answer(body(head=b"Content-Length: 99999999999\r\n"))),
    "blank before the colon": Habit(answer(body(head=b"Content-Length : SIZE\r\n"))),
    "no headers": Habit(answer(body(head=b""))),
    "more headers": Habit(answer(body(head=b"X-Time: 1\r\nX-Frame: --\r\nContent-Type: image/jpeg\r\n"))),
    "no line end after an image": Habit(answer(body(after=b"", head=NO_LENGTH))),
    # bodies
    "text before the first part": Habit(answer(body(before=b"Camera 7, firmware 1.2\r\n-- ready --\r\n\r\n"))),
    "garbage between parts": Habit(answer(body(between=b"\0\xff\xfe\xff\0garbage" * 20))),
    "empty parts": Habit(answer(body(between=b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 0\r\n\r\n\r\n"))),
    "parts of metadata between": Habit(answer(body(between=b"--frame\r\nContent-Type: text/plain\r\n\r\nmotion\r\n"))),
    "images with thumbnails": Habit(answer(body(encode=with_thumbnail, head=NO_LENGTH))),
    "PNG": Habit(answer(body(encode=png, head=NO_LENGTH)), encode=png),
    "images without a boundary": Habit(answer(b"".join(map(jpeg, range(NUMBER_OF_IMAGES))), "video/x-motion-jpeg")),
    "one of four images cut": Habit(answer(body(encode=cut, head=NO_LENGTH)), cut=2),
    "one of four images cut, with its length": Habit(answer(body(encode=cut)), cut=2),
    "one of four images cut, with the length of the whole": Habit(
        answer(body(encode=cut, head=b"Content-Length: %d\r\n" % len(jpeg(0)))), cut=2
    ),
    "one of four images cut, no boundary declared": Habit(answer(body(encode=cut, head=NO_LENGTH), MIXED), cut=2),
    "one of four images cut, without boundary": Habit(
        answer(b"".join(map(cut, range(NUMBER_OF_IMAGES))), "application/octet-stream"), cut=2
    ),
    "cut within the thumbnail": Habit(answer(body(encode=cut_early, head=NO_LENGTH)), cut=2),
    "no end marker": Habit(answer(body(encode=without_end, head=NO_LENGTH)), cut=NUMBER_OF_IMAGES, reason=ENDED),
    # answers
    "no content type": Habit(answer(body(), "")),
    "content type of text": Habit(answer(body(), "text/plain")),
    "octet-stream": Habit(answer(body(), "application/octet-stream")),
    "multipart/mixed": Habit(answer(body(), "Multipart/Mixed;Boundary=frame")),
    "content type of video": Habit(answer(body(), "video/x-motion-jpeg")),
    "chunks that end within markers": Habit(
        answer(chunked(body()) + b"0\r\n\r\n", f"{MIXED}; boundary=frame", "Transfer-Encoding: chunked").replace(
            b"HTTP/1.0", b"HTTP/1.1", 1
        )
    ),
    "compressed with gzip": Habit(answer(gzip.compress(body()), f"{MIXED}; boundary=frame", "Content-Encoding: gzip")),
    "a length that is too large": Habit(answer(body(), f"{MIXED}; boundary=frame", "Content-Length: 99999999999")),
    "closes after each part": Habit(lambda _: answer(body(count=1)), frames=3),
    # one image for each request
    "snapshots": Habit(lambda request: snapshot(request.number, "image/jpeg", "Connection: close"), frames=3),
    "snapshots on one connection": Habit(lambda request: snapshot(request.number), frames=3),
    "snapshots of HTTP/1.0": Habit(lambda request: snapshot(request.number, version="1.0"), frames=3),
    "octet-stream snapshots": Habit(lambda request: snapshot(request.number, "application/octet-stream"), frames=3),
    "snapshots without content type": Habit(lambda request: snapshot(request.number, ""), frames=3),
    "snapshots that repeat": Habit(lambda _: snapshot(1), frames=3),
    "snapshots with a length that is too large": Habit(
        lambda request: snapshot(request.number, "image/jpeg", "Connection: close", wrong=500), frames=3
    ),
    "every other snapshot cut": Habit(
        lambda request: answer(jpeg(1)[: -(request.number % 2) * 500 or None], "image/jpeg"), frames=3, cut=2
    ),
    # logins and redirects
    "Basic": Habit(basic, login=PASSWORD),
    "Digest with qop": Habit(functools.partial(digest, qop=True), login=PASSWORD),
    "Digest without qop": Habit(functools.partial(digest, qop=False), login=PASSWORD),
    "Digest with a nonce that becomes stale": Habit(
        functools.partial(digest, qop=True, snapshots=True), login=PASSWORD, frames=3
    ),
    "redirect within the host": Habit(same_host),
    "redirect with a login": Habit(functools.partial(same_host, then=basic), login=PASSWORD),
    "a header that is none": Habit(answer(body(), f"{MIXED}; boundary=frame", "no colon")),
    # reasons
    "wrong password": Habit(basic, login="guessed", reason=r"login is refused \(HTTP 401 .*check user and password"),
    "wrong password with Digest": Habit(
        functools.partial(digest, qop=True), login="guessed", reason=r"access is refused \(HTTP 403 Forbidden\)"
    ),
    "login that is not given": Habit(basic, reason="give `username` and `password`"),
    "forbidden": Habit(status("403 Forbidden"), reason=r"access is refused \(HTTP 403 Forbidden\)"),
    "not found": Habit(status("404 Not Found"), reason=r"path does not exist \(HTTP 404 Not Found\)"),
    "too many viewers": Habit(status("503 Service Unavailable"), reason="busy .*close other viewers"),
    "an error with an image": Habit(status("500 X", "Content-Type: image/jpeg", content=jpeg(1)), reason="HTTP 500"),
    "login page": Habit(answer(b"<!DOCTYPE html><p>User", "text/html"), reason=r"a page \(text/html\), not images"),
    "redirect to another host": Habit(
        lambda _: status("302 Found", "Location: http://example.invalid/x?pw=1"),
        reason=r"redirects to http://example.invalid:80, another server; if that is right, give its address",
    ),
    "redirect to another scheme": Habit(
        lambda request: status("301 Moved", f"Location: https://127.0.0.1:{request.server.port}/"),
        reason="redirects to https://127.0.0.1",
    ),
    "redirect in a circle": Habit(lambda _: status("302 Found", "Location: /again"), reason="redirects in a circle"),
    "body that is empty": Habit(answer(b""), reason="contains no JPEG or PNG image"),
    "not HTTP": Habit(b"SSH-2.0-dropbear\r\n", reason="the answer is not HTTP"),
    "closes without an answer": Habit(b"", reason="disconnected without an answer"),
    "silence": Habit(lambda _: stalls(b""), reason="no answer in time"),
    "head that trickles": Habit(
        lambda _: trickle(b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"x" * 9000),
        reason="no answer in time",
    ),
    "image that trickles": Habit(
        lambda _: trickle(answer(body(count=3) + b"--frame\r\n\r\n"), jpeg(3)),
        frames=3,
        cut=1,
        reason="no whole image came within 4 s",
    ),
    "silence within an image": Habit(
        lambda _: stalls(answer(body(count=3) + b"--frame\r\n\r\n" + jpeg(3)[:900])),
        frames=3,
        cut=1,
        reason="no image came in time",
    ),
    "images of another format": Habit(
        lambda _: stalls(answer(b"--frame\r\n\r\nGIF89a")), reason="no image came in time"
    ),
    "damaged, and no boundary": Habit(
        answer(jpeg(0) + b"\xff\xd8\xff\xe0\0\x02not a marker" + jpeg(1), "image/jpeg"),
        frames=1,
        cut=1,
        reason="nothing marks where the next one begins",
    ),
}


@dataclass
class Server:
    """A camera with one habit."""

    habit: Habit
    requests: list[str] = field(default_factory=list)
    port: int = 0
    answers: int = 0

    def serve(self, connection: socket.socket) -> None:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                if not (data := connection.recv(4096)):
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            self.requests.append(head.decode("latin-1"))
            sent = self.habit.sent
            content = sent(Request(self, head.decode("latin-1"), len(self.requests) - 1)) if callable(sent) else sent
            pieces = [content] if isinstance(content, bytes) else content
            closes = True
            for piece in pieces:
                connection.sendall(piece)
                closes = not re.match(rb"HTTP/1\.1 200 (?!.*Connection: close)", piece, re.DOTALL)
            if closes:
                return


@pytest.fixture
def serve() -> Iterator[Callable[[Habit], Server]]:
    """Start a camera with a habit."""
    started: list[socketserver.ThreadingTCPServer] = []

    def start(habit: Habit) -> Server:
        server = Server(habit)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    server.serve(self.request)

        tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        tcp.daemon_threads, tcp.block_on_close = True, False
        threading.Thread(target=tcp.serve_forever, args=(0.02,), daemon=True).start()
        server.port = tcp.server_address[1]
        started.append(tcp)
        return server

    yield start
    for tcp in started:
        tcp.shutdown()
        tcp.server_close()


def test_there_are_more_than_23_habits() -> None:
    assert len(HABITS) > 23


@pytest.mark.parametrize("name", HABITS)
def test_whole_frames_come_or_a_reason(
    serve: Callable[[Habit], Server], name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    habit = HABITS[name]
    server = serve(habit)
    login = f"viewer:{re.sub('[^a-z]', lambda found: f'%{ord(found[0]):02X}', habit.login)}@" if habit.login else ""
    images: list[np.ndarray] = []
    damaged: list[str] = []
    skipped: list[None] = []
    reason = ""
    try:
        stream = open_image_stream(f"http://{login}127.0.0.1:{server.port}/video?channel=1", timeout=TIMEOUT)
        assert stream, "not left to FFmpeg"
        for image in stream.frames(skip=lambda: skipped.append(None), on_damaged=damaged.append):
            images.append(image)
            if habit.frames and len(images) == habit.frames and not habit.reason:
                break
    except ConnectionBrokenError as error:
        reason = str(error)
    expected = known(png if habit.encode is png else jpeg)
    assert all(image.tobytes() in expected for image in images), "no image that was not sent"
    assert len(images) == habit.wanted
    assert len(damaged) == len(skipped) == habit.cut
    if habit.reason:
        assert re.search(habit.reason, reason)
    elif habit.frames is None:
        assert reason == ENDED
        numbers = [expected[image.tobytes()] for image in images]
        assert numbers == [number for number in range(NUMBER_OF_IMAGES) if number % 4 != 2 or not habit.cut]
    assert "channel=1" not in caplog.text + capfd.readouterr().err + reason, "it could be a password"
    if habit.login:
        assert habit.login not in reason
        assert all(habit.login not in request for request in server.requests)
