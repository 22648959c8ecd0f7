from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from msc_edge.errors import SourceError, UsageError
from msc_edge.images import DecodePolicy
from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.sources.address import SourceKind, parse_address
from msc_edge.runtime.stream.sources.camera import CameraSource
from msc_edge.runtime.stream.sources.factory import addresses_of, open_source
from msc_edge.runtime.stream.sources.folder import FolderSource
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.sources.video import VideoSource
from msc_edge.runtime.stream.state import State


def sources(*addresses: str, **options: object) -> list[SourceConfig]:
    return [SourceConfig.model_validate({"address": address, **options}) for address in addresses]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture
def opened(tmp_path: Path):
    """Open a source as the service does."""
    with State.open(tmp_path / "state") as state:

        def open_it(config: SourceConfig) -> Source:
            ((name, address, options),) = addresses_of([config])
            return open_source(name, address, options, state=state, decode=DecodePolicy, on_restart=lambda _: None)

        yield open_it


@pytest.mark.parametrize(
    ("address", "kind", "type_", "name"),
    [
        ("0", "webcam", CameraSource, "camera0"),
        ("/dev/video97", "webcam", CameraSource, "camera97"),
        ("rtsp://viewer:hunter2@10.0.0.5:554/stream1", "network", CameraSource, "10.0.0.5-stream1"),
        ("http://cam.local/video", "network", CameraSource, "cam.local-video"),
        ("FOLDER/clip.avi", "video", VideoSource, "clip.avi"),
        ("FOLDER/incoming", "folder", FolderSource, "incoming"),
    ],
)
def test_each_kind_of_address_opens_its_kind_of_source(
    opened: Callable[[SourceConfig], Source],
    video: Path,
    address: str,
    kind: SourceKind,
    type_: type[Source],
    name: str,
) -> None:
    (video.parent / "incoming").mkdir()
    (config,) = sources(address.replace("FOLDER", str(video.parent)))
    ((default_name, found, same),) = addresses_of([config])
    assert (default_name, found.kind, same) == (name, kind, config)
    source = opened(config)
    assert (type(source), source.name) == (type_, name)
    source.close()
    source.close()


def test_a_configured_name_replaces_the_one_from_the_address(opened: Callable[[SourceConfig], Source]) -> None:
    (config,) = sources("rtsp://10.0.0.5/stream1", name="filler")
    assert opened(config).name == "filler"


def test_the_order_of_the_configuration_is_kept(video: Path) -> None:
    found = addresses_of(sources("3", str(video), "rtsp://10.0.0.5/a", "1"))
    assert [name for name, _, _ in found] == ["camera3", "clip.avi", "10.0.0.5-a", "camera1"]


@pytest.mark.parametrize(
    ("addresses", "duplicate"),
    [
        (["rtsp://10.0.0.5/a", "1", "rtsp://10.0.0.5:8554/a"], "10.0.0.5-a"),
        (["rtsp://viewer:hunter2@cam/a", "rtsp://viewer:hunter3@cam/a"], "cam-a"),
    ],
)
def test_two_sources_of_one_name_are_refused_with_the_remedy(addresses: list[str], duplicate: str) -> None:
    with pytest.raises(UsageError, match=f"two sources have the name {duplicate}; give each its own `name`") as caught:
        addresses_of(sources(*addresses))
    assert "hunter" not in str(caught.value)
    named = [config.model_copy(update={"name": f"cam{number}"}) for number, config in enumerate(sources(*addresses))]
    assert [name for name, _, _ in addresses_of(named)] == [f"cam{number}" for number in range(len(addresses))]


@pytest.mark.parametrize("given", [("0", "/dev/video0"), ("FOLDER", "FOLDER/../FOLDER"), ("rtsp://h/a", "rtsp://h/a")])
def test_one_source_may_be_given_once(given: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also under two names: a file that one of them has processed would be missing for the other."""
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    one, other = sources(*given)
    with pytest.raises(UsageError, match="is given twice"):
        addresses_of([one, other.model_copy(update={"name": "another"})])


def test_a_configured_name_may_not_be_the_default_name_of_another_source() -> None:
    first, second = sources("0")[0], sources("1", name="camera0")[0]
    with pytest.raises(UsageError, match="two sources have the name camera0"):
        addresses_of([first, second])


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://viewer:hunter2@",
        "ftp://viewer:hunter2@10.0.0.5/a",
        "rtsp:/viewer:hunter2@10.0.0.5/a",
        "rtsp//viewer:hunter2@10.0.0.5/a",
        "viewer:hunter2@10.0.0.5",
        "/etc/msc-edge/viewer:hunter2@10.0.0.5/a",  # the same in a configuration file
    ],
)
def test_a_wrong_address_is_refused_without_its_password(address: str) -> None:
    """A missing slash must not put the password of a camera into the log of the service."""
    with pytest.raises(SourceError) as caught:
        addresses_of(sources("0", address))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_a_video_is_refused(opened: Callable[[SourceConfig], Source], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a video")
    with pytest.raises(SourceError, match=r"notes\.txt: not a video"):
        opened(sources(str(tmp_path / "notes.txt"))[0])


@settings(max_examples=50)
@given(st.text("abc019ÄЖ -_./%&?=:@#", min_size=1, max_size=90))
def test_a_default_name_is_a_valid_name(rest: str) -> None:
    """It becomes part of topics and file names."""
    try:
        address = parse_address(f"rtsp://camera.local/{rest}")
    except SourceError:  # after an unquoted @ there must be a host
        reject()
    config = SourceConfig.model_validate({"address": "0", "name": address.default_name})
    assert config.name == address.default_name
