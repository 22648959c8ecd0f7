import dataclasses
import io
import json
import re

import pytest

from msc_edge.runtime.tools.bench.measure import FileTimes, FrameTimes, HeatmapTimes, Spread, Start, Throughput
from msc_edge.runtime.tools.bench.suite import Bench
from msc_edge.runtime.tools.bench.tables import as_json, show
from msc_edge.terminal import console

SPREAD = Spread(1234.5, 2345.6, 3456.7)


@pytest.fixture
def bench() -> Bench:
    return Bench(
        msc_edge="0.1.0",
        machine={"processor": "A", "cores": 8, "system": "Linux", "python": "3.11", "numpy": "2"},
        kit={"name": "bottles", "backbone": "edge-small", "bank": 200, "search": "exact", "patches": None},
        starts=[Start("fp32", 8, 0.1, 0.2, 0.3, None)],
        frames=[FrameTimes("fp32", 1920, 1080, 8, 40, SPREAD, SPREAD, SPREAD, Spread(1000.0, 1.0, 1.0), None)],
        files=[FileTimes("fp32", 3000, 40, 2, SPREAD, SPREAD, SPREAD, SPREAD, None)],
        throughput=[Throughput("fp32", 8, 12.34)],
    )


@pytest.fixture
def with_patches(bench: Bench) -> Bench:
    """The same of a kit with patches."""
    heatmap = HeatmapTimes(Spread(111.0, 2.0, 3.0), Spread(222.0, 2.0, 3.0), Spread(333.0, 2.0, 3.0), SPREAD)
    return dataclasses.replace(
        bench,
        kit={**bench.kit, "patches": 4000},
        frames=[dataclasses.replace(each, heatmap=heatmap) for each in bench.frames],
        files=[dataclasses.replace(each, regions=Spread(444.0, 5.0, 6.0)) for each in bench.files],
    )


def shown(bench: Bench) -> str:
    to = console(stderr=False)
    to.file = output = io.StringIO()
    to.width = 80
    show(to, bench)
    return output.getvalue()


def test_json_holds_every_measurement(bench):
    data = json.loads(as_json(bench))
    assert set(data) == set(Bench.__dataclass_fields__)
    assert data["frames"][0]["ratio"] == data["frames"][0]["score"]["p50"] / data["frames"][0]["floor"]["p50"] == 1.2345
    assert data["starts"][0]["seconds"] == pytest.approx(0.6)
    assert data["files"][0]["decode"] == {"p50": 1234.5, "p95": 2345.6, "p99": 3456.7}
    assert data["throughput"] == [{"precision": "fp32", "threads": 8, "images_per_second": 12.34}]


def test_the_names_of_the_fields_are_those_of_the_documentation(bench):
    """docs/integrate.md describes them: programs read them."""
    data = json.loads(as_json(bench))
    frame = {"precision", "width", "height", "threads", "samples", "score", "embed", "search", "floor", "ratio"}
    file = {"precision", "given", "files", "unreadable", "read", "decode", "embed", "search"}
    assert set(data["frames"][0]) == frame | {"heatmap"}
    assert set(data["files"][0]) == file | {"regions"}
    assert set(data["starts"][0]) == {"precision", "threads", "importing", "load", "first", "resident", "seconds"}


def test_json_has_the_stages_of_patches(bench, with_patches):
    data = json.loads(as_json(with_patches))
    assert set(data["frames"][0]["heatmap"]) == {"regions", "score", "anomaly_map", "overlay"}
    assert data["frames"][0]["heatmap"]["score"] == {"p50": 222.0, "p95": 2.0, "p99": 3.0}
    assert data["files"][0]["regions"]["p50"] == 444.0
    without = json.loads(as_json(bench))
    assert (without["frames"][0]["heatmap"], without["files"][0]["regions"]) == (None, None)


def test_a_kit_with_patches_has_a_table_of_heatmaps(bench, with_patches):
    text = shown(with_patches)
    assert "200 normal images, exact search, 4000 patches of normal images" in text
    assert "Heatmap of one image in memory" in text
    assert re.search(r"fp32 +1920x1080 +8 +111\.0 +1234 +333\.0 +222\.0 +1234", text)
    assert re.search(r"fp32 +regions +444\.0 +5\.00 +6\.00", text)
    assert "Heatmap" not in shown(bench)
    assert "regions" not in shown(bench)


def test_tables_fit_80_columns_and_say_what_was_measured(bench, with_patches):
    for text in (shown(bench), shown(with_patches)):
        assert max(len(line.rstrip()) for line in text.splitlines() if line.startswith((" model", " fp32"))) <= 80
        assert "…" not in text
    text = shown(bench)
    assert max(len(line.rstrip()) for line in text.splitlines() if line.startswith((" model", " fp32"))) <= 80
    assert "…" not in text
    assert "kit: bottles: edge-small, 200 normal images, exact search" in text
    assert "machine: A, 8 cores, Linux" in text
    assert "1920x1080" in text
    assert "bare onnxruntime on the same tensor" in text
    assert "3000 image files, 40 of them measured, 2 cannot be scored, one by one" in text
    assert "Image files, several at once" in text
    assert "unknown" in text  # the resident memory


def test_without_files_frames_are_scored_at_once(bench):
    bench.files.clear()
    assert "Images in memory, several at once" in shown(bench)


def test_a_model_that_was_left_out_is_a_caution(bench):
    assert "caution" not in shown(bench)
    bench.not_measured = "int8 was not measured: reason"
    assert "caution: int8 was not measured: reason" in shown(bench)
