"""What holds of the figures on any machine; how large they are is for benchmarks/ to say."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import SourceError
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit, seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.tools.bench.measure import Spread, file_times, frame_times, frames, start, throughput
from msc_edge.runtime.tools.bench.suite import Bench, measured

SECONDS = 0.05


@pytest.fixture(scope="module")
def opened(toy_kit: Path) -> Kit:
    return Kit.open(toy_kit)


@pytest.fixture(scope="module")
def images(photos: Path) -> list[Path]:
    return sorted(photos.glob("good_*.png"))


def parts_of(spread: Spread) -> tuple[float, float, float]:
    return spread.p50, spread.p95, spread.p99


def test_percentiles_are_those_of_the_samples() -> None:
    assert parts_of(Spread.of(list(range(101)))) == (50, 95, 99)


def test_a_score_is_made_of_its_parts_and_takes_longer_than_the_floor(opened: Kit) -> None:
    times = frame_times(opened, "fp32", frames(opened)[1], threads=1, seconds=1)
    assert (times.width, times.height, times.threads) == (1280, 720, 1)
    for spread in (times.score, times.embed, times.search, times.floor):
        assert 0 < spread.p50 <= spread.p95 <= spread.p99
    assert times.ratio == times.score.p50 / times.floor.p50
    assert times.search.p50 < times.embed.p50


def test_files_that_cannot_be_read_are_counted_and_the_others_measured(
    opened: Kit, images: list[Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    times = file_times(opened, "fp32", [empty, *images], seconds=1)
    assert (times.given, times.files, times.unreadable) == (len(images) + 1, len(images), 1)
    with pytest.raises(SourceError, match=r"none of 1 images can be scored; .*empty\.png: the file is empty"):
        file_times(opened, "fp32", [empty], seconds=SECONDS)


def test_many_bad_files_in_front_do_not_hide_a_good_one(opened: Kit, images: list[Path], tmp_path: Path) -> None:
    empty = [tmp_path / f"{number}.png" for number in range(30)]
    for path in empty:
        path.touch()
    times = file_times(opened, "fp32", [*empty, images[0]], seconds=0)
    assert (times.given, times.files, times.unreadable) == (31, 1, 30)


def test_a_image_smaller_than_the_region_is_counted_and_the_others_measured(
    toy_kit: Path, save: Callable, tmp_path: Path
) -> None:
    kit = shutil.copytree(toy_kit, tmp_path / "region.kit")
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    region = Region(x=0, y=0, width=300, height=100)
    seal(
        kit, manifest.model_copy(update={"preprocessing": manifest.preprocessing.model_copy(update={"region": region})})
    )
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    save(large, np.zeros((200, 300, 3), np.uint8))
    save(small, np.zeros((99, 300, 3), np.uint8))
    with Kit.open(kit) as narrow:
        times = file_times(narrow, "fp32", [small, large], seconds=SECONDS)
    assert (times.files, times.unreadable) == (1, 1)


def test_files_that_cannot_be_read_are_no_throughput(opened: Kit, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    told = throughput(opened, "fp32", [tmp_path / "empty.png"], threads=1, seconds=SECONDS)
    assert told.images_per_second == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_throughput_of_files_and_of_a_frame_leaves_no_thread_behind(
    opened: Kit, images: list[Path], threads: int
) -> None:
    for what in (images, frames(opened)[0]):
        assert throughput(opened, "fp32", what, threads=threads, seconds=SECONDS).images_per_second > 0


def test_a_fresh_process_tells_of_its_start(opened: Kit) -> None:
    told = start(opened.root, "fp32", frames(opened)[0], threads=1)
    assert told.seconds == told.importing + told.load + told.first
    assert min(told.importing, told.load, told.first) > 0
    if Path("/proc/self/status").exists():
        assert told.resident is not None
        assert 20 < told.resident < 2000


def test_frames_are_no_smaller_than_the_region_that_a_kit_looks_at(opened: Kit) -> None:
    assert [frame.shape for frame in frames(opened)] == [(224, 224, 3), (720, 1280, 3), (1080, 1920, 3)]


def test_everything_is_measured_for_each_model_and_told_once(int8_kit: Path, images: list[Path]) -> None:
    told: list[tuple[int, int]] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:
        del task, note
        told.append((done, total))

    with Kit.open(int8_kit) as kit:
        bench = measured(kit, int8_kit, images, threads=[1, 2], seconds=SECONDS, report=report)
    assert {each.precision for each in bench.throughput} == {"fp32", "int8"}
    assert [(each.precision, each.threads) for each in bench.throughput] == [
        ("fp32", 1),
        ("fp32", 2),
        ("int8", 1),
        ("int8", 2),
    ]
    assert len(bench.frames) == 2 * 2 * 3
    assert len(bench.starts) == 4
    assert len(bench.files) == 2
    assert told[0] == (0, told[-1][1])
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


class TestCommand:
    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "msc_edge", "bench", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=300
        )

    def test_json_holds_the_whole_bench(self, toy_kit: Path, images: list[Path]) -> None:
        done = self.run(toy_kit, "--images", images[0].parent, "--threads", 1, "--seconds", 0.1, "--json")
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)
        assert set(data) == set(Bench.__dataclass_fields__)
        assert data["machine"]["cores"] >= 1
        assert data["frames"][0]["ratio"] == data["frames"][0]["score"]["p50"] / data["frames"][0]["floor"]["p50"]
        assert data["starts"][0]["seconds"] > 0

    def test_a_zip_is_measured_as_a_folder_is(self, toy_kit: Path, tmp_path: Path) -> None:
        zipped = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
        done = self.run(zipped, "--threads", 1, "--seconds", 0.1, "--json")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["starts"]) == 1

    def test_how_many_of_the_files_were_measured_is_said(
        self, toy_kit: Path, images: list[Path], tmp_path: Path
    ) -> None:
        for number in range(3000):
            (tmp_path / f"{number}.png").symlink_to(images[0])
        done = self.run(toy_kit, "--images", tmp_path, "--threads", 1, "--seconds", 0.1)
        assert re.search(r"3000 image files, \d+ drawn from them, one by one", done.stdout), done.stdout

    def test_tables_fit_a_narrow_terminal_and_say_what_was_measured(self, toy_kit: Path) -> None:
        done = self.run(toy_kit, "--threads", 1, "--seconds", 0.1, COLUMNS="80")
        assert done.returncode == 0, done.stderr
        assert "…" not in done.stdout
        assert "1920x1080" in done.stdout
        assert "bare onnxruntime on the same tensor" in done.stdout
        assert "Images in memory, several at once" in done.stdout

    def test_what_cannot_be_measured_is_one_line(self, toy_kit: Path, tmp_path: Path) -> None:
        for arguments, code, words in (
            ([tmp_path / "none"], 4, "there is no kit here"),
            ([toy_kit, "--images", tmp_path], 3, "no images found"),
            ([toy_kit, "--threads", 0], 2, "--threads"),
            ([toy_kit, "--seconds", 0], 2, "--seconds"),
        ):
            done = self.run(*arguments)
            assert (done.returncode, words in done.stderr) == (code, True), done.stderr
            assert "Traceback" not in done.stderr
