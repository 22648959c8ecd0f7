import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from msc_edge.errors import KitError
from msc_edge.image_files import find_images
from msc_edge.kit.layout import MANIFEST, MODEL
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import seal
from msc_edge.runtime import Detector
from msc_edge.runtime.batch import Row, Summary, score_files


@pytest.mark.parametrize("threads", [1, 3, None])
def test_each_file_gets_one_row_in_the_order_given(photos, detector, threads):
    paths = list(find_images([photos]).paths)[::-1]
    rows = list(score_files(detector, paths, threads=threads))
    assert [row.path for row in rows] == [str(path) for path in paths]
    for path, row in zip(paths, rows, strict=True):
        if path.name in ("cut.png", "zero.png"):
            assert row == Row(str(path), error=row.error)
            assert row.error
        else:
            result = detector.score_file(path)
            assert (row.score, row.p_value, row.verdict) == (result.score, result.p_value, result.verdict)
            assert row.nearest == result.nearest_images[0].path
            assert row.milliseconds is not None
            assert row.milliseconds > 0
            assert row.error is None


def test_a_defect_of_the_kit_ends_the_run(photos, kit):
    model = onnx.load(kit / MODEL)
    std = next(each for each in model.graph.initializer if each.name == "std")
    std.CopyFrom(numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "std"))
    onnx.save(model, kit / MODEL)
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
    with pytest.raises(KitError, match="not finite"):
        list(score_files(Detector.load(kit), [photos / "good_100.png"] * 5, threads=2))


def test_a_caller_that_stops_early_gets_its_rows_and_leaves_no_thread_behind(photos, detector):
    before = threading.active_count()
    with closing(score_files(detector, [photos / "good_100.png"] * 10_000, threads=2)) as rows:
        assert [next(rows).verdict for _ in range(3)] == ["normal"] * 3
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 4])
def test_the_list_of_files_is_read_only_a_little_ahead(photos, detector, threads):
    """So memory stays the same however long the list is."""
    taken = []

    def endless() -> Iterator[Path]:
        for number in count():
            taken.append(number)
            yield photos / "good_100.png"

    with closing(score_files(detector, endless(), threads=threads)) as rows:
        for done, _ in enumerate(islice(rows, 100), start=1):
            assert len(taken) <= done + 2 * threads + 5


def row(score: float, verdict: str = "normal", path: str = "a") -> Row:
    return Row(path, score=score, p_value=0.5, verdict=verdict, nearest="n", milliseconds=1.0)  # pyright: ignore[reportArgumentType]


class TestSummary:
    def test_everything_is_counted_once(self):
        summary = Summary()
        for each in (row(0.1), row(0.2), row(0.3, "warn"), row(0.4, "reject"), Row("x", error="empty")):
            summary.add(each)
        assert dict(summary.verdicts) == {"normal": 2, "warn": 1, "reject": 1}
        assert (summary.scored, summary.unreadable, summary.images) == (4, 1, 5)

    def test_the_strangest_are_kept_in_order_and_the_earlier_one_of_equals_comes_first(self):
        scores = [0.3, 0.9, 0.1, 0.9, 0.5, 0.7]
        summary = Summary()
        for number, score in enumerate(scores):
            summary.add(row(score, path=str(number)), keep=4)
        assert [each.path for each in summary.most_anomalous] == ["1", "3", "5", "4"]

    def test_no_more_is_kept_than_asked_for(self):
        summary = Summary()
        for number in range(1000):
            summary.add(Row(str(number), error="empty"), keep=3)
            summary.add(row(number / 1000), keep=3)
        assert [Path(each.path).name for each in summary.first_unreadable] == ["0", "1", "2"]
        assert [each.score for each in summary.most_anomalous] == [0.999, 0.998, 0.997]
