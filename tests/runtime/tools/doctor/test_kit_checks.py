import shutil
from pathlib import Path

import numpy as np
import pytest

from msc_edge.kit.layout import MANIFEST, MODEL_FILES
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.tools.doctor import kit_checks as module
from msc_edge.runtime.tools.doctor.checks import Check
from msc_edge.runtime.tools.doctor.kit_checks import Latency, kit_checks, measure_latency


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checks_of(kit: Path, **options: bool) -> dict[str, Check]:
    return {check.name: check for check in kit_checks(kit, seconds=0.02, **options)}


def test_a_kit_is_verified_its_rates_reported_and_its_speed_measured(toy_kit):
    checks = checks_of(toy_kit)
    assert checks["kit"].state == "ok"
    assert "thumbnails/00000.jpg was scored" in checks["kit"].found
    assert "false-alarm rate: target 1 %, expected 7.7 %" in checks["limits"].found
    assert checks["limits"].state == "note"  # twelve calibration images are too few for the target of 1 %
    names = [f"latency, {count} thread{'s' * (count > 1)}" for count in sorted({1, usable_cores()})]
    assert list(checks) == ["kit", "limits", "model", *names]
    assert checks["model"].found == "fp32 scores: the kit has no other model"
    assert "frames a second for a frame of 1280x720, without camera" in checks["latency, 1 thread"].found


def test_the_frame_is_at_least_as_large_as_the_region_of_interest(kit):
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    region = Region(x=1400, y=0, width=100, height=100)
    preprocessing = manifest.preprocessing.model_copy(update={"region": region})
    seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))
    assert "for a frame of 1500x720" in checks_of(kit)["latency, 1 thread"].found


def test_the_model_that_scores_is_named_and_both_are_measured(int8_kit):
    check = checks_of(int8_kit)["model"]
    assert check.state == "ok"
    assert check.found.startswith("fp32 scores: ")
    assert "; here, fp32 takes " in check.found
    assert ", int8 takes " in check.found


def test_int8_of_another_processor_gets_a_note(int8_kit, tmp_path):
    kit = shutil.copytree(int8_kit, tmp_path / "other.kit")
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    int8 = manifest.models["int8"]
    assert int8.quantization
    quantization = int8.quantization.model_copy(update={"check_embedding": [1.0]})
    models = {**manifest.models, "int8": int8.model_copy(update={"quantization": quantization})}
    seal(kit, manifest.model_copy(update={"models": models}))
    check = checks_of(kit)["model"]
    assert (check.state, "int8 cannot be used" in check.found) == ("note", True)
    assert "--target" in (check.remedy or "")


def test_without_a_working_hnswlib_the_index_is_not_opened(toy_kit):
    checks = checks_of(toy_kit, index=False)
    assert checks["kit"].state == "note"
    assert "NOT opened, because hnswlib does not work here" in checks["kit"].found
    assert "frames a second" in checks["latency, 1 thread"].found


def test_a_damaged_kit_is_a_problem_and_has_no_latency(kit, change_byte):
    change_byte(kit / MODEL_FILES["fp32"], 100)
    checks = checks_of(kit)
    assert checks["kit"].state == "problem"
    assert "SHA-256 differs" in checks["kit"].found
    assert f"msc-edge verify {kit}" in (checks["kit"].remedy or "")
    assert "not measured" in checks["latency"].found


def test_any_other_failure_is_a_problem_too(toy_kit, monkeypatch):
    monkeypatch.setattr(module, "verify", lambda _: 1 // 0)
    check = checks_of(toy_kit)["kit"]
    assert (check.state, "ZeroDivisionError" in check.found) == ("problem", True)


def test_latency_has_the_percentiles_of_at_least_three_scores(detector):
    latency = measure_latency(detector, np.zeros((48, 64, 3), np.uint8), threads=1, seconds=0)
    assert 0 < latency.p50 <= latency.p95
    assert latency.rate > 0


@pytest.mark.parametrize(
    ("measured", "last", "state", "found"),
    [
        ([Latency(1, 50, 60, 20)], False, "ok", "p50 50.0 ms"),
        ([Latency(1, 150, 160, 6)], False, "ok", "p50 150.0 ms"),  # slow with one thread only
        ([Latency(1, 150, 160, 6)], True, "note", "p95 is over 100 ms"),
        ([Latency(1, 50, 60, 20), Latency(4, 80, 90, 12)], True, "note", "not faster than one thread"),
        ([Latency(1, 150, 160, 6), Latency(4, 50, 60, 20)], True, "ok", "20.0 frames a second"),
    ],
)
def test_slow_scoring_gets_a_note(measured, last, state, found):
    check = module._check_of(measured, "for a frame", last=last)
    assert (check.state, found in check.found) == (state, True)
