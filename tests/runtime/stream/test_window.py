"""Images are looked at; the window is opened on a real X server, on one that is not there, and on one that hangs."""

import logging
import multiprocessing
import multiprocessing.process
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Verdict
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.window import Window, drawn

PATIENCE = 30.0
COLOURS: dict[Verdict, tuple[int, int, int]] = {
    "normal": (67, 160, 71),
    "warn": (251, 140, 0),
    "reject": (229, 57, 53),
}
EDGE = 4  # pixels of the frame that its coloured border may take


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about in {PATIENCE} s"
        time.sleep(0.02)


def decision(
    image: np.ndarray | None, verdict: Verdict | None = "reject", *, source: str = "cam1", error: str | None = None
) -> Decision:
    frame = Frame(source=source, index=0, time=datetime.now(UTC), captured=0, image=image, error=error)
    if verdict is None:
        return Decision("id", frame, None, None)
    result = Result(score=0.1234, p_value=0.01, verdict=verdict, nearest_images=(NearestImage(0, "part_00.png", 0.1),))
    return Decision("id", frame, result, Stages(1, 2, 3, 6))


def noise(height: int, width: int) -> np.ndarray:
    """Grey, so that none of it has a verdict's colour."""
    grey = np.random.default_rng(0).integers(0, 255, (height, width, 1), np.uint8)
    return np.repeat(grey, 3, axis=2)


def share_of(colour: tuple[int, int, int], image: np.ndarray) -> float:
    return float(np.mean(np.all(image == colour, axis=2)))


# -- drawn


@pytest.mark.parametrize("verdict", COLOURS)
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (2, 3), (48, 64), (241, 333), (720, 1280), (1080, 1920), (2160, 3840), (4001, 801), (3, 4000), (4000, 10)],
)
def test_a_frame_of_any_size_fits_on_a_screen_with_the_colour_of_its_verdict(
    height: int, width: int, verdict: Verdict
) -> None:
    image = drawn(decision(noise(height, width), verdict))
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    assert 45 <= image.shape[0] <= 1000, "smaller than the screen of a factory PC, 1080 lines with a bar"
    assert 1 <= image.shape[1] <= 1280
    others = [colour for other, colour in COLOURS.items() if other != verdict]
    assert np.all(image == COLOURS[verdict], axis=2).sum() > 50
    assert [share_of(colour, image) for colour in others] == [0, 0]


@pytest.mark.parametrize(("height", "width"), [(240, 320), (241, 333), (600, 801), (720, 1280), (480, 640)])
def test_where_no_scaling_is_needed_the_pixels_are_those_of_the_camera(height: int, width: int) -> None:
    image = noise(height, width)
    before = image.copy()
    shown = drawn(decision(image))
    assert shown.shape[1] == width
    inside = np.s_[EDGE : height - EDGE, EDGE : width - EDGE]
    assert np.array_equal(shown[inside], image[inside])
    assert np.array_equal(image, before), "the frame itself is not drawn upon: it may be saved yet"


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (2160, 3840), (3000, 3000), (720, 2000), (1500, 1280)])
def test_a_large_frame_keeps_its_proportions_and_its_brightness(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = (200, 100, 50)
    shown = drawn(decision(image))[:-44]
    shown_height, shown_width = shown.shape[:2]
    assert shown_width / shown_height == pytest.approx(width / height, rel=0.01)
    inside = shown[2 * EDGE : -2 * EDGE]
    assert np.all(inside[:, shown_width // 2 + 2 : -2 * EDGE] == (200, 100, 50))
    assert not inside[:, 2 * EDGE : shown_width // 2 - 2].any()


def test_a_small_frame_is_enlarged_without_being_blurred() -> None:
    """48 x 64 is what the toy kit looks at; each of its pixels becomes 5 x 5."""
    image = noise(48, 64)
    shown = drawn(decision(image))
    assert shown.shape[1] == 320
    assert np.array_equal(shown[2:240:5, 2:320:5][1:-1, 1:-1], image[1:-1, 1:-1])


def test_the_score_the_verdict_and_the_name_can_be_told_apart() -> None:
    """Other words make another image; how they look is for people."""
    image = noise(240, 640)
    shown = [
        drawn(decision(image, "normal"))[240:],
        drawn(decision(image, "normal", source="cam2"))[240:],
        drawn(decision(image, "warn"))[240:],
    ]
    assert not np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])


@pytest.mark.parametrize("source", ["c", "a" * 63])
def test_a_name_of_any_length_does_not_run_into_the_verdict(source: str) -> None:
    bar = drawn(decision(noise(240, 320), "reject", source=source))[240:]
    words = np.flatnonzero(np.all(bar == COLOURS["reject"], axis=2).any(axis=0))
    name = np.flatnonzero(np.all(bar == (170, 170, 170), axis=2).any(axis=0))
    assert not name.size or name.min() > words.max()
    assert words.max() < 320 - 8


@pytest.mark.parametrize(
    "error",
    [
        None,
        "cut off",
        "größer, 写真 \x1b[31m\n",
        "the image is 64x48, and the kit looks at 640x480 pixels from (0, 0); give images of another size",
    ],
)
def test_one_that_cannot_be_scored_has_no_colour_of_a_verdict(error: str | None) -> None:
    image = drawn(decision(noise(240, 320), None, error=error))
    assert [share_of(colour, image) for colour in COLOURS.values()] == [0, 0, 0]
    bar = image[240:]
    assert (bar > 100).any(), "there is something to read"
    # Of the last columns nothing is written on: what does not fit is shortened, not cut through a letter.
    assert not (bar[:, -6:] > 100).any()


# -- the window


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    return lambda: caplog.text


@pytest.fixture(autouse=True)
def _on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("X servers are Linux's")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


class Screen:
    """A real X server, whose image can be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1400x900x24", "-fbdir", str(folder), "-noreset"],
            pass_fds=[writing],
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as told:
            self.display = f":{told.readline().strip()}"

    def image(self) -> np.ndarray:
        """RGB. The file is an X window dump: a header of 32-bit words, a colour table, and the pixels."""
        content = (self.folder / "Xvfb_screen0").read_bytes()
        header = np.frombuffer(content, ">u4", 25)
        size, width, height, bits, stride, colours = (int(header[word]) for word in (0, 4, 5, 11, 12, 19))
        assert bits == 32
        pixels = np.frombuffer(content, np.uint8, stride * height, size + 12 * colours).reshape(height, stride)
        return pixels[:, : 4 * width].reshape(height, width, 4)[..., 2::-1]

    def shows(self, colour: tuple[int, int, int], pixels: int = 200) -> bool:
        return int(np.all(self.image() == colour, axis=2).sum()) > pixels

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()  # so that it takes its socket and its lock away
        self.process.wait(PATIENCE)


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt install xvfb)")
    screen = Screen(tmp_path)
    monkeypatch.setenv("DISPLAY", screen.display)
    yield screen
    screen.close()


REJECTED = decision(noise(240, 320))


def processes() -> list[multiprocessing.process.BaseProcess]:
    """Those of windows that are open."""
    return [process for process in multiprocessing.active_children() if process.name == "msc-edge window"]


def pid_of_window() -> int:
    (process,) = processes()
    assert process.pid
    return process.pid


@pytest.fixture
def window(screen: Screen) -> Iterator[Window]:
    """One that is open and shows `REJECTED`.

    On an X server without a window manager one window of Qt's in six is never painted, whatever program opens it.
    """
    for _ in range(12):
        window, end = Window("msc-edge line3"), time.monotonic() + 2.5
        while not (painted := screen.shows(COLOURS["reject"])) and time.monotonic() < end:
            window.show(REJECTED)
            time.sleep(0.05)
        if painted:
            break
        window.close()
    else:
        raise AssertionError("twelve windows, and none was painted")
    yield window
    window.close()
    until(lambda: not processes(), "the end of the window's process")


def show_until(window: Window, shown: Decision, condition: Callable[[], object], what: str) -> None:
    def step() -> object:
        window.show(shown)
        return condition()

    until(step, what)


def test_without_a_display_it_says_so_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    window = Window("msc-edge line3")
    assert "there is no display here (DISPLAY is not set); going on without a window" in said()
    for _ in range(3):
        window.show(decision(noise(48, 64)))
    assert processes() == []
    window.close()
    window.close()


def test_a_display_that_nobody_serves_ends_the_process_of_the_window_and_not_ours(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":77")
    window = Window("msc-edge line3")
    words = "the display cannot be used; going on without it"
    show_until(window, decision(noise(48, 64)), lambda: words in said(), "a sentence about it")
    until(lambda: not processes(), "the end of the window's process")
    for _ in range(3):
        window.show(decision(noise(48, 64)))
    assert said().count("--show:") == 1, "it is said once"
    window.close()


def test_it_shows_the_latest_decision(screen: Screen, window: Window, said: Callable[[], str]) -> None:
    purple = np.full((240, 320, 3), (120, 20, 140), np.uint8)
    shown = decision(purple, "normal")
    show_until(window, shown, lambda: screen.shows((120, 20, 140), 70_000), "the frame on the screen")
    assert screen.shows(COLOURS["normal"])
    assert not screen.shows(COLOURS["reject"])
    shown = decision(np.full((480, 640, 3), (20, 120, 140), np.uint8), "reject", source="cam2")
    show_until(window, shown, lambda: screen.shows((20, 120, 140), 280_000), "a frame of another size")
    assert screen.shows(COLOURS["reject"])
    assert not screen.shows(COLOURS["normal"], 0)
    assert said() == ""


def test_its_title_is_the_one_that_was_given(window: Window) -> None:
    if shutil.which("xwininfo") is None:
        pytest.skip("xwininfo is not installed (apt install x11-utils)")
    del window
    tree = subprocess.run(["xwininfo", "-root", "-tree"], capture_output=True, text=True, check=True).stdout
    assert '"msc-edge line3"' in tree


def test_closing_takes_it_from_the_screen_and_ends_its_process(screen: Screen, window: Window) -> None:
    window.close()
    until(lambda: not processes(), "the end of the window's process")
    until(lambda: not screen.shows(COLOURS["reject"], 0), "an empty screen")
    window.show(decision(noise(240, 320)))
    window.close()


@pytest.mark.parametrize("who", ["the window's process", "the X server"])
def test_one_that_dies_ends_neither_us_nor_the_log(
    screen: Screen, window: Window, said: Callable[[], str], who: str
) -> None:
    if who == "the X server":
        screen.process.kill()
    else:
        os.kill(pid_of_window(), signal.SIGKILL)
    show_until(window, REJECTED, lambda: "going on without it" in said(), "a sentence about it")
    window.show(REJECTED)
    assert said().count("--show:") == 1


def test_ctrl_c_does_not_take_the_window_first(screen: Screen, window: Window) -> None:
    """Ctrl-C reaches all processes of a terminal; ours closes the window when it is done."""
    before = pid_of_window()
    os.kill(before, signal.SIGINT)
    show_until(window, decision(noise(240, 320), "normal"), lambda: screen.shows(COLOURS["normal"]), "a new frame")
    assert pid_of_window() == before


@pytest.mark.parametrize("who", ["the window's process", "the X server"])
def test_one_that_hangs_does_not_hold_up_the_stream(screen: Screen, window: Window, who: str) -> None:
    """As a remote display does whose cable was pulled: scoring must go on."""
    stopped = screen.process.pid if who == "the X server" else pid_of_window()
    os.kill(stopped, signal.SIGSTOP)
    went_on = threading.Event()
    large = decision(noise(720, 1280))

    def score() -> None:
        for _ in range(50):
            window.show(large)
            time.sleep(0.01)
        went_on.set()

    threading.Thread(target=score, daemon=True).start()
    in_time = went_on.wait(15)
    os.kill(stopped, signal.SIGCONT)
    assert went_on.wait(PATIENCE)
    assert in_time, "half a second is what it takes"


def test_several_sources_may_show_at_the_same_time(screen: Screen, window: Window, said: Callable[[], str]) -> None:
    def show_many() -> None:
        for _ in range(200):
            window.show(REJECTED)
            time.sleep(0.001)

    threads = [threading.Thread(target=show_many, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    shown = decision(noise(240, 320), "normal")
    show_until(window, shown, lambda: screen.shows(COLOURS["normal"]), "the frame that came last")
    assert said() == ""
