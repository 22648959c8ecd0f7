"""The real thing: an RTSP server that is killed, stopped and changed, and processes that die."""

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATIENCE = 30.0


def test_frames_come_in_order_and_what_was_passed_over_is_counted(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url())
    assert watched.event()[:2] == ("source_up", "frames arrive")
    frames = [watched.frame() for _ in range(40)]
    assert {image.shape for _, image in frames} == {(360, 640, 3)}
    for (one, _), (other, _) in itertools.pairwise(frames):
        assert other.index == one.index + 1 + other.dropped
        assert other.captured > one.captured
        assert other.time >= one.time
    assert len({image.tobytes() for _, image in frames}) >= 8


def test_colours_are_rgb(camera: Any, watch: Callable) -> None:
    _, image = watch(camera.url("still")).frame()
    red, blue = image[100, 245], image[100, 290]  # of the SMPTE bars; the last two of seven
    assert red[0] > 150
    assert red[2] < 60
    assert blue[2] > 150
    assert blue[0] < 60


def test_at_most_so_many_frames_a_second_and_the_rest_counts_as_dropped(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url(), max_fps=4)
    frames = [watched.frame()[0] for _ in range(9)]
    gaps = np.diff([frame.captured for frame in frames[1:]])
    # The clip has 30 frames a second, so at four a second six or seven of them pass unseen each time.
    assert gaps.mean() > 0.2
    assert all(frame.dropped >= 3 for frame in frames[2:])


def test_a_server_that_is_killed_is_told_and_its_frames_flow_again(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url())
    assert watched.event()[0] == "source_up"
    camera.kill()
    kind, reason, _ = watched.event()
    assert (kind, "connection ended" in reason) == ("source_lost", True)
    watched.forget_frames()
    camera.start()
    returned = time.monotonic()
    kind, _, gap = watched.event()
    assert kind == "source_up"
    assert gap is not None
    # What the issue promises is 5 s; a busy test machine is given more, and docs/results.md has the figure.
    assert time.monotonic() - returned < PATIENCE
    assert watched.frame()[0].captured > returned
    assert watched.restarts == 0


def test_a_server_that_is_connected_and_silent_is_told(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url())
    assert watched.event()[0] == "source_up"
    camera.send(signal.SIGSTOP)
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "no frame came in time" in reason
    camera.send(signal.SIGCONT)
    assert watched.event()[0] == "source_up"


def test_one_that_never_answers_is_lost_after_a_while_with_the_reason(
    camera: Any, watch: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "msc_edge.stream")
    url = f"rtsp://operator:hunter2@127.0.0.1:{camera.port}/clip"
    camera.kill()
    watched = watch(url, lost_after=4)
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "refused" in reason
    said = " ".join(record.getMessage() for record in caplog.records) + reason
    assert "***@127.0.0.1" in said
    assert "hunter2" not in said
    assert "operator" not in said


def test_one_without_video_is_told(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url("audio"), lost_after=4)
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "gives no video" in reason


def ball(image: np.ndarray) -> int:
    """Width of the ball in pixels; GStreamer draws it 40 pixels wide, whatever the size of the image."""
    return int((image[..., 0] > 128).any(axis=0).sum())


def test_a_size_that_changes_in_mid_stream_does_not_stop_the_frames(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url("ball"))
    _, image = watched.frame()
    assert (image.shape, ball(image) > 30) == ((240, 320, 3), True)
    camera.tell("size 640 480")
    end = time.monotonic() + PATIENCE
    while ball(image) > 30:  # OpenCV scales what comes to the size that came first
        _, image = watched.frame()
        assert image.shape == (240, 320, 3)
        assert time.monotonic() < end


def test_a_camera_may_come_back_with_another_size(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url("ball"))
    assert watched.frame()[1].shape == (240, 320, 3)
    for width, height in ((640, 480), (160, 120)):
        camera.kill()
        camera.start(width, height)
        end = time.monotonic() + PATIENCE
        while watched.frame()[1].shape != (height, width, 3):
            assert time.monotonic() < end


def test_a_frozen_camera_is_told_and_its_frames_are_not_given(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url("still"), frozen_after=1)
    assert watched.event()[0] == "source_up"
    kind, reason, _ = watched.event()
    assert kind == "source_frozen"
    assert "same frame" in reason
    time.sleep(0.2)
    watched.forget_frames()
    end = time.monotonic() + PATIENCE
    while watched.restarts < 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert watched.frames.empty()


def test_a_process_that_dies_is_started_anew(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url())
    assert watched.event()[0] == "source_up"
    first = watched.pid
    os.kill(first, signal.SIGKILL)
    kind, reason, _ = watched.event()
    assert (kind, "died" in reason) == ("source_lost", True)
    assert watched.event()[0] == "source_up"
    assert watched.pid != first
    assert watched.restarts == 1


def test_a_process_that_hangs_is_started_anew(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url(), lost_after=3)
    watched.wait_for("source_up")
    first = watched.pid
    os.kill(first, signal.SIGSTOP)
    watched.wait_for("source_lost")
    watched.wait_for("source_up")
    assert watched.pid != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_nothing_is_left_behind(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url())
    watched.frame()
    pid, memory = watched.pid, watched.source._grabber._memory
    shared = Path("/dev/shm") / memory.name
    assert shared.exists()
    watched.source.close()
    end = time.monotonic() + PATIENCE
    while shared.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_webcam_that_is_not_there_is_told(watch: Callable) -> None:
    if Path("/dev/video63").exists():
        pytest.skip("this machine has 64 cameras")
    watched = watch("/dev/video63", lost_after=4)
    kind, reason, _ = watched.event()
    assert kind == "source_lost"
    assert "plugged in" in reason


def test_a_long_pause_between_frames_does_not_blind_it(camera: Any, watch: Callable) -> None:
    watched = watch(camera.url(), max_fps=0.01, lost_after=2)
    watched.wait_for("source_up")
    watched.frame()
    time.sleep(3)
    assert watched.events.empty(), "nobody wanted a frame, so none is missed"
    camera.kill()
    assert watched.event()[0] == "source_lost"


def test_no_frame_of_a_broken_connection_makes_it_live_again(camera: Any, watch: Callable) -> None:
    """The last frame before the loss may still be on its way when the loss is told."""
    watched = watch(camera.url("ball"))
    for _ in range(4):
        assert watched.event()[0] == "source_up"
        watched.frame()
        camera.kill()
        assert watched.event()[0] == "source_lost"
        time.sleep(0.5)
        assert watched.events.empty()
        camera.start()
