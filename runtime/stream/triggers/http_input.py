"""Triggers by HTTP: POST /trigger asks for a frame, and the response has its row."""

import hashlib
import hmac
import queue
from http import HTTPStatus

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import TriggerConfig
from msc_edge.runtime.stream.http_server import BoundedHandler, BoundedServer
from msc_edge.runtime.stream.triggers.answer import Answer, Status
from msc_edge.runtime.stream.triggers.message import LARGEST, parse_message
from msc_edge.runtime.stream.triggers.pending import Triggers
from msc_edge.runtime.web.listening import is_loopback, why_not_opened
from msc_edge.runtime.web.settings import WebSettings

_PATH = "/trigger"
_JSON = "application/json"
_CODES: dict[Status, HTTPStatus] = {
    "scored": HTTPStatus.OK,
    "not_scored": HTTPStatus.INTERNAL_SERVER_ERROR,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "no_frames": HTTPStatus.SERVICE_UNAVAILABLE,
    "stopping": HTTPStatus.SERVICE_UNAVAILABLE,
    "busy": HTTPStatus.CONFLICT,
    "repeated": HTTPStatus.CONFLICT,
    "unknown_source": HTTPStatus.NOT_FOUND,
    "invalid": HTTPStatus.BAD_REQUEST,
}


class HttpInput:
    """Takes triggers by HTTP, on its own threads, until `close`."""

    failure = ""
    """Why no triggers can arrive; empty while they can."""

    def __init__(self, config: TriggerConfig, triggers: Triggers, *, timeout: float = 2.0) -> None:
        """Open the port. UsageError when it cannot be opened, or other PCs could use it without a token.

        A client may be silent for `timeout` seconds.
        """
        token = config.token.get_secret_value() if config.token else None
        WebSettings(token=token)  # UsageError for a token that can be guessed
        try:
            self._server = _Server(config, triggers, token, timeout)
        except (OSError, UnicodeError) as error:
            cause, wrong = why_not_opened(error)
            remedy = "correct `host`" if wrong == "host" else "choose another `port`"
            raise UsageError(
                f"port {config.port} of {config.host} cannot be opened: {cause}; {remedy} in [trigger]"
            ) from error
        if token is None and not is_loopback(str(self._server.server_address[0])):
            self._server.server_close()
            raise UsageError(
                f"other PCs reach {config.host}, and no token is set: set `token` in [trigger]; make one with: "
                "openssl rand -hex 32"
            )
        self._server.start("msc-edge trigger")

    def close(self) -> None:
        """Close the port and all connections."""
        self._server.stop()


class _Server(BoundedServer):
    def __init__(self, config: TriggerConfig, triggers: Triggers, token: str | None, timeout: float) -> None:
        self.triggers = triggers
        self.token = token
        super().__init__(config.host, config.port, _Handler, timeout=timeout)


class _Handler(BoundedHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    methods = "POST"

    def do_POST(self) -> None:  # noqa: N802
        length = self.headers.get("Content-Length") or ""
        # Also of a request that is refused: a client that still sends may lose the response. One byte more than a
        # trigger may have: `parse_message` then says that it is too long.
        content = self.rfile.read(min(int(length), LARGEST + 1)) if length.isdecimal() else None
        if refused := self._refusal():
            self._respond_error(*refused)
            return
        if content is None:
            self._respond_error(
                HTTPStatus.LENGTH_REQUIRED, "the header Content-Length is missing; send the length of the body"
            )
            return
        try:
            message = parse_message(content)
        except ValueError as error:
            self._respond_error(HTTPStatus.BAD_REQUEST, str(error))
            return
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.server.triggers.ask(message.id, message.source, answers.put)
        self.server.keep(self.connection)  # few at once: others are answered at once
        answer = answers.get()
        self.respond(_CODES[answer.status], answer.as_json() + b"\n", _JSON)

    def _refusal(self) -> tuple[HTTPStatus, str] | None:
        """Why a request is refused, whatever its body."""
        if self.path != _PATH:
            return HTTPStatus.NOT_FOUND, f"send a POST to {_PATH}"
        if "Origin" in self.headers:  # browsers send it with each POST, programs do not
            return HTTPStatus.FORBIDDEN, "requests of web pages (header Origin) are refused; send it from a program"
        if not self._is_authorized():
            return (
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong; send that of [trigger] in the header 'Authorization: Bearer TOKEN'",
            )
        return None

    def _is_authorized(self) -> bool:
        if self.server.token is None:
            return True
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        given, expected = (
            hashlib.sha256(each.encode("utf-8", "surrogateescape")).digest()
            for each in (token.strip(), self.server.token)
        )  # of equal length, so that the time of the comparison depends on nothing
        return scheme.lower() == "bearer" and hmac.compare_digest(given, expected)

    def _respond_error(self, status: HTTPStatus, message: str) -> None:
        self.respond(status, Answer("", None, "invalid", 0.0, error=message).as_json() + b"\n", _JSON)
