"""Addresses of sources: their kind, and how they are displayed without passwords."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from msc_edge.errors import SourceError

SourceKind = Literal["webcam", "network", "video", "folder"]

_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935}
_TLS_SCHEMES = ("https://", "rtsps://")
# Some cameras have the password in the path: /user=admin_password=secret_channel=1
_NAMED_SECRET = re.compile(r"(?i)(user(?:name)?|pass(?:word|wd)?|pwd|token|auth|key|secret)=[^_&/;,]*")
_MISTYPED = re.compile(rf"[\s\"']*(?:{'|'.join(_SCHEMES)})[\s:/\\]+", re.IGNORECASE)  # rtsp:/ or http:\\
_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^:%\s]*)(?::\d{0,5})?")  # and port
_HIGHEST_CAMERA = 255
_SAFE = ":%!$&'()*+,;="  # allowed in a login, or its encoding
_DEVICE = re.compile(r"/dev/video(\d+)")


@dataclass(frozen=True)
class Address:
    """Where a source is."""

    kind: SourceKind
    given: str
    """What to open. User and password of a URL are percent-encoded. May contain a password; display `shown` instead."""
    shown: str
    """For logs and events: without passwords."""

    @property
    def is_live(self) -> bool:
        """Whether frames arrive at their own rate."""
        return self.kind in ("webcam", "network")

    @property
    def uses_tls(self) -> bool:
        """Whether the camera proves with a certificate which one it is."""
        return self.given.lower().startswith(_TLS_SCHEMES)

    @property
    def is_rtsp(self) -> bool:
        """Whether the camera sends by RTSP, with TLS or without."""
        return self.given.lower().startswith(("rtsp://", "rtsps://"))

    @property
    def default_name(self) -> str:
        """A short name for results and events."""
        if self.kind == "webcam":
            return f"camera{camera_number(self.given)}"
        if self.kind == "network":
            parts = urlsplit(self.shown)
            text = f"{parts.hostname or ''}{parts.path}"
        else:
            text = Path(self.given).resolve().name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", text, flags=re.ASCII).strip("-._")[:63] or self.kind


def parse_address(given: str) -> Address:
    """Determine the kind of a source. SourceError when it is none."""
    if (given.isascii() and given.isdecimal()) or _DEVICE.fullmatch(given):
        if camera_number(given) > _HIGHEST_CAMERA:
            raise SourceError(f"source {given}: not a webcam number; expected 0 to {_HIGHEST_CAMERA}")
        return Address("webcam", given, given)
    if "://" in given:
        scheme = given.partition("://")[0].lower()
        public = redacted(given)
        if scheme not in _SCHEMES:
            raise SourceError(f"source {public}: {scheme}:// is not supported; expected one of {', '.join(_SCHEMES)}")
        return Address("network", _with_encoded_login(given), public)
    path = Path(given)
    try:
        if given and path.is_dir():
            return Address("folder", given, given)
        if path.is_file():
            return Address("video", given, given)
    except (OSError, ValueError):  # not a valid file name
        pass
    raise SourceError(
        f"source {shown(given)}: no such file or folder; expected a webcam number (0), /dev/video0, an rtsp:// or "
        "http:// stream, a video file, or a folder that receives images"
    )


def camera_number(given: str) -> int:
    """The number of a webcam, from a number or /dev/videoN."""
    match = _DEVICE.fullmatch(given)
    return int(match[1] if match else given)


def shown(given: str) -> str:
    """An address, valid or not, as it may be displayed: a mistyped one can contain a password too."""
    if "://" in given:
        return redacted(given)
    place, mark, _ = (f"***@{given.rpartition('@')[2]}" if "@" in given else given).partition("?")
    mistyped = _MISTYPED.match(given)
    if mistyped or "@" in given:
        place = place.partition("#")[0]
    if mistyped and place.startswith(mistyped[0]):
        place = mistyped[0] + _without_login(place.removeprefix(mistyped[0]))
    return _NAMED_SECRET.sub(r"\1=***", place) + ("?***" if mark else "")


def redacted(url: str) -> str:
    """A URL without user, password, values of the query, and fragment.

    Real passwords contain unquoted @, /, ? and #. In case of doubt this hides too much.
    """
    scheme, _, rest = url.partition("://")
    before, _, query = rest.partition("?")
    if "@" in query:  # an unquoted ? in a password; or an @ in a query, and then the host is hidden too
        before, _, query = f"@{rest.rpartition('@')[2]}".partition("?")
    user, at, place = before.rpartition("@")
    place = _NAMED_SECRET.sub(r"\1=***", _without_login(place.partition("#")[0]))
    # A name without a value may be the secret itself.
    values = [f"{pair.partition('=')[0]}=***" if "=" in pair else "***" for pair in query.split("&") if pair]
    return f"{scheme}://{'***@' if at or user else ''}{place}{'?' if values else ''}{'&'.join(values)}"


def _without_login(place: str) -> str:
    """Host and path as given; without the host where it may be a login whose @ is missing or was encoded."""
    login, at, place = place.rpartition("@")  # a login is hidden already
    host = re.split(r"[/\\]", place.lstrip("/\\"), maxsplit=1)[0]
    if "://" in place:
        return f"{login}{at}***"
    return f"{login}{at}{place if _HOST.fullmatch(host) else f'***{place.rpartition(host)[2]}'}"


def with_login(url: str, username: str, password: str) -> str:
    """A URL with user and password. SourceError when it has a user already."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise SourceError(f"source {shown(url)}: `username` and `password` are for network addresses; remove them")
    if "@" in rest:
        raise SourceError(f"source {redacted(url)}: contains a user, and `username` is given too; remove one of them")
    return f"{scheme}://{quote(username, safe='')}:{quote(password, safe='')}@{rest}"


def _with_encoded_login(url: str) -> str:
    """A URL with host, and with user and password percent-encoded, so that every program reads it alike.

    Refused is a URL in which the end of the password is uncertain: a part of it would be asked for as a host.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    if "@" in after:
        raise SourceError(
            f"source {redacted(url)}: an @ after the host; give `username` and `password` as options of the source, "
            "or write %40 for @, %23 for #, %2F for / and %3F for ?"
        )
    login, at, place = authority.rpartition("@")
    try:
        parts = urlsplit(f"//{place}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SourceError(f"source {redacted(url)}: the host or the port is not valid; check it") from None
    if not host:
        raise SourceError(
            f"source {redacted(url)}: no host in this address; expected an address such as rtsp://192.168.1.20/stream1"
        )
    return f"{scheme}://{quote(login, safe=_SAFE)}{at}{place}{after}"
