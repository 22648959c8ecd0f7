from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.errors import SourceError
from msc_edge.runtime.stream.sources.address import parse_address, redacted, with_login


@pytest.mark.parametrize(
    ("given", "kind", "name"),
    [
        ("0", "webcam", "camera0"),
        ("/dev/video2", "webcam", "camera2"),
        ("rtsp://10.0.0.5:554/stream1", "network", "10.0.0.5-stream1"),
        ("http://user:word@cam.local/video?user=a&pwd=b", "network", "cam.local-video"),
    ],
)
def test_the_address_determines_kind_and_name(given: str, kind: str, name: str) -> None:
    address = parse_address(given)
    assert (address.kind, address.default_name, address.is_live) == (kind, name, True)


def test_files_and_folders_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "Schicht 1.mp4").touch()
    video, folder = parse_address(str(tmp_path / "Schicht 1.mp4")), parse_address(str(tmp_path))
    assert (video.kind, video.default_name, video.is_live) == ("video", "Schicht-1.mp4", False)
    assert (folder.kind, folder.is_live) == ("folder", False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", r"no such file or folder; expected a webcam number"),
        ("", r"no such file or folder"),
        ("-1", r"no such file or folder"),
        ("ftp://host/x", r"ftp:// is not supported"),
        ("rtsp://", r"no host"),
        ("rtsp://user:hunter2@", r"no host"),
        ("a\0b", r"no such file or folder"),
        ("rtsp://user:hunter2@host:x/clip", r"the host or the port is not valid"),
        ("rtsp://user:hunter2@host:99999/clip", r"the host or the port is not valid"),
        # Where the password contains / ? or #, a part of it would be asked for as a host.
        ("http://viewer:p@hunter2#w/rd?1@127.0.0.1:80/std", r"an @ after the host; give `username` and `password`"),
        ("http://viewer:hunter2/rd@cam/std", r"an @ after the host"),
        ("http://viewer:hunter2?x@cam/std", r"an @ after the host"),
        ("http://hunter2#x@cam/std", r"an @ after the host"),
        (r"http://viewer:hunter2\x@cam/std", r"an @ after the host"),
        ("http:/viewer:hunter2@cam/std", r"no such file or folder"),
        ("http:/cam/std?key=hunter2", r"source http:/cam/std\?\*\*\*: no such file or folder"),
        ("rtsp:/cam/user=a_password=hunter2_1", r"no such file or folder"),
        ("ftp://viewer:hunter2@cam/std", r"ftp:// is not supported"),
        ("http://viewer:hunter2@[cam/std", r"the host or the port is not valid"),
        # The @ between login and host is missing, or was encoded too.
        ("rtsp://viewer:hunter2%40cam/std", r"source rtsp://\*\*\*/std: the host or the port is not valid"),
        ("rtsp://viewer:hunter2 cam:554/std", r"the host or the port is not valid"),
        ("ftp://viewer:hunter2%40cam/std", r"ftp:// is not supported"),
        ("rtsp:/viewer:hunter2%40cam/std", r"source rtsp:/\*\*\*/std: no such file or folder"),
        (r"rtsp:\\viewer:hunter2 cam\std", r"no such file or folder"),
        ("rtsp:/viewer:x@cam/std#hunter2", r"no such file or folder"),
    ],
)
def test_an_address_that_is_no_source_is_refused(given: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        parse_address(given)
    assert "hunter2" not in str(caught.value)


# Digits and capitals: none of these characters are in the rest of the address.
_SECRET = st.text("0123456789ABCDEFXYZ@:/?#&=%+ ü", min_size=8).filter(lambda text: any(c.isalnum() for c in text))


@given(user=_SECRET, password=_SECRET, key=_SECRET)
def test_no_part_of_a_password_is_displayed(user: str, password: str, key: str) -> None:
    url = f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@host/path?key={quote(key, safe='')}"
    assert redacted(url) == "rtsp://***@host/path?key=***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://host/a", "rtsp://host/a"),
        ("rtsp://u:p@ss/w@host/a", "rtsp://***@host/a"),
        ("rtsp://u:p?q@host/a", "rtsp://***@host/a"),
        ("rtsp://u:p%40host/a", "rtsp://***/a"),
        ("rtsp://u:p host/a", "rtsp://***/a"),
        ("rtsp://rtsp://u:p%40host/a", "rtsp://***"),
        ("rtsp://[::1]:554/a", "rtsp://[::1]:554/a"),
        ("rtsp://u:p@host/a?x=1&token=2#frag", "rtsp://***@host/a?x=***&token=***"),
        ("http://host/?secret", "http://host/?***"),
    ],
)
def test_unquoted_passwords_are_hidden_too(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("given", "opened"),
    [
        ("http://u:p@ss@host/a", "http://u:p%40ss@host/a"),
        ("http://u:p%40ss@host/a?b=c", "http://u:p%40ss@host/a?b=c"),
        ("rtsp://ü:a b@[::1]:554/a", "rtsp://%C3%BC:a%20b@[::1]:554/a"),
        ("rtsp://host/a", "rtsp://host/a"),
    ],
)
def test_a_login_is_percent_encoded(given: str, opened: str) -> None:
    assert parse_address(given).given == opened


@given(user=_SECRET, password=_SECRET)
def test_user_and_password_beside_the_address_arrive_unchanged(user: str, password: str) -> None:
    address = parse_address(with_login("http://host:8080/a?b=c", user, password))
    parts = urlsplit(address.given)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("host", 8080, "/a", "b=c")
    assert address.shown == "http://***@host:8080/a?b=***"


def test_two_logins_or_one_for_a_file_are_refused() -> None:
    with pytest.raises(SourceError, match=r"http://\*\*\*@host/a: contains a user, and `username` is given too"):
        with_login("http://u:hunter2@host/a", "viewer", "x")
    with pytest.raises(SourceError, match="are for network addresses"):
        with_login("0", "viewer", "x")
