"""A real RTSP server that is killed, suspended and changed, and grabber processes that die."""

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TIMEOUT = 30.0


def test_frames_are_in_order_and_dropped_ones_are_counted(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url("clip"))
    assert watched.event()[:2] == ("source_up", "frames arrive")
    frames = [watched.frame() for _ in range(30)]
    assert {image.shape for _, image in frames} == {(360, 640, 3)}
    for (one, _), (other, _) in itertools.pairwise(frames):
        assert other.index == one.index + 1 + other.dropped
        assert other.captured > one.captured
        assert other.time >= one.time
    assert len({image.tobytes() for _, image in frames}) >= 8


def test_with_max_fps_fewer_frames_are_scored_and_the_others_count_as_skipped(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url(), max_fps=4)
    frames = [watched.frame()[0] for _ in range(5)]
    gaps = np.diff([frame.captured for frame in frames[1:]])
    # The camera has 30 frames a second: at four a second six or seven are skipped each time.
    assert gaps.mean() > 0.2
    assert all(frame.skipped >= 3 for frame in frames[2:])
    assert all(frame.dropped == 0 for frame in frames[2:])
    assert all(other.index == one.index + 1 + other.skipped for one, other in itertools.pairwise(frames[1:]))


def test_during_a_long_pause_between_frames_a_source_is_not_lost(own_camera: Any, watch: Callable) -> None:
    watched = watch(own_camera.url(), max_fps=0.01, lost_after=3)
    watched.wait_for("source_up")
    watched.frame()
    time.sleep(3.5)
    assert watched.events.empty(), "no frame was requested, so none is missing"
    own_camera.kill()
    assert watched.event()[0] == "source_lost"


def test_a_camera_that_was_killed_is_lost_and_returns_even_with_another_size(own_camera: Any, watch: Callable) -> None:
    """The last frame before the loss may still be on its way after the event. It must not make the source live."""
    watched = watch(own_camera.url())
    assert watched.event()[0] == "source_up"
    assert watched.frame()[1].shape == (240, 320, 3)
    for width, height in ((640, 480), (160, 120), (160, 120)):
        own_camera.kill()
        kind, reason, _ = watched.event()
        assert (kind, "connection ended" in reason) == ("source_lost", True)
        time.sleep(0.3)
        assert watched.events.empty()
        watched.forget_frames()
        own_camera.start(width, height)
        kind, _, gap = watched.event()
        assert kind == "source_up"
        assert gap is not None
        assert watched.frame()[1].shape == (height, width, 3)
    assert watched.restarts == 0


def test_a_camera_that_is_connected_and_silent_is_lost_until_it_sends_again(own_camera: Any, watch: Callable) -> None:
    watched = watch(own_camera.url(), read_timeout=1)
    assert watched.event()[0] == "source_up"
    own_camera.send_signal(signal.SIGSTOP)
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "no frame came in time" in reason
    own_camera.send_signal(signal.SIGCONT)
    assert watched.event()[0] == "source_up"


def ball(image: np.ndarray) -> int:
    """Width of the ball in pixels. GStreamer draws it 40 pixels wide, whatever the size of the image."""
    return int((image[..., 0] > 128).any(axis=0).sum())


def test_a_size_that_changes_within_a_connection_does_not_stop_the_frames(own_camera: Any, watch: Callable) -> None:
    watched = watch(own_camera.url("ball"))
    _, image = watched.frame()
    assert (image.shape, ball(image) > 30) == ((240, 320, 3), True)
    own_camera.command("size 640 480")
    deadline = time.monotonic() + TIMEOUT
    while ball(image) > 30:  # OpenCV scales the frames to the first size
        _, image = watched.frame()
        assert image.shape == (240, 320, 3)
        assert time.monotonic() < deadline


def test_frames_are_rgb_and_a_frozen_camera_yields_none(camera: Any, watch: Callable, until: Callable) -> None:
    watched = watch(camera.url("still"), frozen_after=1)
    assert watched.event()[0] == "source_up"
    _, image = watched.frame()
    red, blue = image[100, 245], image[100, 290]  # the last two of the seven SMPTE bars
    assert int(red[0]) - red[2] > 90
    assert int(blue[2]) - blue[0] > 90
    kind, reason, _ = watched.event()
    assert kind == "source_frozen"
    assert "same frame" in reason
    time.sleep(0.2)
    watched.forget_frames()
    until(lambda: watched.restarts >= 1, "a restart")
    assert watched.frames.empty()


def test_a_grabber_that_dies_is_restarted_and_closing_leaves_nothing_behind(
    camera: Any, watch: Callable, until: Callable
) -> None:
    watched = watch(camera.url())
    assert watched.event()[0] == "source_up"
    first = watched.pid
    os.kill(first, signal.SIGKILL)
    kind, reason, _ = watched.event()
    assert (kind, "died" in reason) == ("source_lost", True)
    assert watched.event()[0] == "source_up"
    assert watched.restarts == 1
    pid = watched.pid
    assert pid != first
    watched.source.close()

    def is_gone(pid: int) -> bool:
        return not Path(f"/proc/{pid}").exists()

    until(lambda: is_gone(first) and is_gone(pid), "the processes are gone")


def test_a_process_group_that_is_killed_leaves_no_memory_behind(
    camera: Any, stream: Callable, until: Callable, rows_of: Callable, tmp_path: Path
) -> None:
    before = set(Path("/dev/shm").iterdir())
    rows = tmp_path / "rows.jsonl"
    running = stream(camera.url(), "--jsonl", rows, new_session=True)
    until(lambda: rows_of(rows), "a frame")
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(TIMEOUT)
    left = [path for path in set(Path("/dev/shm").iterdir()) - before if path.name.startswith("psm_")]
    assert left == []


def test_a_grabber_that_hangs_is_restarted(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url(), lost_after=5)
    watched.wait_for("source_up")
    first = watched.pid
    os.kill(first, signal.SIGSTOP)
    watched.wait_for("source_lost")
    watched.wait_for("source_up")
    assert watched.pid != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
