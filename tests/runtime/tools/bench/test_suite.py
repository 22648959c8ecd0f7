import shutil
from pathlib import Path

import pytest

from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import Precision, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.runtime.tools.bench import suite
from msc_edge.runtime.tools.bench.measure import Start
from msc_edge.runtime.tools.bench.suite import measure_kit

SECONDS = 0.02


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The kits for which a process would have been started: none is. test_measure.py starts one."""
    kits: list[Path] = []

    def measure_start(kit: Path, precision: Precision, _: object, *, threads: int) -> Start:
        kits.append(kit)
        return Start(precision, threads, 0.1, 0.2, 0.3, None)

    monkeypatch.setattr(suite, "measure_start", measure_start)
    return kits


def test_each_model_is_measured_and_each_step_is_reported(int8_kit, images, started):
    steps: list[tuple[int, int]] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:
        assert task == "measuring"
        assert bool(note) == (done < total)
        steps.append((done, total))

    with Kit.open(int8_kit) as kit:
        bench = measure_kit(kit, images, threads=[1, 2], seconds=SECONDS, report=report)
    assert [(each.precision, each.threads) for each in bench.throughput] == [
        ("fp32", 1),
        ("fp32", 2),
        ("int8", 1),
        ("int8", 2),
    ]
    assert len(bench.frames) == 2 * 2 * 2  # models, numbers of threads, sizes
    assert len(bench.starts) == 4
    assert len(bench.files) == 2
    assert started == [int8_kit] * 4
    assert steps == [(done, 18) for done in range(19)]
    assert bench.not_measured is None


def test_the_kit_and_the_machine_are_described(opened):
    bench = measure_kit(opened, [], threads=[1], seconds=SECONDS)
    assert bench.kit["name"] == "toy"
    assert bench.kit["sha256"] == opened.identity.sha256
    assert int(bench.machine["cores"]) >= 1
    assert set(bench.machine) >= {"processor", "system", "python", "onnxruntime", "numpy", "opencv-python"}
    assert bench.files == []


def test_a_kit_with_patches_has_times_of_its_heatmaps(opened, opened_with_patches, images):
    bench = measure_kit(opened_with_patches, images, threads=[1], seconds=SECONDS)
    assert bench.kit["patches"] == 64
    assert all(each.heatmap for each in bench.frames)
    assert all(each.regions for each in bench.files)
    assert measure_kit(opened, [], threads=[1], seconds=SECONDS).kit["patches"] is None


def test_a_zip_is_passed_to_the_new_process(toy_kit, tmp_path, started):
    zipped = Path(shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit))
    with Kit.open(zipped) as kit:
        measure_kit(kit, [], threads=[1], seconds=SECONDS)
    assert started == [zipped]


def test_a_model_of_another_processor_is_left_out_with_the_reason(int8_kit, tmp_path):
    copy = shutil.copytree(int8_kit, tmp_path / "other.kit")
    manifest = parse_manifest((copy / MANIFEST).read_bytes())
    int8 = manifest.models["int8"]
    assert int8.quantization
    quantization = int8.quantization.model_copy(update={"check_embedding": [1.0]})
    models = {**manifest.models, "int8": int8.model_copy(update={"quantization": quantization})}
    seal(copy, manifest.model_copy(update={"models": models}))
    with Kit.open(copy) as kit:
        bench = measure_kit(kit, [], threads=[1], seconds=SECONDS)
    assert {each.precision for each in bench.throughput} == {"fp32"}
    assert bench.not_measured == "int8 was not measured: this processor computes other embeddings with it"
