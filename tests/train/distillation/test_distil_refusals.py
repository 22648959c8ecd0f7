"""What a distillation refuses: options, images, output paths, and a student that diverged."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from msc_edge.errors import SourceError, UsageError
from msc_edge.train.distillation.distil import DISTIL_RECORD, distil, work_folder
from msc_edge.train.distillation.loop import DistilMetrics
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.run_folder import METRICS


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher_backbone": None}, "expected one teacher"),
        ({"teacher_run": Path("run")}, "expected one teacher"),
        ({"teacher_backbone": None, "teacher_run": Path("run")}, "omit --teacher-weights"),
        ({"student": "resnet19"}, "backbone resnet19: unknown"),
        ({"teacher_backbone": "resnet19"}, "backbone resnet19: unknown"),
        ({"teacher_stop_at": "features.99"}, "stage features.99: unknown"),
        ({"teacher_weights": Path("nowhere.pth")}, "weights nowhere.pth: No such file"),
        ({"student": "mobilenet_v2_x0.05"}, "unknown.*mobilenet_v2_x0.5"),
        ({"teacher_backbone": "mobilenet_v2"}, "use a checkpoint of mobilenet_v2"),
        ({"batch": 7}, "--batch 7: expected an even number"),
        ({"student_weights": Path("nowhere.safetensors")}, "weights nowhere.safetensors: No such file"),
    ],
)
def test_invalid_options_are_refused(
    changed: dict, message: str, scenes: Path, out: Path, options: DistilOptions
) -> None:
    with pytest.raises(UsageError, match=message):
        distil([scenes], out, replace(options, **changed))
    assert not work_folder(out).exists()


def test_existing_files_at_the_output_path_are_not_changed(
    scenes: Path, tmp_path: Path, out: Path, options: DistilOptions
) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends in \.safetensors"):
        distil([scenes], tmp_path / "student.pth", options)
    out.write_bytes(b"mine")
    for resume in (False, True):  # with resume, too: there is nothing to resume
        with pytest.raises(UsageError, match="exists already"):
            distil([scenes], out, options, resume=resume)
    assert out.read_bytes() == b"mine"
    occupied = tmp_path / "other-distil"
    occupied.mkdir()
    (occupied / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match="contains no training to resume"):
        distil([scenes], tmp_path / "other.safetensors", options, resume=True)
    assert [path.name for path in occupied.iterdir()] == ["holiday.jpg"]
    with pytest.raises(UsageError, match="not valid text"):
        distil([scenes], tmp_path / "\udcff.safetensors", options)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        distil([scenes], tmp_path / "folder.safetensors", options, resume=True)


def test_a_dangling_link_at_the_output_path_is_not_changed(scenes: Path, out: Path, options: DistilOptions) -> None:
    out.symlink_to(out.parent / "unplugged" / "disk")
    with pytest.raises(UsageError, match="exists already"):
        distil([scenes], out, options)
    assert out.is_symlink()


def test_a_second_distillation_to_the_same_file_is_refused(scenes: Path, out: Path, options: DistilOptions) -> None:
    refused = []

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "reading images" and done == 1:
            with pytest.raises(UsageError, match="another training is running there"):
                distil([scenes], out, replace(options, seed=9))
            refused.append(done)

    record = distil([scenes], out, replace(options, steps=1), report=report)
    assert refused
    assert record is not None
    assert record.settings.seed == 0
    assert {path.name for path in work_folder(out).iterdir()} == {DISTIL_RECORD, METRICS, "tensorboard"}


def test_too_few_images_are_refused(
    save: Callable, tmp_path: Path, out: Path, options: DistilOptions, scene: Callable
) -> None:
    for seed in range(10):
        save(tmp_path / "few" / f"{seed}.png", scene(seed))
    with pytest.raises(SourceError, match=r"of 10 images found, 10 are readable.*at least 32"):
        distil([tmp_path / "few"], out, options)


@pytest.mark.parametrize(("rate", "steps"), [(1e30, 20), (1e38, 1)])
def test_a_diverged_distillation_is_refused(
    rate: float,
    steps: int,
    scenes: Path,
    out: Path,
    options: DistilOptions,
    rows_of: Callable[[Path], list[DistilMetrics]],
) -> None:
    with pytest.raises(UsageError, match=r"no longer finite at step \d+.*--learning-rate"):
        distil([scenes], out, replace(options, learning_rate=rate, steps=steps))
    assert not out.exists()
    assert not rows_of(out)
