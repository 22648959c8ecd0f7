import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config_sections import ImagesConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sinks.image_store import ImageStore, overlay_path

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
LARGE = np.tile(NOISE, (12, 12, 1))  # takes longer to encode than to copy
NEAREST = (NearestImage(0, "n.png", 0.1),)

Save = Callable[[ImageStore, Decision], Path]


def decision(
    verdict: str = "reject",
    *,
    image: np.ndarray | None = NOISE,
    source: str = "cam",
    age: float = 0,
    id: str = "0123456789",
) -> Decision:
    moment = datetime.now(UTC) - timedelta(seconds=age)
    result = Result(0.25, 0.25, None, 0.01, verdict, 0.2, (), NEAREST, "fp32", "kit")  # pyright: ignore[reportArgumentType]
    return Decision(id, Frame(source, 0, moment, 0.0, image), result, None)


def opened(folder: Path, clock: Clock | None = None, **options: object) -> ImageStore:
    return ImageStore(ImagesConfig(folder=folder, **options), clock)  # pyright: ignore[reportArgumentType]


def images(folder: Path) -> list[Path]:
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name)


@pytest.fixture
def saved(until: Callable) -> Save:
    """Save an image and wait until it is written."""

    def save(store: ImageStore, decision: Decision) -> Path:
        path = store.save(decision, reason="reject")
        assert path
        until(path.exists)
        return path

    return save


# -- one image


def test_png_has_the_same_pixels(tmp_path: Path, saved: Save) -> None:
    store = opened(tmp_path, format="png")
    assert np.array_equal(read_image(saved(store, decision())), NOISE)
    store.close()


def test_jpg_has_similar_pixels(tmp_path: Path, saved: Save, toy: ModuleType) -> None:
    image = toy.draw(1)
    store = opened(tmp_path)
    read = read_image(saved(store, decision(image=image)))
    store.close()
    assert read.shape == image.shape
    assert np.abs(read.astype(int) - image).mean() < 6


def test_the_frame_may_change_after_save_has_returned(tmp_path: Path) -> None:
    store = opened(tmp_path, format="png")
    image = NOISE.copy()
    path = store.save(decision(image=image), reason="reject")
    image[:] = 0
    store.close(60)
    assert path
    assert np.array_equal(read_image(path), NOISE)


def test_the_path_contains_time_source_verdict_score_and_id(tmp_path: Path) -> None:
    store = opened(tmp_path / "Ausschuß 日本", format="png")
    time = datetime.fromisoformat("2026-11-26T00:30:05.004999+01:00")
    result = Result(0.98765, 0.98765, None, 0.01, "reject", 0.2, (), NEAREST, "fp32", "kit")
    frame = Frame("line3.cam", 0, time, 0.0, NOISE)
    path = store.save(Decision("0123456789", frame, result, None), reason="reject")
    store.close(60)
    assert path == (
        tmp_path / "Ausschuß 日本" / "2026-11-25" / "line3.cam" / "20261125T233005.004Z_reject_0.9877_01234567.png"
    )
    assert images(tmp_path) == [path]


def test_a_name_with_slashes_stays_in_the_folder(tmp_path: Path, saved: Save) -> None:
    store = opened(tmp_path / "saved")
    path = saved(store, decision(source="../../x", id="a/b\\c:d*e"))
    store.close()
    assert images(tmp_path) == [path]
    assert path.resolve().is_relative_to(tmp_path / "saved")


# -- which frames are saved


def test_every_reject_and_every_nth_normal_frame_of_each_source(tmp_path: Path) -> None:
    store = opened(tmp_path, every=3)
    reasons = {
        source: [store.reason_to_save(decision("normal", source=source)) for _ in range(7)] for source in ("a", "b")
    }
    assert reasons == {each: [None, None, "normal", None, None, "normal", None] for each in "ab"}
    assert store.reason_to_save(decision("reject")) == "reject"
    assert store.reason_to_save(decision("warn")) is None
    store.close()


def test_warnings_are_saved_only_if_they_are_wanted(tmp_path: Path) -> None:
    for wanted, reason in ((None, None), (False, None), (True, "warn")):
        store = opened(tmp_path / str(wanted), warnings=wanted)
        assert store.reason_to_save(decision("warn")) == reason
        assert store.reason_to_save(decision("reject")) == "reject"
        store.close()


def test_by_default_no_normal_frame_and_never_an_unreadable_file(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert {store.reason_to_save(decision("normal")) for _ in range(9)} == {None}
    unreadable = Frame("in", 0, datetime.now(UTC), 0.0, None, path="a.png", error="empty")
    assert store.reason_to_save(Decision("1", unreadable, None, None)) is None
    store.close()


# -- limits


@pytest.mark.parametrize("restart", [False, True])
def test_beyond_the_size_the_oldest_are_removed(tmp_path: Path, saved: Save, restart: bool) -> None:
    size = saved(first := opened(tmp_path, format="png"), decision(age=1000)).stat().st_size
    first.close()
    options = {"format": "png", "max_mb": 4.5 * size / 1e6}
    store = opened(tmp_path, **options)
    paths = []
    for number in range(10):
        if restart:
            store.close()
            store = opened(tmp_path, **options)
        paths.append(saved(store, decision(source=f"cam{number % 2}", age=900 - number)))
    store.close()
    assert images(tmp_path) == paths[-4:]
    assert store.lost == 0


def test_images_stay_when_the_clock_is_set_and_the_order_of_removal_is_that_of_saving(
    tmp_path: Path,
) -> None:
    """Booted in 2020, set to 2026. Then the limit of the size removes the oldest first, whatever its name says."""
    wall, running = [datetime(2020, 1, 1, tzinfo=UTC).timestamp()], [10.0]

    def wait(seconds: float) -> None:
        wall[0] += seconds
        running[0] += seconds

    def at_wall(id: str) -> Decision:
        one = decision(id=id)
        return replace(one, frame=replace(one.frame, time=datetime.fromtimestamp(wall[0], UTC)))

    clock = Clock(tmp_path / "clock.json", wall=lambda: wall[0], running=lambda: running[0], boot="this")
    config = ImagesConfig(folder=tmp_path / "saved", overlays=False)
    store = ImageStore(config, clock)
    paths = []
    for number in range(5):
        wait(60)
        paths.append(store.save(at_wall(str(number)), reason="reject", wait=True))
    wall[0] = datetime(2026, 11, 29, tzinfo=UTC).timestamp()
    wait(60)
    paths.append(store.save(at_wall("5"), reason="reject", wait=True))
    store.close()
    assert images(tmp_path / "saved") == paths

    again = Clock(tmp_path / "clock.json", wall=lambda: wall[0], running=lambda: running[0], boot="this")
    ImageStore(config, again).close()
    assert images(tmp_path / "saved") == paths, "nor after a restart"

    # An hour later the clock is set back: what is saved now has the smallest name, and is the newest.
    wall[0] -= 10 * 365 * 86400
    wait(3600)
    newest = at_wall("6")
    size = sum(path.stat().st_size for path in paths if path)
    small = ImageStore(ImagesConfig(folder=tmp_path / "saved", overlays=False, max_mb=1e-6 * (size + 10)), again)
    path = small.save(newest, reason="reject", wait=True)
    small.close()
    assert path
    assert path.name.startswith("2016")
    assert images(tmp_path / "saved") == [path, *paths[1:]]


def test_beyond_the_age_images_and_empty_folders_are_removed(tmp_path: Path, saved: Save) -> None:
    wall = [time.time() - 400 * 86400]
    clock = Clock(wall=lambda: wall[0], running=lambda: wall[0], boot="this")
    wall[0] = time.time()
    store = opened(tmp_path, clock, max_days=1000)
    old = [saved(store, decision(age=86400 * days)) for days in (300, 200, 100)]
    new = saved(store, decision(age=60))
    store.close()
    foreign = old[0].with_name("notes.txt")
    foreign.touch()
    opened(tmp_path, clock, max_days=150).close()
    assert images(tmp_path) == sorted([old[2], new, foreign], key=lambda path: path.name)
    assert not old[1].parent.parent.exists()


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    source = tmp_path / "2020-01-01" / "cam"
    ours = source / "20200101T000000.000Z_reject_0.5000_01234567.jpg"
    partial = source / ".20200101T000000.000Z_reject_0.5000_01234567.jpg.partial"
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
    for path in (ours, partial, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    (tmp_path / "2020-01-02" / "cam").mkdir(parents=True)
    store = opened(tmp_path, max_days=1, max_mb=0.0001)
    store.save(decision(), reason="reject")
    store.close(60)
    assert set(images(tmp_path)) == set(others)
    assert not (tmp_path / "2020-01-02").exists()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="links")
def test_links_are_not_followed(tmp_path: Path) -> None:
    name = "20200101T000000.000Z_reject_0.5000_01234567.jpg"
    elsewhere = tmp_path / "elsewhere" / "cam" / name
    elsewhere.parent.mkdir(parents=True)
    elsewhere.touch()
    (tmp_path / "saved").mkdir()
    try:
        (tmp_path / "saved" / "2020-01-01").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be created here")
    opened(tmp_path / "saved", max_days=1).close()
    assert elsewhere.exists()


def test_an_image_larger_than_the_limit_removes_nothing(tmp_path: Path, saved: Save) -> None:
    store = opened(tmp_path, format="png", max_mb=0.02)
    path = saved(store, decision())
    store.save(decision(image=np.tile(NOISE, (3, 3, 1)).copy() ^ 1), reason="reject")
    store.close(60)
    assert images(tmp_path) == [path]
    assert store.take_lost() == 1
    assert "max_mb" in store.loss_reason


# -- losses


def test_too_many_at_once_are_counted_and_rejects_have_the_longer_queue(tmp_path: Path) -> None:
    store = opened(tmp_path, format="png")
    normal = [store.save(decision("normal", image=LARGE, id=f"n{each}"), reason="normal") for each in range(20)]
    first_reject = store.save(decision(image=LARGE, id="r"), reason="reject")
    rejects = [store.save(decision(image=LARGE, id=f"r{each}"), reason="reject") for each in range(20)]
    assert first_reject
    store.close(60)
    accepted = [path for path in [*normal, first_reject, *rejects] if path]
    assert sorted(path.name for path in accepted) == [path.name for path in images(tmp_path)]
    assert store.lost == 41 - len(accepted) > 0
    assert store.take_lost() == store.lost
    assert store.take_lost() == 0
    assert "faster than they can be written" in store.loss_reason


def test_threads_may_save_at_the_same_time(tmp_path: Path) -> None:
    store = opened(tmp_path)
    paths: list[Path | None] = []
    threads = [
        threading.Thread(
            target=lambda name=name: paths.extend(
                store.save(decision(source=f"cam{name}", id=f"{each:08d}"), reason="reject") for each in range(50)
            )
        )
        for name in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close(60)
    assert {path for path in paths if path} == set(images(tmp_path))
    assert paths.count(None) == store.lost


def test_after_close_an_image_is_lost(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.close()
    store.close()
    assert store.save(decision(), reason="reject") is None
    assert store.lost == 1


def test_images_that_cannot_be_written_in_time_are_lost(tmp_path: Path, until: Callable) -> None:
    store = opened(tmp_path, format="png")
    for each in range(8):
        store.save(decision(image=LARGE, id=str(each)), reason="reject")
    store.close(0)
    until(lambda: len(images(tmp_path)) + store.lost == 8 and not list(tmp_path.rglob("*.partial")))


def test_a_folder_that_was_removed_is_created_again(tmp_path: Path, saved: Save, until: Callable) -> None:
    folder = tmp_path / "saved"
    store = opened(folder)
    saved(store, decision())
    shutil.rmtree(folder)
    folder.write_text("a file instead")
    store.save(decision(), reason="reject")
    until(lambda: store.take_lost() == 1)
    assert store.loss_reason
    folder.unlink()
    assert saved(store, decision()).exists()
    store.close()
    assert store.lost == 1


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        opened(tmp_path / "file")
    with pytest.raises(UsageError, match=r"\[images\]"):
        ImageStore(ImagesConfig())


def test_a_full_disk_loses_images_and_leaves_no_broken_one(small_disk: Path, saved: Save, until: Callable) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    store = opened(small_disk / "saved", format="png")
    for each in range(6):
        before = store.lost
        path = store.save(decision(id=str(each)), reason="reject")
        assert path
        until(lambda path=path, before=before: path.exists() or store.lost > before)
    assert store.lost > 0
    assert re.search("No space left on device", store.loss_reason)
    ballast.unlink()
    saved(store, decision(id="after"))
    store.close()
    there = images(small_disk)
    assert len(there) == 7 - store.lost
    assert all(np.array_equal(read_image(path), NOISE) for path in there)


KILLED = """
import os, sys, time
import numpy as np
from datetime import UTC, datetime
from pathlib import Path
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.clock import Clock
from msc_edge.runtime.stream.config import ImagesConfig
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sinks.image_store import ImageStore

store = ImageStore(ImagesConfig(folder=Path(sys.argv[1]), format="png"))
image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
result = Result(0.5, 0.5, None, 0.01, "reject", 0.2, (), (NearestImage(0, "n.png", 0.1),), "fp32", "kit")
while True:
    frame = Frame("cam", 0, datetime.now(UTC), 0.0, image)
    store.save(Decision(os.urandom(8).hex(), frame, result, None), reason="reject")
    time.sleep(0.005)
"""


def test_a_killed_process_leaves_complete_images_and_the_next_start_removes_the_partial_one(
    tmp_path: Path, until: Callable
) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    try:
        until(lambda: len(list(tmp_path.rglob("*.png"))) > 5)
    finally:
        writer.kill()
        writer.wait()
    complete = list(tmp_path.rglob("*.png"))
    assert {read_image(path).shape for path in complete} == {(300, 400, 3)}
    opened(tmp_path).close()
    assert set(images(tmp_path)) == set(complete)


class TestOverlays:
    @pytest.fixture
    def detector(self, patch_kit: Path) -> Detector:
        return Detector.load(patch_kit, threads=1)

    def decision(self, detector: Detector, image: np.ndarray, *, age: float = 0, id: str = "0123456789") -> Decision:
        return replace(decision(image=image, age=age, id=id), result=detector.score(image))

    def test_a_rejected_frame_has_its_overlay_beside_it(self, tmp_path, detector, toy, saved, until):
        image = toy.draw(200, "stain")
        store = opened(tmp_path, format="png")
        path = saved(store, self.decision(detector, image))
        until(overlay_path(path).exists)
        assert overlay_path(path).name == f"{path.stem}_overlay.jpg"
        assert np.array_equal(read_image(path), image)
        changed = np.abs(read_image(overlay_path(path)).astype(int) - image).mean(axis=2)
        assert changed[4:20, 42:58].mean() > 2 * changed[30:, :30].mean()  # the stain is at (50, 12)
        store.close()

    def test_without_overlays_or_without_a_map_there_is_none(self, tmp_path, detector, toy, saved):
        image = toy.draw(200, "stain")
        store = opened(tmp_path / "off", overlays=False)
        saved(store, self.decision(detector, image))
        store.close()
        assert len(images(tmp_path / "off")) == 1
        store = opened(tmp_path / "whole")
        saved(store, decision(image=image))
        store.close()
        assert len(images(tmp_path / "whole")) == 1

    @pytest.mark.parametrize("restart", [False, True])
    def test_an_image_and_its_overlay_are_removed_together(self, tmp_path, detector, toy, saved, until, restart):
        image = toy.draw(200, "stain")
        store = opened(tmp_path, max_days=1)
        for age, id in ((3000, "old"), (0, "new")):
            path = saved(store, self.decision(detector, image, age=age, id=id))
            until(overlay_path(path).exists)
        store.close()
        kept = sum(path.stat().st_size for path in images(tmp_path) if "new" in path.name)
        assert len(images(tmp_path)) == 4
        if restart:
            opened(tmp_path, max_mb=(kept + 10) / 1e6).close()
        else:
            store = opened(tmp_path, max_mb=(2 * kept + 10) / 1e6)
            until(overlay_path(saved(store, self.decision(detector, image, id="last"))).exists)
            store.close()
        assert not any("old" in path.name for path in images(tmp_path))
        assert sum("new" in path.name for path in images(tmp_path)) == 2
