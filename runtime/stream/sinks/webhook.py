"""Delivers events by HTTP POST, signed by the Standard Webhooks specification (https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import WebhookConfig
from msc_edge.runtime.stream.events import Waiting
from msc_edge.runtime.stream.http_client import HttpClient, HttpError, login_of, status_text, without_login
from msc_edge.runtime.stream.sinks.delivery import ChannelError

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
        self._url = without_login(url)
        self._client = HttpClient(timeout=config.timeout, login=login_of(url))
        self._key = _key(config.secret.get_secret_value()) if config.secret is not None else None
        host = url.hostname or ""
        shown = f"[{host}]" if ":" in host else host
        self._where = f"{url.scheme}://{shown}:{url.port or (443 if url.scheme == 'https' else 80)}"
        self.refusal = ""

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        """Post the events one by one; see Channel."""
        acknowledged: list[int] = []
        for event in batch:
            try:
                status = self._post(event)
            except HttpError as error:
                raise ChannelError(f"{self._where}: {error}", acknowledged=acknowledged) from error
            if 200 <= status < 300:
                acknowledged.append(event.number)
            elif status in _TEMPORARY or status >= 500:
                raise ChannelError(f"{self._where}: {status_text(status)}", acknowledged=acknowledged)
            else:
                self.refusal = f"{self._where}: {status_text(status)}"
        return acknowledged

    def close(self) -> None:
        """Does nothing: no connection stays open between events."""

    def _post(self, event: Waiting) -> int:
        moment = str(int(time.time()))
        headers = {"Content-Type": "application/json", "webhook-id": event.id, "webhook-timestamp": moment}
        if self._key is not None:
            signed = b".".join((event.id.encode(), moment.encode(), event.body))
            digest = hmac.new(self._key, signed, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        # One connection per event, and the body of the answer is not read: a slow server cannot block the thread.
        return self._client.post(self._url, event.body, {**headers, "Connection": "close"})


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
