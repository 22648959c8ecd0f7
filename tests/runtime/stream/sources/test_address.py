from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.errors import SourceError
from msc_edge.runtime.stream.sources.address import parse_address, redacted


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
        ("rtsp://u:p@host/a?x=1&token=2#frag", "rtsp://***@host/a?x=***&token=***"),
        ("http://host/?secret", "http://host/?***"),
    ],
)
def test_unquoted_passwords_are_hidden_too(url: str, shown: str) -> None:
    assert redacted(url) == shown
