"""The HTTP client of cameras and webhooks: `requests`, with the rules of this project.

- Certificates are checked with the certificate authorities of the system, or with a file of one's own.
- A login is sent to one scheme, host and port only. A redirect to another one is an error, not a request.
- No proxies, no `.netrc`, no environment variables.
- TLS and the head of an answer have a deadline each; see `http_connections`.
- Messages contain neither paths nor queries: these are often secrets.
"""

import http.client
import logging
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import requests
import urllib3
from requests.auth import HTTPBasicAuth, HTTPDigestAuth

from msc_edge import __version__
from msc_edge.runtime.stream.http_connections import Adapter, tls_context
from msc_edge.text import one_line

logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)  # its messages contain URLs

_MAX_REQUESTS = 5  # for one answer: redirects, and those of a login
_REDIRECTS = (301, 302, 303, 307, 308)


class HttpError(Exception):
    """No answer, or not the one that was wanted; the message gives the reason, without paths and passwords."""


class CertificateError(HttpError):
    """The certificate of the server is not accepted."""


@dataclass(frozen=True)
class Login:
    """User and password."""

    username: str
    password: str


class HttpClient:
    """Requests to one server. Connections are kept open and used again. Not safe to use from several threads."""

    def __init__(
        self, *, timeout: float, login: Login | None = None, ca_file: Path | None = None, insecure: bool = False
    ) -> None:
        """`timeout`: seconds for the connection, for the head of an answer, and without data.

        `ca_file`: certificate authority instead of those of the system. `insecure`: no certificate is checked.
        HttpError when `ca_file` cannot be read.
        """
        self._timeout = timeout
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        # `identity`: a camera that compresses JPEG wastes its time; what comes compressed anyway is decompressed.
        self._session.headers.update(
            {"User-Agent": f"msc-edge/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
        )
        try:
            tls = tls_context(ca_file, insecure=insecure)
        except OSError as error:
            raise HttpError(f"`ca_file` {ca_file} cannot be used: {error.strerror or error}") from None
        self._session.mount("http://", Adapter(None))
        self._session.mount("https://", Adapter(tls))

    def get(self, url: str) -> requests.Response:
        """GET a URL and follow redirects within its server. The body is read from `response.raw`.

        The login is sent when the server asks for it, by Digest where the server offers it. Raises HttpError when
        there is no answer, or one with a status other than 200.
        """
        for _ in range(_MAX_REQUESTS):
            response = self._send("GET", url)
            status = response.status_code
            if status == HTTPStatus.OK:
                return response
            response.close()
            location = response.headers.get("Location", "")
            if status in (401, 403) and self._login and self._session.auth is None:
                self._session.auth = _authentication(response, self._login)
            elif status in _REDIRECTS and location:
                url = _redirected(url, location)
            elif not (status == HTTPStatus.UNAUTHORIZED and _is_stale(response)):
                raise HttpError(self._meaning(status))
        raise HttpError("it redirects in a circle, or the login is never accepted; check the address")

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """POST a body and return the status. The login is sent at once; no redirect is followed."""
        if self._login and self._session.auth is None:
            self._session.auth = HTTPBasicAuth(self._login.username.encode(), self._login.password.encode())
        response = self._send("POST", url, body=body, headers=headers)
        response.close()
        return response.status_code

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _send(
        self, method: str, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> requests.Response:
        try:
            return self._session.request(
                method, url, data=body, headers=headers, stream=True, allow_redirects=False, timeout=self._timeout
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError, ValueError) as error:
            raise _without_url(error) from None

    def _meaning(self, status: int) -> str:
        meaning = status_text(status)
        if status == HTTPStatus.UNAUTHORIZED:
            given = "check user and password" if self._login else "give `username` and `password`"
            return f"the login is refused ({meaning}); {given}"
        if status == HTTPStatus.FORBIDDEN:
            return f"access is refused ({meaning}); check the rights of the user, and whether it is locked"
        if status == HTTPStatus.NOT_FOUND:
            return f"the path does not exist ({meaning}); check the part of the address after the host"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return f"the server is busy ({meaning}); close other viewers, or wait until it has started"
        return f"the answer is {meaning}"


def login_of(url: SplitResult) -> Login | None:
    """User and password of a URL, if it has a user."""
    return None if url.username is None else Login(unquote(url.username), unquote(url.password or ""))


def without_login(url: SplitResult) -> str:
    """A URL without user, password and fragment."""
    return url._replace(netloc=url.netloc.rpartition("@")[2], fragment="").geturl()


def status_text(status: int) -> str:
    """A status in words. Not in those of the server, which can contain anything."""
    return f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()


def _without_url(error: BaseException) -> HttpError:
    """Why a request failed. The messages of requests and urllib3 contain the URL."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateError(f"its certificate is not accepted ({cause.verify_message})")
        if isinstance(cause, http.client.RemoteDisconnected):
            return HttpError("disconnected without an answer")
        if isinstance(cause, OSError) and not isinstance(cause, TimeoutError | requests.RequestException):
            return HttpError(f"cannot be reached: {cause.strerror or type(cause).__name__}")
    if any(isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError) for cause in causes):
        return HttpError("no answer in time")
    if found := next((cause for cause in causes if isinstance(cause, http.client.HTTPException)), None):
        return HttpError(f"the answer is not HTTP ({type(found).__name__})")
    return HttpError(f"the request failed ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those within it, outermost first. requests and urllib3 wrap them in several ways."""
    pending, seen = [error], set()
    while pending:
        error = pending.pop(0)
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        context = None if error.__suppress_context__ else error.__context__
        inner = (*error.args, getattr(error, "reason", None), error.__cause__, context)
        pending.extend(each for each in inner if isinstance(each, BaseException))


def _redirected(url: str, location: str) -> str:
    try:
        to = urljoin(url, location)
        if _origin(to) == _origin(url):
            return without_login(urlsplit(to))
        scheme, host, port = _origin(to)
    except ValueError:
        raise HttpError("it redirects to an address that is none") from None
    raise HttpError(f"it redirects to {scheme}://{host}:{port}, another server; if that is right, give its address")


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _authentication(response: requests.Response, login: Login) -> HTTPBasicAuth | HTTPDigestAuth:
    if re.search(r"(?i)\bdigest\b", response.headers.get("WWW-Authenticate", "")):
        return _Digest(login.username, login.password)
    return HTTPBasicAuth(login.username.encode(), login.password.encode())


def _is_stale(response: requests.Response) -> bool:
    """Whether a login by Digest was right, and only its nonce too old."""
    return re.search(r'(?i)\bstale\s*=\s*"?true', response.headers.get("WWW-Authenticate", "")) is not None


class _Digest(HTTPDigestAuth):
    def handle_401(self, r: requests.Response, **kwargs: object) -> requests.Response:
        if r.status_code == HTTPStatus.UNAUTHORIZED:
            r.close()  # its body is not read: it may never end
        try:
            return super().handle_401(r, **kwargs)
        except KeyError as error:  # a challenge without realm or nonce
            raise HttpError(f"its request for a login by Digest has no {error.args[0]}; check the camera") from None

    def build_digest_header(self, method: str, url: str) -> str | None:
        header = super().build_digest_header(method, url)
        if header is None:
            challenge = self._thread_local.chal
            kind = ", ".join(f"{name}={challenge[name]}" for name in ("algorithm", "qop") if name in challenge)
            raise HttpError(f"it wants a login by Digest that is not supported ({one_line(kind)[:100]})")
        return header
