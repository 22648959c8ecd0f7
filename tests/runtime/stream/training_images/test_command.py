"""The command on real sources: a video, a camera by HTTP and by RTSP, and a folder."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.drawing import encode_image
from msc_edge.image_files import find_images
from msc_edge.images import decode_image, read_image
from msc_edge.runtime.stream.training_images.image_folder import open_image_folder

TIMEOUT = 60.0  # seconds; reached by a failing test only
STANDS = 8  # frames that each part stands still
KINDS = ("sharp", "blurred", "dark", "bright")


class Capture:
    """A running `msc-edge capture`."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "msc_edge", "capture", *map(str, arguments)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, given: str = "") -> tuple[int, list[str], str]:
        """The exit code, the lines of standard output, and standard error."""
        out, error = self.process.communicate(given, timeout=TIMEOUT)
        return self.process.returncode, out.splitlines(), error


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Capture]]:
    running: list[Capture] = []

    def run(*arguments: object) -> Capture:
        running.append(Capture(tmp_path, *arguments))
        return running[-1]

    yield run
    for each in running:
        each.process.kill()
        each.process.wait()


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, scene: Callable, noisy: Callable) -> Path:
    """Ten parts that stand still for a while before a noisy camera, one after the other; losslessly compressed."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10, (320, 240))
    assert writer.isOpened()
    for index in range(10 * STANDS):
        writer.write(cv2.cvtColor(noisy(scene(index // STANDS), 2, index), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def frames_of(video: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


def images_of(folder: Path) -> list[Path]:
    return [path for path in find_images([folder]).paths if path.suffix == ".png"] if any(folder.iterdir()) else []


def test_each_standing_part_of_a_video_is_kept_once_bit_for_bit(
    start: Callable[..., Capture], video: Path, tmp_path: Path
) -> None:
    code, lines, _ = start(video, "--out", "parts", "--every", 0).end()
    assert (code, lines[0]) == (0, f"parts: 10 of 200 images; skipped: {10 * STANDS - 10} similar")
    assert lines[1:] == [
        f"contact sheet: {tmp_path / 'parts-contact-sheet.jpg'}",
        "next: msc-edge train --normal parts --out RUN",
    ]
    kept = [read_image(path) for path in images_of(tmp_path / "parts")]
    expected = frames_of(video)[::STANDS]
    assert all(np.array_equal(*pair) for pair in zip(kept, expected, strict=True))


def test_frames_from_before_the_camera_was_in_focus_do_not_stay(
    start: Callable[..., Capture], scene: Callable, tmp_path: Path
) -> None:
    """The first frames have nothing to be compared with, so only later ones show that they are blurred."""
    (tmp_path / "in").mkdir()
    for number in range(12):
        image = cv2.GaussianBlur(scene(number), (0, 0), 4) if number < 3 else scene(number)
        (tmp_path / f"in/{number:02}.png").write_bytes(encode_image(image, ".png"))
    code, lines, error = start("in", "--out", "parts", "--images", 9).end()
    assert (code, lines[0]) == (0, "parts: 9 of 9 images; skipped: 3 blurred")
    assert error.count("was removed: later frames are sharper") == 3
    kept = [read_image(path) for path in images_of(tmp_path / "parts")]
    assert all(np.array_equal(image, scene(number)) for number, image in enumerate(kept, start=3))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--every", 0, "--keep-similar"], 10 * STANDS),
        (["--every", 0, "--keep-all", "--images", 30], 30),
        (["--keep-all"], 8),  # ten frames a second for eight seconds
        (["--every", 0.5, "--keep-all"], 16),
    ],
)
def test_the_number_of_images(
    options: list[object], count: int, start: Callable[..., Capture], video: Path, tmp_path: Path
) -> None:
    code, lines, _ = start(video, "--out", "parts", *options).end()
    assert (code, len(images_of(tmp_path / "parts"))) == (0, count)
    assert lines[0] == f"parts: {count} of {30 if 30 in options else 200} images"


def test_a_second_run_continues_in_a_folder_with_an_odd_name(
    start: Callable[..., Capture], video: Path, tmp_path: Path
) -> None:
    out = "odd 'name' [x] & ümlaut"
    first = start(video, "--out", out, "--every", 0, "--images", 3).end()
    before = {path: path.read_bytes() for path in images_of(tmp_path / out)}
    code, lines, _ = start(video, "--out", out, "--every", 0, "--images", 7).end()
    assert (first[0], code) == (0, 0)
    assert lines[0].startswith(f"{out}: 7 of 7 images, 3 of them from earlier runs; skipped: ")
    assert lines[-1] == """next: msc-edge train --normal 'odd '"'"'name'"'"' [x] & ümlaut' --out RUN"""
    images = images_of(tmp_path / out)
    assert [path.stem[-4:] for path in images] == [f"{number:04d}" for number in range(1, 8)]
    assert {path: path.read_bytes() for path in images[:3]} == before
    kept = [read_image(path) for path in images]
    assert all(np.array_equal(*pair) for pair in zip(kept, frames_of(video)[::STANDS][:7], strict=True))
    assert start(video, "--out", out, "--images", 7).end()[1][0] == f"{out}: 7 of 7 images, 7 of them from earlier runs"


def test_the_same_video_again_adds_no_image(
    start: Callable[..., Capture], noisy: Callable, scene: Callable, tmp_path: Path
) -> None:
    """Also where its images are many: the first of thirty is far from the latest."""
    writer = cv2.VideoWriter(str(tmp_path / "line.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (320, 240))
    for number in range(30):
        writer.write(noisy(scene(number), 2, number)[..., ::-1])
    writer.release()
    lines = [start("line.avi", "--out", "parts", "--every", 0).end() for _ in range(2)]
    assert lines[0][1][0] == "parts: 30 of 200 images"
    assert lines[1][1][0] == "parts: 30 of 200 images, 30 of them from earlier runs; skipped: 30 similar"
    assert "parts: 30 images of earlier runs are there; frames that are similar to them are skipped" in lines[1][2]
    assert len(images_of(tmp_path / "parts")) == 30


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing-there", "--out", "x"], 3, "no such file or folder; expected a webcam number"),
        (["notes.txt", "--out", "x"], 3, "not a video that can be decoded"),
        (["rtsp://viewer:hunter2@nowhere:port/x", "--out", "x"], 3, "the host or the port is not valid"),
        (["0", "--out", "x", "--trigger", "key", "--every", "1"], 2, "exclude each other"),
        (["VIDEO", "--out", "x", "--trigger", "key"], 2, "is for cameras"),
        ([".", "--out", "x"], 2, "is inside the source"),
        (["VIDEO", "--out", "notes.txt"], 5, "cannot write notes.txt: File exists"),
        (["left", "--out", "x", "--config", "line.toml"], 2, "no source has the name left; expected one of right"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    arguments: list[str], code: int, message: str, start: Callable[..., Capture], video: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not a video")
    (tmp_path / "line.toml").write_text('[[source]]\nname = "right"\naddress = "0"\n')
    done, out, error = start(*(video if each == "VIDEO" else each for each in arguments)).end()
    assert (done, out, len(error.splitlines())) == (code, [], 1), error
    assert message in error
    assert "hunter2" not in error


def test_a_video_of_which_no_frame_is_kept_is_an_error(start: Callable[..., Capture], tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "dark.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), 10, np.uint8))
    writer.release()
    code, out, error = start("dark.avi", "--out", "parts", "--every", 0).end()
    assert (code, out) == (3, [])
    assert error.splitlines()[-1] == "error: no image was captured: 0 of 200 images; skipped: 5 dark"
    assert "not kept (dark): nearly all of it is dark; check lamp" in error
    assert not (tmp_path / "parts-contact-sheet.jpg").exists()


def jpeg_of(number: int, scene: Callable, noisy: Callable) -> bytes:
    """A frame of the line. The first four parts are sharp: they show how sharp this camera can be."""
    part = number // STANDS
    kind = KINDS[part % len(KINDS)] if part >= 4 else "sharp"
    image = cv2.GaussianBlur(scene(part), (0, 0), 4) if kind == "blurred" else scene(part)
    image = {"dark": image // 12, "bright": np.full_like(image, 255)}.get(kind, image)
    return cv2.imencode(".jpg", noisy(image, 2, number)[..., ::-1])[1].tobytes()


@pytest.fixture
def line(scene: Callable, noisy: Callable) -> Iterator[str]:
    """The address of a camera by HTTP at a line: parts stand still; some frames are blurred, dark or bright."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with contextlib.suppress(OSError):
                for number in itertools.count():
                    data = jpeg_of(number, scene, noisy)
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n")
                    time.sleep(0.05)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://viewer:hunter2@127.0.0.1:{server.server_port}/video"
    server.shutdown()
    server.server_close()


@pytest.fixture
def rtsp_line(rtsp_camera: Callable, scene: Callable, noisy: Callable) -> Iterator[str]:
    """The same camera by RTSP."""
    with rtsp_camera(lambda number: jpeg_of(number, scene, noisy), width=320, height=240) as address:
        yield address


def assert_good(images: list[Path]) -> None:
    """Whole images, of parts that differ, and neither blurred nor dark nor bright."""
    decoded = [decode_image(np.fromfile(path, np.uint8)) for path in images]
    for image in decoded:
        assert image.shape == (240, 320, 3)
        assert 90 < image.mean() < 160
        assert cv2.Laplacian(image, cv2.CV_64F).var() > 100
    for one, other in itertools.pairwise(decoded):
        assert np.abs(one.astype(int) - other).max() > 40


@pytest.mark.slow
@pytest.mark.parametrize("camera", ["line", "rtsp_line"])
def test_a_camera_gives_sharp_well_lit_images_of_different_parts(
    camera: str, start: Callable[..., Capture], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    code, lines, error = start(request.getfixturevalue(camera), "--out", "parts", "--every", 0, "--images", 8).end()
    assert (code, lines[0].split(";")[0]) == (0, "parts: 8 of 8 images"), error
    assert all(reason in lines[0] for reason in ("similar", "blurred", "dark", "bright"))
    assert_good(images_of(tmp_path / "parts"))
    assert "hunter2" not in error + "".join(lines)


@pytest.mark.slow
def test_images_of_an_rtsp_camera_are_trained_on_at_once(
    start: Callable[..., Capture], rtsp_line: str, tmp_path: Path, scene: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a camera, with blurred, dark and bright frames, to scores: the commands that each step names."""
    monkeypatch.chdir(tmp_path)
    code, lines, error = start(rtsp_line, "--out", "parts", "--every", 0, "--images", 8).end()
    assert (code, lines[-1]) == (0, "next: msc-edge train --normal parts --out RUN"), error
    cv2.imwrite(str(tmp_path / "good.png"), scene(1000)[..., ::-1])
    for command in (
        "train --normal parts --out run --steps 0 --image-size 64 --patch-rows 50",
        "export run --out kit --precision fp32",
        "score kit good.png parts --out scores.csv",
    ):
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, done.output
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 1 + 8


def test_each_line_of_a_pipe_takes_one_frame(start: Callable[..., Capture], line: str, tmp_path: Path) -> None:
    code, lines, error = start(line, "--out", "parts", "--trigger", "key", "--keep-all").end("\n\npart 3\n")
    assert (code, lines[0]) == (0, "parts: 3 of 200 images"), error
    assert len(images_of(tmp_path / "parts")) == 3
    assert error.count("kept as ") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_what_is_there(
    number: signal.Signals, start: Callable[..., Capture], line: str, tmp_path: Path, until: Callable
) -> None:
    running = start(line, "--out", "parts", "--every", 0)
    until(lambda: len(list(tmp_path.glob("parts/*.png"))) >= 2, "two images", timeout=TIMEOUT)
    running.process.send_signal(number)
    code, lines, error = running.end()
    count = len(images_of(tmp_path / "parts"))
    assert (code, lines[0].split(" images")[0]) == (0, f"parts: {count} of 200"), error
    assert lines[2] == "for more images, repeat this command: it continues"
    assert read_image(tmp_path / "parts-contact-sheet.jpg").ndim == 3


@pytest.mark.slow
def test_a_killed_process_leaves_whole_files_only(
    start: Callable[..., Capture], line: str, tmp_path: Path, until: Callable
) -> None:
    for run in range(3):
        running = start(line, "--out", "parts", "--every", 0, "--keep-all")
        until(lambda: len(list(tmp_path.glob("parts/*.png"))) >= 5 * (run + 1), "images", timeout=TIMEOUT)  # noqa: B023
        running.process.kill()
        running.process.wait()
    with open_image_folder(tmp_path / "parts") as folder:
        assert sorted(folder.paths) == images_of(tmp_path / "parts")
        numbers = [int(path.stem[-4:]) for path in folder.paths]
        assert numbers == list(range(1, len(numbers) + 1))
        assert all(read_image(path).shape == (240, 320, 3) for path in folder.paths)
        assert set(folder.folder.iterdir()) == set(folder.paths)


def test_a_camera_that_is_not_there_is_reported_and_no_image_is_an_error(
    start: Callable[..., Capture], free_port: Callable[[], int], until: Callable
) -> None:
    running = start(f"http://viewer:hunter2@127.0.0.1:{free_port()}/video", "--out", "parts")
    assert running.process.stderr
    first: list[str] = []
    reader = threading.Thread(target=lambda: first.append(running.process.stderr.readline()), daemon=True)  # pyright: ignore[reportOptionalMemberAccess]
    reader.start()
    until(lambda: first, "the reason in the log")
    running.process.send_signal(signal.SIGINT)
    code, out, error = running.end()
    assert (code, out) == (3, [])
    assert "Connection refused" in first[0]
    assert "error: no image was captured: 0 of 200 images; connecting for" in error
    assert "hunter2" not in first[0] + error


def test_a_full_disk_ends_it_and_leaves_nothing_half_written(
    start: Callable[..., Capture], video: Path, small_disk: Path
) -> None:
    out = small_disk / "parts"
    code, lines, error = start(video, "--out", out, "--every", 0, "--keep-similar").end()
    assert (code, lines) == (5, [])
    assert "No space left on device; free some space" in error.splitlines()[-1]
    assert all(read_image(path).shape == (240, 320, 3) for path in images_of(out))
    assert not list(out.glob(".*.partial"))


def test_files_of_a_folder_are_examined_once_across_runs(
    start: Callable[..., Capture], scene: Callable, tmp_path: Path, until: Callable
) -> None:
    source, out = tmp_path / "arriving", tmp_path / "parts"
    source.mkdir()
    for number in range(25):
        cv2.imwrite(str(source / f"{number:02d}.png"), scene(number)[..., ::-1])
    (source / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    shutil.copy(source / "20.png", source / "20-copy.png")
    code, lines, _ = start(source, "--out", out, "--images", 20).end()
    assert (code, lines[0].split(";")[0]) == (0, f"{out}: 20 of 20 images")
    running = start(source, "--out", out, "--images", 100)
    until(lambda: len(list(out.glob("*.png"))) >= 25, "the other images", timeout=TIMEOUT)
    cv2.imwrite(str(source / "30.png"), scene(30)[..., ::-1])
    until(lambda: len(list(out.glob("*.png"))) >= 26, "a new image", timeout=TIMEOUT)
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0
    kept = {read_image(path).tobytes() for path in images_of(out)}
    assert kept == {scene(number).tobytes() for number in (*range(25), 30)}
    assert len(images_of(out)) == 26


@pytest.mark.slow
def test_a_source_of_a_configuration_file_has_its_login_and_its_roi(
    start: Callable[..., Capture], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "hunter2")
    address = line.replace("hunter2", "${CAMERA_PASSWORD}")
    (tmp_path / "line.toml").write_text(f'[[source]]\nname = "left"\naddress = "{address}"\nroi = "10,20,200,100"\n')
    os.chmod(tmp_path / "line.toml", 0o644)  # noqa: PTH101
    code, lines, error = start("left", "--out", "parts", "--images", 2, "--config", "line.toml").end()
    assert (code, lines[0].split(";")[0]) == (0, "parts: 2 of 2 images"), error
    assert {read_image(path).shape for path in images_of(tmp_path / "parts")} == {(100, 200, 3)}
    assert "hunter2" not in error


@pytest.mark.slow
def test_images_of_an_rtsp_camera_with_h264(start: Callable[..., Capture], own_camera: object, tmp_path: Path) -> None:
    """The one of GStreamer, with bottles on a table."""
    options = ("--out", "parts", "--every", 0.2, "--images", 10, "--keep-similar")
    code, lines, error = start(own_camera.url("clip"), *options).end()  # pyright: ignore[reportAttributeAccessIssue]
    assert (code, lines[0].split(";")[0]) == (0, "parts: 10 of 10 images"), error
    assert {read_image(path).shape for path in images_of(tmp_path / "parts")} == {(360, 640, 3)}
