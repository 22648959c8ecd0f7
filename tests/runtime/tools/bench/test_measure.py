"""What is true of the measurements on every machine; benchmarks/ reports how large they are."""

import threading
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import KitError, SourceError
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.bench import measure
from msc_edge.runtime.tools.bench.measure import (
    Spread,
    measure_files,
    measure_frame,
    measure_start,
    measure_throughput,
    random_frames,
)

SECONDS = 0.02


def with_region(kit: Path, region: Region) -> Path:
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    preprocessing = manifest.preprocessing.model_copy(update={"region": region})
    seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))
    return kit


def test_percentiles_are_those_of_the_samples():
    spread = Spread.of(list(range(101)))
    assert (spread.p50, spread.p95, spread.p99) == (50, 95, 99)


class TestFrames:
    def test_the_sizes_are_those_of_usual_cameras(self, opened, monkeypatch):
        monkeypatch.undo()
        assert measure.FRAMES == ((224, 224), (1280, 720), (1920, 1080))
        assert [frame.shape for frame in random_frames(opened)] == [(224, 224, 3), (720, 1280, 3), (1080, 1920, 3)]

    def test_they_are_at_least_as_large_as_the_region_of_interest(self, kit):
        with Kit.open(with_region(kit, Region(x=60, y=0, width=40, height=60))) as opened:
            assert [frame.shape for frame in random_frames(opened)] == [(60, 100, 3), (96, 128, 3)]

    def test_a_score_and_its_parts_are_measured(self, opened):
        times = measure_frame(opened, "fp32", random_frames(opened)[1], threads=1, seconds=SECONDS)
        assert (times.width, times.height, times.threads) == (128, 96, 1)
        assert times.samples >= 10
        for spread in (times.score, times.embed, times.search, times.floor):
            assert 0 < spread.p50 <= spread.p95 <= spread.p99
        assert times.ratio == times.score.p50 / times.floor.p50
        assert times.heatmap is None

    def test_with_patches_what_they_add_is_measured_too(self, opened_with_patches):
        times = measure_frame(
            opened_with_patches, "fp32", random_frames(opened_with_patches)[1], threads=1, seconds=SECONDS
        )
        found = times.heatmap
        assert found
        for spread in (found.regions, found.score, found.anomaly_map, found.overlay):
            assert 0 < spread.p50 <= spread.p95 <= spread.p99

    def test_the_regions_of_a_frame_are_those_of_its_score(self, opened_with_patches, toy):
        """The stage that is measured is the one of the score."""
        detector = Detector.of(opened_with_patches, threads=1)
        for frame in (*random_frames(opened_with_patches), toy.draw(1, "stain"), toy.draw(2)):
            output = detector.run(frame)
            result = detector.score_output(output, frame)
            assert result.grid_map
            assert measure.found_regions(detector, output, frame) == result.regions


class TestFiles:
    def test_unreadable_files_are_counted_and_the_others_measured(self, opened, images, tmp_path):
        empty = tmp_path / "empty.png"
        empty.touch()
        times = measure_files(opened, "fp32", [empty, *images], seconds=0.5)
        assert (times.given, times.files, times.unreadable) == (len(images) + 1, len(images), 1)
        with pytest.raises(SourceError, match=r"none of 1 images can be scored; .*empty\.png: the file is empty"):
            measure_files(opened, "fp32", [empty], seconds=SECONDS)

    def test_with_patches_the_regions_are_a_stage(self, opened, opened_with_patches, images):
        assert measure_files(opened, "fp32", images, seconds=SECONDS).regions is None
        regions = measure_files(opened_with_patches, "fp32", images, seconds=SECONDS).regions
        assert regions
        assert 0 < regions.p50 <= regions.p95 <= regions.p99

    def test_many_unreadable_files_do_not_hide_a_readable_one(self, opened, images, tmp_path):
        empty = [tmp_path / f"{number}.png" for number in range(30)]
        for path in empty:
            path.touch()
        times = measure_files(opened, "fp32", [*empty, images[0]], seconds=0)
        assert (times.given, times.files, times.unreadable) == (31, 1, 30)

    def test_an_image_smaller_than_the_region_of_interest_counts_as_unreadable(self, kit, save, tmp_path):
        large = save(tmp_path / "large.png", np.zeros((200, 300, 3), np.uint8))
        small = save(tmp_path / "small.png", np.zeros((99, 300, 3), np.uint8))
        with Kit.open(with_region(kit, Region(x=0, y=0, width=300, height=100))) as opened:
            times = measure_files(opened, "fp32", [small, large], seconds=SECONDS)
        assert (times.files, times.unreadable) == (1, 1)


class TestThroughput:
    @pytest.mark.parametrize("threads", [1, 3])
    def test_it_is_measured_for_files_and_for_a_frame_and_leaves_no_thread_running(self, opened, images, threads):
        before = threading.active_count()
        for what in (images, random_frames(opened)[0]):
            found = measure_throughput(opened, "fp32", what, threads=threads, seconds=SECONDS)
            assert found.images_per_second > 0
        assert threading.active_count() == before

    def test_unreadable_files_do_not_count(self, opened, tmp_path):
        (tmp_path / "empty.png").touch()
        found = measure_throughput(opened, "fp32", [tmp_path / "empty.png"], threads=1, seconds=SECONDS)
        assert found.images_per_second == 0


class TestStart:
    def test_a_new_process_reports_its_times_and_its_memory(self, opened):
        found = measure_start(opened.path, "fp32", random_frames(opened)[0], threads=1)
        assert found.seconds == found.importing + found.load + found.first
        assert min(found.importing, found.load, found.first) > 0
        if Path("/proc/self/status").exists():
            assert found.resident is not None
            assert 20 < found.resident < 2000

    def test_a_process_that_fails_is_a_kit_error(self, opened, tmp_path):
        with pytest.raises(KitError, match="a new process could not score with this kit"):
            measure_start(tmp_path, "fp32", random_frames(opened)[0], threads=1)
