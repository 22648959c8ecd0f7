import logging
import math
import re
import threading
from datetime import UTC, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from msc_edge.errors import SourceError
from msc_edge.runtime.stream.frame import Frame
from msc_edge.runtime.stream.sources.video import VideoSource

CLIP = Path(__file__).parents[4].parent / "shared" / "data" / "video" / "bottle-detection.mp4"
HEIGHT, WIDTH = 96, 128
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 60), (30, 60, 220)
FORMATS = [  # (suffix, codec); the first two are lossless
    ("mkv", "FFV1"),
    ("avi", "FFV1"),
    ("avi", "MJPG"),
    ("mp4", "mp4v"),
    ("mov", "mp4v"),
    ("ts", "MPG2"),
    ("mpg", "MPG1"),
    ("webm", "VP80"),
    ("wmv", "WMV2"),
    ("mjpeg", "MJPG"),
]


def numbered(number: int) -> np.ndarray:
    """RGB: the number in eight black and white stripes, above a red, a green and a blue field."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        image[:48, 16 * bit : 16 * bit + 16] = 255 * (number >> bit & 1)
    image[48:, :44], image[48:, 44:84], image[48:, 84:] = RED, GREEN, BLUE
    return image


def number_in(image: np.ndarray) -> int:
    return sum(int(image[24, 16 * bit + 8].mean() > 128) << bit for bit in range(8))


def write(path: Path, codec: str, *, frames: int = 60, fps: float = 25) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (WIDTH, HEIGHT))
    if not writer.isOpened():
        pytest.skip(f"this build of OpenCV does not write {codec} in {path.suffix}")
    for number in range(frames):
        writer.write(numbered(number)[..., ::-1])
    writer.release()
    return path


class Events(list[tuple[str, str, float | None]]):
    """The events of a source."""

    def __call__(self, kind: str, message: str, seconds: float | None) -> None:
        self.append((kind, message, seconds))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self]


def read(path: Path) -> tuple[list[Frame], Events]:
    events = Events()
    frames = list(VideoSource("clip", path).frames(events))
    assert None not in frames
    return [frame for frame in frames if frame is not None], events


def image_of(frame: Frame) -> np.ndarray:
    assert frame.image is not None
    return frame.image


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_every_frame_comes_once_in_order(tmp_path: Path, suffix: str, codec: str) -> None:
    frames, events = read(write(tmp_path / f"clip.{suffix}", codec))
    assert [number_in(image_of(frame)) for frame in frames] == list(range(60))
    assert [frame.index for frame in frames] == list(range(60))
    assert {frame.dropped for frame in frames} == {0}
    assert {frame.source for frame in frames} == {"clip"}
    assert events == [("source_up", "reading frames", None), ("source_ended", "60 frames were scored", None)]


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_positions_follow_the_rate_of_the_file(tmp_path: Path, suffix: str, codec: str) -> None:
    frames, _ = read(write(tmp_path / f"clip.{suffix}", codec))
    positions = {frame.index: frame.position for frame in frames if frame.position is not None}
    assert positions == pytest.approx({number: number / 25 for number in positions}, abs=0.002)
    # FFmpeg has no time for the last frame of an MPEG program stream.
    assert list(positions) == list(range(59 if suffix == "mpg" else 60))


@pytest.mark.parametrize("fps", [0.5, 10, 29.97, 30, 60])
@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "FFV1"), ("avi", "FFV1"), ("mp4", "mp4v")])
def test_positions_are_correct_at_other_rates(tmp_path: Path, suffix: str, codec: str, fps: float) -> None:
    frames, _ = read(write(tmp_path / f"clip.{suffix}", codec, frames=20, fps=fps))
    # The times of Matroska are whole milliseconds.
    assert [frame.position for frame in frames] == pytest.approx([number / fps for number in range(20)], abs=0.001)


@pytest.mark.parametrize(("suffix", "codec"), FORMATS[:2])
def test_a_lossless_codec_gives_the_same_pixels_as_rgb(tmp_path: Path, suffix: str, codec: str) -> None:
    frames, _ = read(write(tmp_path / f"clip.{suffix}", codec, frames=9))
    for number, frame in enumerate(frames):
        image = image_of(frame)
        assert (image.dtype, image.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
        assert np.array_equal(image, numbered(number))


@pytest.mark.parametrize(("suffix", "codec"), FORMATS[2:])
def test_a_lossy_codec_keeps_the_order_of_colours(tmp_path: Path, suffix: str, codec: str) -> None:
    frames, _ = read(write(tmp_path / f"clip.{suffix}", codec, frames=5))
    for frame in frames:
        for column, colour in ((20, RED), (64, GREEN), (108, BLUE)):
            assert image_of(frame)[72, column].astype(int) == pytest.approx(colour, abs=20)


def test_a_frame_is_not_overwritten_by_later_ones(tmp_path: Path) -> None:
    """The window and the image store may still use it."""
    frames, _ = read(write(tmp_path / "clip.mkv", "FFV1", frames=3))
    assert [number_in(image_of(frame)) for frame in frames] == [0, 1, 2]
    assert not np.shares_memory(image_of(frames[0]), image_of(frames[1]))


def test_times_are_in_utc_and_increase(tmp_path: Path) -> None:
    frames, _ = read(write(tmp_path / "clip.mkv", "FFV1", frames=10))
    assert all(frame.time.utcoffset() == timedelta(0) and frame.time.tzinfo is UTC for frame in frames)
    assert [frame.captured for frame in frames] == sorted(frame.captured for frame in frames)
    assert all(math.isfinite(frame.captured) for frame in frames)
    assert {frame.id for frame in frames} == {None}, "another run gets other ids"


def test_a_real_clip_is_read_to_its_end() -> None:
    if not CLIP.is_file():
        pytest.skip(f"{CLIP.name} is not there: ../shared is absent")
    events, count, last = Events(), 0, -1.0
    for frame in VideoSource("bottles", CLIP).frames(events):
        assert frame is not None
        assert frame.position is not None
        assert frame.index == count
        assert frame.position > last
        count, last = count + 1, frame.position
    assert count == 1189
    assert events[-1] == ("source_ended", "1189 frames were scored", None)


def test_a_file_name_may_have_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "Schicht 1, größer %03d [a].avi"
    write(tmp_path / "clip.avi", "MJPG", frames=4).rename(path)
    frames, _ = read(path)
    assert [number_in(image_of(frame)) for frame in frames] == [0, 1, 2, 3]


# -- damaged files


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "FFV1"), ("avi", "FFV1"), ("avi", "MJPG"), ("webm", "VP80")])
def test_a_truncated_video_reports_how_many_frames_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, codec: str
) -> None:
    path = write(tmp_path / f"clip.{suffix}", codec)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with caplog.at_level(logging.WARNING, logger="msc_edge.stream"):
        frames, events = read(path)
    assert 20 < len(frames) < 50
    whole = [frame for frame in frames if frame.error is None]
    assert [number_in(image_of(frame)) for frame in whole] == list(range(len(whole)))
    cut = "; 1 could not be decoded" if codec == "MJPG" else ""  # the end of the file is within an image
    assert len(frames) - len(whole) == bool(cut)
    message = f"{len(whole)} frames were scored{cut}; the file declares 60"
    assert events[-1] == ("source_ended", message, None)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert str(path) in caplog.text


def test_damage_in_the_middle_is_reported_and_the_other_frames_keep_their_position(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", "MJPG")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = bytes(len(content) // 10)
    path.write_bytes(content)
    frames, events = read(path)
    undamaged = [frame for frame in frames if frame.index < 20 or frame.index >= len(frames) - 20]
    assert 40 <= len(frames) < 60
    assert "the file declares 60" in events[-1][1]
    positions = [number_in(image_of(frame)) / 25 for frame in undamaged]
    assert [frame.position for frame in undamaged] == pytest.approx(positions, abs=0.001)


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mov", "MJPG"), ("mkv", "MJPG"), ("mov", "MPNG")])
def test_a_damaged_image_of_a_series_of_images_is_not_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, codec: str
) -> None:
    """FFmpeg would show it with pixels of the image before."""
    path = write(tmp_path / f"clip.{suffix}", codec, frames=9)
    content = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(rb"\xff\xd8\xff" if codec == "MJPG" else rb"\x89PNG", content)]
    ends = [found.start() for found in re.finditer(rb"\xff\xd9" if codec == "MJPG" else rb"IEND", content)]
    assert len(starts) == len(ends) == 9
    content[(starts[4] + ends[4]) // 2 : ends[4]] = bytes(ends[4] - (starts[4] + ends[4]) // 2)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="msc_edge.stream"):
        frames, events = read(path)
    assert [frame.index for frame in frames if frame.image is None] == [4]
    assert [number_in(image_of(frame)) for frame in frames if frame.image is not None] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert "damaged" in str(frames[4].error)
    assert events[-1][1] == "8 frames were scored; 1 could not be decoded"
    assert f"clip: frame 4 of {path} cannot be decoded: " in caplog.text


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_no_frame_is_reported_missing_in_a_complete_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, codec: str
) -> None:
    """Some containers do not declare a number, and FFmpeg estimates it."""
    with caplog.at_level(logging.INFO, logger="msc_edge.stream"):
        _, events = read(write(tmp_path / f"clip.{suffix}", codec, frames=7))
    assert events[-1][1] == "7 frames were scored"
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [b"", b"not a video\n" * 100, b"\0" * 5000, b"RIFF\x10\0\0\0AVI LIST", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"],
)
def test_a_file_that_is_not_a_video_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"clip\.mp4: not a video that can be decoded; check the file"):
        VideoSource("clip", path)


def test_an_mp4_without_its_end_is_refused(tmp_path: Path) -> None:
    """Its index is at the end; a recorder that lost power leaves such a file."""
    path = write(tmp_path / "clip.mp4", "mp4v")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(SourceError, match="not a video that can be decoded"):
        VideoSource("clip", path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.mp4: not a video"):
        VideoSource("clip", tmp_path / "none.mp4")


# -- the end


def test_closing_ends_it_after_the_current_frame(tmp_path: Path) -> None:
    events = Events()
    source = VideoSource("clip", write(tmp_path / "clip.mkv", "FFV1"))
    seen = []
    for frame in source.frames(events):
        assert frame is not None
        seen.append(frame.index)
        if frame.index == 9:
            thread = threading.Thread(target=source.close)
            thread.start()
            thread.join()
    assert seen == list(range(10))
    assert events.kinds == ["source_up"], "it was not read to its end"
    source.close()


def test_a_source_that_was_closed_yields_nothing(tmp_path: Path) -> None:
    events = Events()
    source = VideoSource("clip", write(tmp_path / "clip.mkv", "FFV1", frames=3))
    source.close()
    assert list(source.frames(events)) == []
    assert events == []


def test_a_reader_that_stops_closes_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", "FFV1")
    reading = VideoSource("clip", path).frames(Events())
    next(reading)
    held = [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.resolve() == path]
    assert held, "open during reading"
    reading.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [link for link in Path("/proc/self/fd").iterdir() if link.exists() and link.resolve() == path]


def test_ffmpeg_prints_nothing_about_a_damaged_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "clip.mp4", "mp4v", frames=5)
    capfd.readouterr()
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])
    with pytest.raises(SourceError, match="not a video that can be decoded"):
        VideoSource("clip", path)
    assert "moov atom not found" not in capfd.readouterr().err
