"""What an RTSP camera answers before it sends video: where it redirects, and why it refuses.

FFmpeg follows a redirect to any host and sends the login there, and gives no reason for a failure. See RFC 2326; the
login is that of HTTP, RFC 7616 and RFC 7617. `requests` cannot be used for it: in RTSP the URI of a login by Digest is
the whole URL.
"""

import base64
import hashlib
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRWPair
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from msc_edge.runtime.stream.deadline import deadline
from msc_edge.runtime.stream.sources.address import DEFAULT_PORTS
from msc_edge.runtime.stream.sources.messages import CaptureSettings, ConnectionBrokenError

_LARGEST = 1 << 20  # bytes of a description; cameras send some thousand
_LONGEST_LINE = 8192  # bytes
_MOST_LINES = 100
_MOST_REDIRECTS = 5
_REASONS = {
    403: "access is refused (RTSP 403); check the rights of the user, and whether it is locked",
    404: "the path does not exist (RTSP 404); check the part of the address after the host",
    453: "the camera is busy (RTSP 453); close other viewers",
    503: "the camera is busy (RTSP 503); close other viewers, or wait until it has started",
}


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


def refuse_redirects(settings: CaptureSettings) -> None:
    """Raise ConnectionBrokenError for a camera that redirects to another server, or does not answer at all.

    The login is not sent: a server may start its camera for the answer, and fail when that is asked for again at once.
    A redirect that follows a login is therefore not seen.
    """
    _check(settings, has_login=False)


def refusal(settings: CaptureSettings) -> str:
    """Why a camera gives no video; "" when that is unknown."""
    try:
        answer = _check(settings, has_login=True)
    except ConnectionBrokenError as error:
        return str(error)
    if answer is not None and answer.status == 401:
        given = urlsplit(settings.address.given).username is not None
        advice = "check user and password" if given else "give `username` and `password`"
        return f"the login is refused (RTSP 401); {advice}"
    return _REASONS.get(answer.status, "") if answer else ""


def _check(settings: CaptureSettings, *, has_login: bool) -> _Answer | None:
    """The answer of a camera after all redirects.

    None in case of doubt, and FFmpeg tries: for an answer that is no RTSP, an unknown kind of login, a camera that
    cannot be reached, or one whose certificate is not accepted.
    """
    given = urlsplit(settings.address.given)
    target, until = given._replace(netloc=given.netloc.rpartition("@")[2]), time.monotonic() + settings.open_timeout
    for _ in range(_MOST_REDIRECTS):
        try:
            with _connected(target, settings, until) as stream:
                answer = _asked(stream, target, given if has_login else target)
        except (OSError, ValueError):
            if time.monotonic() >= until:
                raise ConnectionBrokenError(
                    f"the host accepts the connection and does not answer in {settings.open_timeout:.0f} s"
                ) from None
            return None
        if answer is None or not 300 <= answer.status < 400:
            return answer
        target = _redirected(target, answer.header("location"))
    raise ConnectionBrokenError("it redirects in a circle; check the address")


@contextmanager
def _connected(target: SplitResult, settings: CaptureSettings, until: float) -> Iterator[BufferedRWPair]:
    """A connection that is closed at this `time.monotonic()`, whatever is sent before."""
    left = max(0.1, until - time.monotonic())
    try:
        accepted = socket.create_connection(_origin(target)[1:], timeout=left)
    except TimeoutError:
        raise ConnectionBrokenError("cannot be reached: timed out") from None
    with accepted as plain, plain.dup() as duplicate:  # it stays valid when TLS takes the socket over
        connection, left = plain, max(0.0, until - time.monotonic())
        with deadline(left, lambda: duplicate.shutdown(socket.SHUT_RDWR)):
            if target.scheme == "rtsps":
                from msc_edge.runtime.stream.http_connections import tls_context  # noqa: PLC0415  (imports `requests`)

                context = tls_context(settings.ca_file, insecure=settings.insecure)
                connection = context.wrap_socket(plain, server_hostname=target.hostname)
            with connection, connection.makefile("rwb") as stream:
                yield stream


def _asked(stream: BufferedRWPair, target: SplitResult, given: SplitResult) -> _Answer | None:
    """The answer to DESCRIBE, or the first one that is not "200 OK"; None for a kind of login that is unknown here."""
    challenge, number, answer = "", 0, None
    for method in ("OPTIONS", "DESCRIBE"):
        for _ in range(2):
            number += 1
            lines = [f"{method} {target.geturl()} RTSP/1.0", f"CSeq: {number}", "User-Agent: msc-edge"]
            if method == "DESCRIBE":
                lines.append("Accept: application/sdp")
            if challenge:
                lines.append(f"Authorization: {_authorization(challenge, method, target, given)}")
            stream.write("\r\n".join([*lines, "", ""]).encode())
            stream.flush()
            answer = _read_answer(stream, with_body=method == "OPTIONS")
            asks = answer.status == 401 and answer.header("www-authenticate")
            if not asks or given.username is None or challenge:
                break
            challenge = _known_challenge(answer)
            if not challenge:
                return None
        if answer is None or answer.status != 200:
            return answer
    return answer


def _read_answer(stream: BufferedRWPair, *, with_body: bool) -> _Answer:
    """Read one answer. ValueError for what is none, ConnectionBrokenError for a body that is too large."""
    status = re.match(rb"RTSP/\d\.\d (\d{3})\b", stream.readline(_LONGEST_LINE))
    if not status:
        raise ValueError("no RTSP")
    headers: list[tuple[str, str]] = []
    while line := stream.readline(_LONGEST_LINE).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers.append((name.strip().lower(), value.strip()))
        if len(headers) > _MOST_LINES:
            raise ValueError("too many headers")
    answer = _Answer(int(status[1]), headers)
    length = answer.header("content-length")
    size = int(length) if re.fullmatch(r"\d{1,19}", length) else 0
    if size > _LARGEST:
        raise ConnectionBrokenError(f"its description of the video would have {size} bytes; check the camera")
    if with_body or answer.status == 401:
        stream.read(size)
    return answer


def _known_challenge(answer: _Answer) -> str:
    """The challenge to answer, by Digest where it is offered; "" where none is of a known kind."""
    challenges = [value for name, value in answer.headers if name == "www-authenticate"]
    for challenge in challenges:
        if challenge.lower().startswith("digest "):
            values = _values(challenge)
            known = values.get("algorithm", "MD5").upper() == "MD5" and {"realm", "nonce"} <= values.keys()
            return challenge if known else ""
    return next((challenge for challenge in challenges if challenge.lower().startswith("basic")), "")


def _authorization(challenge: str, method: str, target: SplitResult, given: SplitResult) -> str:
    """The header that answers a challenge with the login of an address."""
    user, password = unquote(given.username or ""), unquote(given.password or "")
    if not challenge.lower().startswith("digest "):
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    values, uri = _values(challenge), target.geturl()
    realm, nonce = values["realm"], values["nonce"]
    one, two = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{uri}")
    head = f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}"'
    head += f', opaque="{values["opaque"]}"' if "opaque" in values else ""
    if "auth" in re.split(r"[\s,]+", values.get("qop", "")):
        own = secrets.token_hex(8)
        response = _md5(f"{one}:{nonce}:00000001:{own}:auth:{two}")
        return f'{head}, response="{response}", qop=auth, nc=00000001, cnonce="{own}"'
    return f'{head}, response="{_md5(f"{one}:{nonce}:{two}")}"'


def _values(challenge: str) -> dict[str, str]:
    pairs = [pair for pair in parse_http_list(challenge.partition(" ")[2]) if "=" in pair]
    return {name.lower(): value for name, value in parse_keqv_list(pairs).items()}


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _redirected(target: SplitResult, location: str) -> SplitResult:
    """Where a redirect leads. ConnectionBrokenError where that is another server."""
    try:
        to = urlsplit(urljoin(target.geturl(), location))
        scheme, host, port = _origin(to)
    except ValueError:
        raise ConnectionBrokenError("it redirects to an address that is none") from None
    if (scheme, host, port) != _origin(target) or "@" in to.netloc:
        raise ConnectionBrokenError(
            f"it redirects to {scheme}://{host}:{port}, another server; if that is right, give its address"
        )
    return to


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, url.hostname or "", url.port or DEFAULT_PORTS.get(url.scheme, 0)
