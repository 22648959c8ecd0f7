"""Delivers events by HTTP POST, signed by the Standard Webhooks specification (https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from http import HTTPStatus
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from msc_edge import __version__
from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config import WebhookConfig
from msc_edge.runtime.stream.sinks.delivery import ChannelError
from msc_edge.runtime.stream.state import Waiting

# Temporary failures of the server; the event itself is not refused. 5xx are temporary too.
_TEMPORARY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_FORM = "write it as https://HOST/PATH"


class WebhookChannel:
    """One POST for each event; any 2xx acknowledges it. Redirects are not followed, proxies not used.

    The body is the event, as in docs/event.schema.json. Headers: `webhook-id`, the event's id, the same at each
    attempt; `webhook-timestamp`, seconds since 1970 of this attempt; and with a secret `webhook-signature`,
    `v1,` and the base64 HMAC-SHA256 of `ID.TIMESTAMP.BODY`. The key is the secret in UTF-8, or, if it begins with
    `whsec_`, the rest decoded from base64. A user and password in the URL become Basic authorization.

    After 408, 425, 429, 5xx and network errors all events wait. Any other status refuses this event only.
    Messages contain the scheme, host and port of the URL only: paths and queries of webhooks are often secrets.
    """

    name = "webhook"

    def __init__(self, config: WebhookConfig) -> None:
        """Raises UsageError for a URL or a secret that cannot be used."""
        url = _checked(config.url.get_secret_value() if config.url else "")
        secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if secure else 80)
        self._tls = ssl.create_default_context() if secure else None
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._timeout = config.timeout
        self._key = _key(config.secret.get_secret_value()) if config.secret is not None else None
        self._headers = {"Content-Type": "application/json", "User-Agent": f"msc-edge/{__version__}"}
        if url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._where = f"{url.scheme}://{shown}:{self._port}"
        self.refusal = ""

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        """Post the events one by one; see Channel."""
        acknowledged: list[int] = []
        for event in batch:
            try:
                status = self._post(event)
            except (OSError, http.client.HTTPException) as error:
                reason = f"{self._where}: {_description(error)}"
                raise ChannelError(reason, acknowledged=acknowledged) from error
            if 200 <= status < 300:
                acknowledged.append(event.number)
            elif status in _TEMPORARY or status >= 500:
                raise ChannelError(f"{self._where}: {_status_text(status)}", acknowledged=acknowledged)
            else:
                self.refusal = f"{self._where}: {_status_text(status)}"
        return acknowledged

    def close(self) -> None:
        """Does nothing: no connection stays open between events."""

    def _post(self, event: Waiting) -> int:
        moment = str(int(time.time()))
        headers = {**self._headers, "webhook-id": event.id, "webhook-timestamp": moment}
        if self._key is not None:
            signed = b".".join((event.id.encode(), moment.encode(), event.body))
            digest = hmac.new(self._key, signed, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        if self._tls:
            connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port)
        with _Deadline(self._timeout) as deadline, closing(connection):
            # One connection per event, and the body of the answer is not read: a slow server cannot block the thread.
            connection.sock = self._connected(deadline)
            connection.request("POST", self._target, body=event.body, headers={**headers, "Connection": "close"})
            return connection.getresponse().status

    def _connected(self, deadline: "_Deadline") -> socket.socket:
        sock = socket.create_connection((self._host, self._port), timeout=self._timeout)
        try:
            deadline.disconnects(sock)
            return self._tls.wrap_socket(sock, server_hostname=self._host) if self._tls else sock
        except BaseException:
            sock.close()
            raise


class _Deadline:
    """Ends a connection after some seconds, whatever it does then; use it as a context manager.

    The timeout of a socket is that of each read: a server that sends a byte at times would never reach it. Errors that
    come after the deadline become TimeoutError.
    """

    def __init__(self, seconds: float) -> None:
        self._lock = threading.Lock()
        self._passed = False
        self._sock: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._disconnect)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        self._timer.join()
        with self._lock:
            if self._sock:
                self._sock.close()
        if self._passed and isinstance(error, OSError | http.client.HTTPException):
            raise TimeoutError from error

    def disconnects(self, sock: socket.socket) -> None:
        """The connection to end. A duplicate stays valid when TLS takes the socket over."""
        self._sock = sock.dup()

    def _disconnect(self) -> None:
        with self._lock, suppress(OSError):  # it was closed meanwhile
            self._passed = True
            if self._sock:
                self._sock.shutdown(socket.SHUT_RDWR)


def _checked(text: str) -> SplitResult:
    if not text.isascii() or any(letter <= " " or letter == "\x7f" for letter in text):
        raise UsageError(
            f"[webhook] `url` contains blanks or characters that a URL cannot have; percent-encode them, and {_FORM}"
        )
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        if url.hostname:
            url.hostname.encode("idna")
    except ValueError:
        # The text of the exception repeats parts of the URL, and may contain a password.
        usable, url = False, SplitResult("", "", "", "", "")
    if not usable:
        raise UsageError(
            f"[webhook] `url` is not an http:// or https:// URL with a host (and a port up to 65535); {_FORM}"
        )
    return url


def _key(secret: str) -> bytes:
    if not secret:
        raise UsageError("[webhook] `secret` is empty; give one, or remove the line to send without signature")
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise UsageError("[webhook] `secret` begins with whsec_ and the rest is not base64; copy it again")
    return key


def _status_text(status: int) -> str:
    # Not the reason phrase of the server: it can contain anything.
    return f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()


def _description(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "disconnected without an answer"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"the answer is not HTTP ({type(error).__name__})"
