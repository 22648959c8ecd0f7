"""The window on a real X server, on one that is not there, and on one that hangs."""

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
from msc_edge.drawing import VERDICT_COLOURS
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sources.outage import Outage
from msc_edge.runtime.stream.window import Window

TIMEOUT = 30.0


def decision(
    image: np.ndarray | None, verdict: Verdict | None = "reject", *, source: str = "cam1", error: str | None = None
) -> Decision:
    frame = Frame(source=source, index=0, time=datetime.now(UTC), captured=0, image=image, error=error)
    if verdict is None:
        return Decision("id", frame, None, None)
    result = Result(0.1234, 0.1234, None, 0.01, verdict, 0.2, (), (NearestImage(0, "part_00.png", 0.1),), "fp32", "kit")
    return Decision("id", frame, result, Stages(1, 2, 3, 6))


def noise(height: int, width: int) -> np.ndarray:
    """Grey noise: it contains no colour of a verdict."""
    grey = np.random.default_rng(0).integers(0, 255, (height, width, 1), np.uint8)
    return np.repeat(grey, 3, axis=2)


def share_of(colour: tuple[int, int, int], image: np.ndarray) -> float:
    return float(np.mean(np.all(image == colour, axis=2)))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    return lambda: caplog.text


@pytest.fixture(autouse=True)
def _on_linux() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has X servers")


class Screen:
    """A real X server whose screen can be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x700x24", "-fbdir", str(folder), "-noreset"],
            pass_fds=[writing],
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as file:
            self.display = f":{file.readline().strip()}"

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
        self.process.terminate()  # not kill: it removes its socket and its lock
        self.process.wait(TIMEOUT)


REJECTED = decision(noise(240, 320))


def processes() -> list[multiprocessing.process.BaseProcess]:
    """The processes of open windows."""
    return [process for process in multiprocessing.active_children() if process.name == "msc-edge window"]


def pid_of_window() -> int:
    (process,) = processes()
    assert process.pid
    return process.pid


def open_window(folder: Path) -> tuple[Screen, Window]:
    """A window that displays `REJECTED`, on its own X server.

    Without a window manager one window of Qt in six is never painted, whatever program opens it.
    """
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt install xvfb)")
    screen = Screen(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", screen.display)
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        for _ in range(5):
            window, deadline = Window("msc-edge line3", ["cam1"]), time.monotonic() + 8
            while not (painted := screen.shows(VERDICT_COLOURS["reject"])) and time.monotonic() < deadline:
                window.show(REJECTED)
                time.sleep(0.05)
            if painted:
                return screen, window
            window.close()
    raise AssertionError("five windows, and none was painted")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Screen, Window]]:
    """A window for all tests that leave it open."""
    screen, window = open_window(tmp_path_factory.mktemp("screen"))
    yield screen, window
    window.close()
    screen.close()


@pytest.fixture
def screen(shared: tuple[Screen, Window]) -> Screen:
    return shared[0]


@pytest.fixture
def window(shared: tuple[Screen, Window]) -> Window:
    return shared[1]


@pytest.fixture
def show_until(until: Callable) -> Callable[..., None]:
    """Show a decision again and again until a condition is true."""

    def show(window: Window, shown: Decision, condition: Callable[[], object], what: str) -> None:
        until(lambda: window.show(shown) or condition(), what)

    return show


def test_it_shows_the_latest_decision(
    screen: Screen, window: Window, logged: Callable[[], str], show_until: Callable
) -> None:
    purple = np.full((240, 320, 3), (120, 20, 140), np.uint8)
    shown = decision(purple, "normal")
    show_until(window, shown, lambda: screen.shows((120, 20, 140), 70_000), "the frame on the screen")
    assert screen.shows(VERDICT_COLOURS["normal"])
    assert not screen.shows(VERDICT_COLOURS["reject"])
    shown = decision(np.full((480, 640, 3), (20, 120, 140), np.uint8), "reject")
    show_until(window, shown, lambda: screen.shows((20, 120, 140), 280_000), "a frame of another size")
    assert screen.shows(VERDICT_COLOURS["reject"])
    assert not screen.shows(VERDICT_COLOURS["normal"], 0)
    assert logged() == ""


def test_it_has_the_given_title(screen: Screen, window: Window) -> None:
    if shutil.which("xwininfo") is None:
        pytest.skip("xwininfo is not installed (apt install x11-utils)")
    del window
    command = ["xwininfo", "-display", screen.display, "-root", "-tree"]
    tree = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '"msc-edge line3"' in tree


def test_ctrl_c_does_not_close_the_window_first(screen: Screen, window: Window, show_until: Callable) -> None:
    """Ctrl-C reaches all processes of a terminal. The stream closes the window at its end."""
    before = pid_of_window()
    os.kill(before, signal.SIGINT)
    show_until(
        window, decision(noise(240, 320), "normal"), lambda: screen.shows(VERDICT_COLOURS["normal"]), "a new frame"
    )
    assert pid_of_window() == before


@pytest.mark.parametrize("process", ["window", "X server"])
def test_a_display_that_hangs_does_not_block_the_stream(screen: Screen, window: Window, process: str) -> None:
    """For example a remote display whose cable was unplugged."""
    stopped = screen.process.pid if process == "X server" else pid_of_window()
    os.kill(stopped, signal.SIGSTOP)
    done = threading.Event()
    large = decision(noise(720, 1280))

    def show() -> None:
        for _ in range(50):
            window.show(large)
        done.set()

    threading.Thread(target=show, daemon=True).start()
    in_time = done.wait(TIMEOUT)
    os.kill(stopped, signal.SIGCONT)
    assert in_time


def test_threads_may_show_at_the_same_time(
    screen: Screen, window: Window, logged: Callable[[], str], show_until: Callable
) -> None:
    threads = [
        threading.Thread(target=lambda: [window.show(REJECTED) for _ in range(200)], daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    shown = decision(noise(240, 320), "warn")
    show_until(window, shown, lambda: screen.shows(VERDICT_COLOURS["warn"]), "the frame that came last")
    assert logged() == ""


def test_closing_removes_it_from_the_screen_and_ends_its_process(tmp_path: Path, until: Callable) -> None:
    others = processes()
    screen, window = open_window(tmp_path)
    window.close()
    until(lambda: processes() == others, "the end of its process")
    until(lambda: not screen.shows(VERDICT_COLOURS["reject"], 0), "an empty screen")
    window.show(decision(noise(240, 320)))
    window.close()
    screen.close()


@pytest.mark.parametrize("process", ["window", "X server"])
def test_a_process_that_dies_does_not_end_the_stream(
    tmp_path: Path, logged: Callable[[], str], show_until: Callable, process: str
) -> None:
    others = {each.pid for each in processes()}
    screen, window = open_window(tmp_path)
    if process == "X server":
        screen.process.kill()
    else:
        (pid,) = {each.pid for each in processes()} - others
        assert pid
        os.kill(pid, signal.SIGKILL)
    show_until(window, REJECTED, lambda: "continuing without it" in logged(), "a warning")
    window.show(REJECTED)
    assert logged().count("--show:") == 1
    window.close()
    screen.close()


def test_without_a_display_it_logs_a_warning_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    others = processes()
    window = Window("msc-edge line3", ["cam1"])
    assert "--show: no display (DISPLAY is not set); continuing without a window" in logged()
    for _ in range(3):
        window.show(decision(noise(48, 64)))
    assert processes() == others
    window.close()
    window.close()


def test_a_display_without_a_server_ends_the_process_of_the_window_only(
    monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str], until: Callable, show_until: Callable
) -> None:
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    others = processes()
    window = Window("msc-edge line3", ["cam1"])
    message = "the display cannot be used; continuing without it"
    show_until(window, decision(noise(48, 64)), lambda: message in logged(), "a warning")
    until(lambda: processes() == others, "the end of its process")
    for _ in range(3):
        window.show(decision(noise(48, 64)))
    assert logged().count("--show:") == 1, "logged once"
    window.close()


GREEN = (20, 120, 140)


def shown_in_green(screen: Screen, window: Window, until: Callable) -> Decision:
    """Show a green normal frame until the window has it. Returns its decision."""
    green = decision(np.full((240, 320, 3), GREEN, np.uint8), "normal")
    until(lambda: window.show(green) or screen.shows(GREEN, 70_000), "a frame")
    return green


def becomes_grey(screen: Screen, until: Callable) -> None:
    until(lambda: not screen.shows(GREEN, 0), "the frame is grey")
    assert not screen.shows(VERDICT_COLOURS["normal"], 0)


def test_a_source_without_frames_is_grey_and_shows_no_verdict(screen: Screen, window: Window, until: Callable) -> None:
    """A window that stays green after the camera has died lets parts pass."""
    green = shown_in_green(screen, window, until)
    window.update("cam1", Outage("lost", "the connection ended"))
    becomes_grey(screen, until)
    until(lambda: screen.shows((46, 46, 46), 30_000), "the frame at half of its brightness")  # grey 93, halved
    until(lambda: window.show(green) or screen.shows(GREEN, 70_000), "frames again")


def test_a_source_that_gives_no_sign_is_grey_too(
    screen: Screen, window: Window, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example when its loop hangs."""
    monkeypatch.setattr("msc_edge.runtime.stream.window._STALLED", 0.5)
    shown_in_green(screen, window, until)
    becomes_grey(screen, until)


def test_a_part_that_was_not_inspected_is_grey_and_shows_no_verdict(
    screen: Screen, window: Window, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreadable file, or a frame that `roi` does not fit: the verdict of the part before must not stay."""
    monkeypatch.setattr("msc_edge.runtime.stream.window._HELD", 0.0)
    green = shown_in_green(screen, window, until)
    window.show(green)  # the window is busy with it
    window.show(decision(None, None, error="it is truncated"))
    becomes_grey(screen, until)
    until(lambda: screen.shows((46, 46, 46), 30_000), "the frame before at half of its brightness")
    until(lambda: window.show(green) or screen.shows(GREEN, 70_000), "frames again")


def test_a_rejected_frame_stays_although_others_follow_at_once(
    screen: Screen, window: Window, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msc_edge.runtime.stream.window._HELD", 3600.0)
    normal = shown_in_green(screen, window, until)
    for _ in range(20):
        window.show(normal)  # the window is busy with these
    window.show(decision(np.full((240, 320, 3), (120, 20, 140), np.uint8), "reject"))
    until(lambda: window.show(normal) or screen.shows((120, 20, 140), 70_000), "the rejected frame")
    assert not screen.shows(GREEN, 0)
    monkeypatch.setattr("msc_edge.runtime.stream.window._HELD", 0.0)
    window.show(decision(np.full((240, 320, 3), (120, 20, 140), np.uint8), "reject"))
    until(lambda: window.show(normal) or screen.shows(GREEN, 70_000), "the next frames")
