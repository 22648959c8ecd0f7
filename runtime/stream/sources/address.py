"""What a source is, told from its address; and how it is named without giving away a password."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from msc_edge.errors import SourceError

SourceKind = Literal["webcam", "network", "video", "folder"]

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
# As cameras of some makes want it in the path: /user=admin_password=secret_channel=1
_NAMED_SECRET = re.compile(r"(?i)(user(?:name)?|pass(?:word|wd)?|pwd|token|auth|key|secret)=[^_&/;,]*")
_HIGHEST_CAMERA = 255
_DEVICE = re.compile(r"/dev/video(\d+)")


@dataclass(frozen=True)
class Address:
    """Where a source is found."""

    kind: SourceKind
    given: str
    """What to open. May hold a password: show `shown`."""
    shown: str
    """For logs, events and pages."""

    @property
    def is_live(self) -> bool:
        """Whether frames come whether they are asked for or not."""
        return self.kind in ("webcam", "network")

    @property
    def default_name(self) -> str:
        """A short name, for results and events."""
        if self.kind == "webcam":
            return f"camera{camera_number(self.given)}"
        if self.kind == "network":
            parts = urlsplit(self.shown)
            words = f"{parts.hostname or ''}{parts.path}"
        else:
            words = Path(self.given).resolve().name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", words, flags=re.ASCII).strip("-._")[:63] or self.kind


def parse_address(given: str) -> Address:
    """OnEvent the kind of a source. SourceError when it is none: what is missing, and what can be given."""
    if (given.isascii() and given.isdecimal()) or _DEVICE.fullmatch(given):
        if camera_number(given) > _HIGHEST_CAMERA:
            raise SourceError(f"source {given}: no webcam has such a number; expected 0 to {_HIGHEST_CAMERA}")
        return Address("webcam", given, given)
    if "://" in given:
        scheme = given.partition("://")[0].lower()
        public = redacted(given)
        if scheme not in _SCHEMES:
            raise SourceError(f"source {public}: {scheme}:// is not known; expected one of {', '.join(_SCHEMES)}")
        if not _host_of(given):
            raise SourceError(f"source {public}: no host in this address; expected, say, rtsp://192.168.1.20/stream1")
        return Address("network", given, public)
    path = Path(given)
    try:
        if given and path.is_dir():
            return Address("folder", given, given)
        if path.is_file():
            return Address("video", given, given)
    except (OSError, ValueError):  # a name that no file system takes
        pass
    raise SourceError(
        f"source {shown(given)}: there is no such file or folder; expected a webcam number (0), /dev/video0, "
        "rtsp:// or http:// stream, a video file, or a folder that images are written to"
    )


def camera_number(given: str) -> int:
    """The number of a webcam, given as such or as /dev/videoN."""
    match = _DEVICE.fullmatch(given)
    return int(match[1] if match else given)


def shown(given: str) -> str:
    """An address as it may be shown, be it one or not: with a slip in it, it may still hold a password."""
    if "://" in given:
        return redacted(given)
    return f"***@{given.rpartition('@')[2]}" if "@" in given else given


def redacted(url: str) -> str:
    """A URL without what may be secret: user and password, the values of its query, and its fragment.

    Passwords are seen in the field with @, /, ? and # in them, unquoted: when in doubt too much is hidden.
    """
    scheme, _, rest = url.partition("://")
    before, _, query = rest.partition("?")
    if "@" in query:  # an unquoted ? in a password; or an @ in a query, and then the host is hidden too
        before, _, query = f"@{rest.rpartition('@')[2]}".partition("?")
    user, at, place = before.rpartition("@")
    place = _NAMED_SECRET.sub(r"\1=***", place.partition("#")[0])
    # A name that has no value may be the secret itself.
    values = [f"{pair.partition('=')[0]}=***" if "=" in pair else "***" for pair in query.split("&") if pair]
    return f"{scheme}://{'***@' if at or user else ''}{place}{'?' if values else ''}{'&'.join(values)}"


def _host_of(url: str) -> str:
    try:
        return urlsplit(redacted(url).replace("***@", "")).hostname or ""
    except ValueError:
        return ""
