import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.images import read_image
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.config import ImagesConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sinks.image_store import ImageStore

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def decided(
    verdict: str = "reject",
    *,
    image: np.ndarray | None = NOISE,
    source: str = "cam",
    age: float = 0,
    id: str = "0123456789",
) -> Decision:
    moment = datetime.now(UTC) - timedelta(seconds=age)
    result = Result(0.25, 0.01, verdict, (NearestImage(0, "n.png", 0.1),))  # pyright: ignore[reportArgumentType]
    return Decision(id, Frame(source, 0, moment, 0.0, image), result, None)


def opened(folder: Path, **options: object) -> ImageStore:
    return ImageStore(ImagesConfig(folder=folder, **options))  # pyright: ignore[reportArgumentType]


def images(folder: Path) -> list[Path]:
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def saved(folder: ImageStore, decision: Decision) -> Path:
    """Save an image and wait until it is there."""
    path = folder.save(decision, why="reject")
    assert path
    until(path.exists)
    return path


class TestImages:
    def test_png_gives_the_very_pixels_back(self, tmp_path):
        folder = opened(tmp_path, format="png")
        assert np.array_equal(read_image(saved(folder, decided())), NOISE)
        folder.close()

    def test_jpg_is_near(self, tmp_path, toy):
        image = toy.draw(1)
        folder = opened(tmp_path)
        again = read_image(saved(folder, decided(image=image)))
        folder.close()
        assert again.shape == image.shape
        assert np.abs(again.astype(int) - image).mean() < 6

    def test_the_frame_may_change_as_soon_as_save_has_returned(self, tmp_path):
        folder = opened(tmp_path, format="png")
        image = NOISE.copy()
        path = folder.save(decided(image=image), why="reject")
        image[:] = 0
        folder.close(60)
        assert path
        assert np.array_equal(read_image(path), NOISE)

    def test_the_place_says_when_where_and_what(self, tmp_path):
        folder = opened(tmp_path / "Ausschuß 日本", format="png")
        time = datetime.fromisoformat("2026-11-26T00:30:05.004999+01:00")
        result = Result(0.98765, 0.01, "reject", (NearestImage(0, "n.png", 0.1),))
        path = folder.save(Decision("0123456789", Frame("line3.cam", 0, time, 0.0, NOISE), result, None), why="reject")
        folder.close(60)
        assert path == (
            tmp_path / "Ausschuß 日本" / "2026-11-25" / "line3.cam" / "20261125T233005.004Z_reject_0.9877_01234567.png"
        )
        assert images(tmp_path) == [path]

    def test_names_that_are_no_names_stay_in_the_folder(self, tmp_path):
        folder = opened(tmp_path / "p")
        path = saved(folder, decided(source="../../x", id="a/b\\c:d*e"))
        folder.close()
        assert images(tmp_path) == [path]
        assert path.resolve().is_relative_to(tmp_path / "p")


class TestWants:
    def test_rejects_always_and_every_nth_normal_frame_of_each_source(self, tmp_path):
        folder = opened(tmp_path, every=3)
        answers = {source: [folder.wants(decided("normal", source=source)) for _ in range(7)] for source in ("a", "b")}
        assert answers == {each: [None, None, "normal", None, None, "normal", None] for each in "ab"}
        assert folder.wants(decided("reject")) == "reject"
        assert folder.wants(decided("warn")) is None
        folder.close()

    def test_normal_ones_only_on_request_and_nothing_of_unreadable_files(self, tmp_path):
        folder = opened(tmp_path)
        assert {folder.wants(decided("normal")) for _ in range(9)} == {None}
        broken = Frame("in", 0, datetime.now(UTC), 0.0, None, path="a.png", error="empty")
        assert folder.wants(Decision("1", broken, None, None)) is None
        folder.close()


class TestCaps:
    @pytest.mark.parametrize("restart", [False, True])
    def test_the_oldest_go_first_beyond_the_size(self, tmp_path, restart):
        size = saved(first := opened(tmp_path, format="png"), decided(age=1000)).stat().st_size
        first.close()
        options = {"format": "png", "max_mb": 4.5 * size / 1e6}
        folder = opened(tmp_path, **options)
        paths = []
        for number in range(10):
            if restart:
                folder.close()
                folder = opened(tmp_path, **options)
            paths.append(saved(folder, decided(source=f"cam{number % 2}", age=900 - number)))
        folder.close()
        assert images(tmp_path) == paths[-4:]
        assert folder.lost == 0

    def test_the_oldest_go_first_beyond_the_age_and_empty_folders_with_them(self, tmp_path):
        folder = opened(tmp_path, max_days=1000)
        old = [saved(folder, decided(age=86400 * days)) for days in (300, 200, 100)]
        new = saved(folder, decided(age=60))
        folder.close()
        foreign = old[0].with_name("notes.txt")
        foreign.touch()
        folder = opened(tmp_path, max_days=150)
        folder.close()
        assert images(tmp_path) == sorted([old[2], new, foreign], key=lambda path: path.name)
        assert not old[1].parent.parent.exists()

    def test_files_of_others_are_never_removed(self, tmp_path):
        source = tmp_path / "2020-01-01" / "cam"
        ours = source / "20200101T000000.000Z_reject_0.5000_01234567.jpg"
        half = source / ".20200101T000000.000Z_reject_0.5000_01234567.jpg.partial"
        others = [
            tmp_path / ours.name,
            tmp_path / "2020-01-01" / ours.name,
            tmp_path / "older" / "cam" / ours.name,
            source / "deeper" / ours.name,
            source / f"{ours.name}.bak",
            source / f".{ours.name}",
            source / "20200101T000000.000Z_perhaps_0.5000_01234567.jpg",
            source / "photo.jpg",
        ]
        for path in (ours, half, *others):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(1000))
        (tmp_path / "2020-01-02" / "cam").mkdir(parents=True)
        folder = opened(tmp_path, max_days=1, max_mb=0.0001)
        folder.save(decided(), why="reject")
        folder.close(60)
        assert set(images(tmp_path)) == set(others)
        assert not (tmp_path / "2020-01-02").exists()

    @pytest.mark.skipif(not hasattr(os, "symlink"), reason="links")
    def test_what_lies_behind_a_link_is_not_ours(self, tmp_path):
        name = "20200101T000000.000Z_reject_0.5000_01234567.jpg"
        elsewhere = tmp_path / "elsewhere" / "cam" / name
        elsewhere.parent.mkdir(parents=True)
        elsewhere.touch()
        (tmp_path / "p").mkdir()
        try:
            (tmp_path / "p" / "2020-01-01").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        except OSError:
            pytest.skip("links cannot be made here")
        opened(tmp_path / "p", max_days=1).close()
        assert elsewhere.exists()

    def test_one_image_that_is_larger_than_the_cap_removes_nothing(self, tmp_path):
        folder = opened(tmp_path, format="png", max_mb=0.02)
        path = saved(folder, decided())
        folder.save(decided(image=np.tile(NOISE, (3, 3, 1)).copy() ^ 1), why="reject")
        folder.close(60)
        assert images(tmp_path) == [path]
        assert folder.take_lost() == 1
        assert "max_mb" in folder.reason


class TestLosses:
    def test_too_many_at_once_are_counted_and_rejects_have_the_longer_queue(self, tmp_path):
        folder = opened(tmp_path, format="png")
        large = np.tile(NOISE, (20, 20, 1))
        answers = [folder.save(decided("normal", image=large, id=f"n{each}"), why="normal") for each in range(20)]
        first_reject = folder.save(decided(image=large, id="r"), why="reject")
        rejects = [folder.save(decided(image=large, id=f"r{each}"), why="reject") for each in range(20)]
        assert first_reject
        folder.close(60)
        promised = [path for path in [*answers, first_reject, *rejects] if path]
        assert sorted(path.name for path in promised) == [path.name for path in images(tmp_path)]
        assert folder.lost == 41 - len(promised) > 0
        assert folder.take_lost() == folder.lost
        assert folder.take_lost() == 0
        assert "faster than they can be written" in folder.reason

    def test_several_threads(self, tmp_path):
        folder = opened(tmp_path)
        promised: list[Path | None] = []
        threads = [
            threading.Thread(
                target=lambda name=name: promised.extend(
                    folder.save(decided(source=f"cam{name}", id=f"{each:08d}"), why="reject") for each in range(50)
                )
            )
            for name in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        folder.close(60)
        assert {path for path in promised if path} == set(images(tmp_path))
        assert promised.count(None) == folder.lost

    def test_after_close_a_image_is_lost(self, tmp_path):
        folder = opened(tmp_path)
        folder.close()
        folder.close()
        assert folder.save(decided(), why="reject") is None
        assert folder.lost == 1

    def test_without_time_to_write_them_those_that_wait_are_lost(self, tmp_path):
        folder = opened(tmp_path, format="png")
        large = np.tile(NOISE, (40, 40, 1))
        for each in range(8):
            folder.save(decided(image=large, id=str(each)), why="reject")
        folder.close(0)
        until(lambda: len(images(tmp_path)) + folder.lost == 8 and not list(tmp_path.rglob("*.partial")))

    def test_a_folder_that_goes_and_comes_back(self, tmp_path):
        place = tmp_path / "p"
        folder = opened(place)
        saved(folder, decided())
        shutil.rmtree(place)
        place.write_text("a file in its place")
        folder.save(decided(), why="reject")
        until(lambda: folder.take_lost() == 1)
        assert folder.reason
        place.unlink()
        assert saved(folder, decided()).exists()
        folder.close()
        assert folder.lost == 1

    def test_a_place_that_cannot_be_a_folder(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot write"):
            opened(tmp_path / "file")
        with pytest.raises(UsageError, match=r"\[images\]"):
            ImageStore(ImagesConfig())


def test_a_full_disk_loses_images_and_leaves_no_broken_one(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    folder = opened(small_disk / "p", format="png")
    paths = []
    for each in range(6):
        before = folder.lost
        path = folder.save(decided(id=str(each)), why="reject")
        assert path
        until(lambda path=path, before=before: path.exists() or folder.lost > before)
        paths.append(path)
    assert folder.lost > 0
    assert re.search("No space left on device", folder.reason)
    ballast.unlink()
    saved(folder, decided(id="after"))
    folder.close()
    there = images(small_disk)
    assert len(there) == 7 - folder.lost
    assert all(np.array_equal(read_image(path), NOISE) for path in there)


KILLED = """
import os, sys, threading, time
import numpy as np
from datetime import UTC, datetime
from pathlib import Path
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.config import ImagesConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sinks.image_store import ImageStore

folder = ImageStore(ImagesConfig(folder=Path(sys.argv[1]), format="png"))
image = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
result = Result(0.5, 0.01, "reject", (NearestImage(0, "n.png", 0.1),))
while True:
    frame = Frame("cam", 0, datetime.now(UTC), 0.0, image)
    folder.save(Decision(os.urandom(8).hex(), frame, result, None), why="reject")
    time.sleep(0.001)
"""


def test_a_process_that_is_killed_leaves_whole_images_and_its_rest_is_swept_up(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    try:
        until(lambda: len(list(tmp_path.rglob("*.png"))) > 5)
    finally:
        writer.kill()
        writer.wait()
    whole = list(tmp_path.rglob("*.png"))
    assert {read_image(path).shape for path in whole} == {(600, 800, 3)}
    opened(tmp_path).close()
    assert set(images(tmp_path)) == set(whole)
