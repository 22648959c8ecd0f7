import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import msc_edge.train.distillation.distil as distil_module
from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.distil import DISTIL_RECORD, DistilRecord, distil, work_folder
from msc_edge.train.distillation.loop import DistilMetrics
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.metrics import read_metrics
from msc_edge.train.options import TrainingOptions
from msc_edge.train.run_folder import CHECKPOINT, METRICS
from msc_edge.train.training import train
from msc_edge.train.weight_files import weights_from_file
from msc_edge.train.weights import load_into, pretrained_weights


class StoppedError(Exception):
    """Raised by a test to interrupt a distillation."""


@pytest.fixture(scope="session")
def options(teacher_weights: Path) -> DistilOptions:
    """A cut MobileNetV2 teaches a complete one, both of a tenth of the width."""
    return DistilOptions(
        teacher_backbone="mobilenet_v2_x0.1",
        teacher_weights=teacher_weights,
        teacher_stop_at="features.6",
        student="mobilenet_v2_x0.1",
        steps=4,
        batch=8,
        image_size=32,
        accelerator="cpu",
        dtype="fp32",
        measure_every=2,
        learning_rate=0.1,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, scenes: Path, options: DistilOptions) -> Path:
    """The student of a finished distillation with `options`; read-only."""
    out = tmp_path_factory.mktemp("finished") / "student.safetensors"
    distil([scenes], out, options)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "student.safetensors"


def stop_after(step: int) -> Callable:
    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "distilling" and done == step:
            raise StoppedError

    return report


def rows_of(out: Path) -> list[DistilMetrics]:
    return read_metrics(work_folder(out) / METRICS, DistilMetrics)


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory, scenes: Path, options: DistilOptions) -> Path:
    """The work folder of a distillation that was interrupted after step 3, with a checkpoint of step 2; read-only."""
    out = tmp_path_factory.mktemp("interrupted") / "student.safetensors"
    with pytest.raises(StoppedError):
        distil([scenes], out, options, report=stop_after(3))
    assert not out.exists()
    return work_folder(out)


@pytest.fixture(scope="session")
def blocked(tmp_path_factory: pytest.TempPathFactory, scenes: Path, options: DistilOptions) -> Path:
    """The work folder of a distillation that could not write its student; read-only. Has a checkpoint of the last step.

    Another file was created at the output path during the distillation.
    """
    out = tmp_path_factory.mktemp("blocked") / "student.safetensors"

    def create_file(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "distilling" and done == 3:
            out.write_bytes(b"mine")

    with pytest.raises(UsageError, match=r"another file was created there.*move that file away.*--resume"):
        distil([scenes], out, options, report=create_file)
    assert out.read_bytes() == b"mine"
    assert not (work_folder(out) / DISTIL_RECORD).exists()
    return work_folder(out)


def record_of(out: Path) -> DistilRecord:
    return DistilRecord.model_validate_json((work_folder(out) / DISTIL_RECORD).read_bytes())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_disturbed_copy_of_the_teacher_approaches_it_again(scenes: Path, out: Path, options: DistilOptions) -> None:
    """Teacher and student have the same dimension, and real weights, whose embeddings separate images well."""
    generator = torch.Generator().manual_seed(0)
    disturbed = {
        key: value.float() + 0.3 * value.float().std() * torch.randn(value.shape, generator=generator)
        if key.endswith("weight") and value.dim() > 1
        else value
        for key, value in pretrained_weights(EDGE_SMALL, None).state.items()
    }
    save_file(disturbed, out.with_name("disturbed.safetensors"))
    edge_small = replace(
        options,
        teacher_backbone="edge-small",
        teacher_weights=None,
        teacher_stop_at=None,
        student="edge-small",
        student_weights=out.with_name("disturbed.safetensors"),
        image_size=64,
        steps=12,
        measure_every=4,
        learning_rate=3e-3,
    )
    distil([scenes], out, edge_small)
    rows = rows_of(out)
    assert [row.step for row in rows] == [4, 8, 12]
    assert rows[2].unexplained < 0.85 * rows[0].unexplained
    assert rows[2].loss < 0.85 * rows[0].loss


def test_a_student_of_another_dimension_approaches_the_teacher(
    scenes: Path, out: Path, options: DistilOptions, resnet_weights: Path, student_weights: Path
) -> None:
    """Shown by the losses: with random networks and few held-out images the rank correlation is a matter of chance."""
    resnet = replace(
        options,
        teacher_backbone="resnet18",
        teacher_weights=resnet_weights,
        teacher_stop_at="layer2",
        student_weights=student_weights,
        steps=16,
        measure_every=4,
        learning_rate=3e-3,
    )
    distil([scenes], out, resnet)
    rows = rows_of(out)
    assert [row.step for row in rows] == [4, 8, 12, 16]
    assert rows[-1].loss < 0.8 * rows[0].loss
    assert all(np.isnan(row.unexplained) for row in rows)
    assert all(row.loss == pytest.approx(row.embedding_loss + row.map_loss) for row in rows)


def test_the_student_is_a_complete_backbone(finished: Path) -> None:
    backbone = build_backbone("mobilenet_v2_x0.1")
    load_into(backbone, weights_from_file(finished).state, source="student")
    assert same(backbone.state_dict(), load_file(finished))
    with safe_open(finished, "pt") as file:
        assert file.metadata() == {"backbone": "mobilenet_v2_x0.1"}


def test_the_record_describes_the_distillation(finished: Path, teacher_weights: Path) -> None:
    record = record_of(finished)
    assert (record.teacher, record.teacher_stop_at, record.start) == (
        "mobilenet_v2_x0.1",
        "features.6",
        "from scratch",
    )
    assert record.teacher_weights == weights_from_file(teacher_weights).origin
    assert record.weights_sha256 == weights_from_file(finished).origin.sha256
    assert (record.images, record.held_out) == (32, 4)
    assert record.settings.dtype == "fp32"
    assert record.result["loss"] == rows_of(finished)[-1].loss
    assert not (work_folder(finished) / CHECKPOINT).exists()


def test_the_record_contains_no_paths(finished: Path) -> None:
    text = (work_folder(finished) / DISTIL_RECORD).read_text()
    assert json.loads(text)["student"] == "mobilenet_v2_x0.1"
    assert not re.search(r'"/', text)


def test_another_seed_gives_another_student(scenes: Path, out: Path, options: DistilOptions, finished: Path) -> None:
    distil([scenes], out, replace(options, seed=1))
    assert not same(load_file(out), load_file(finished))


def test_an_interrupted_distillation_can_be_resumed_with_the_same_result(
    scenes: Path, out: Path, options: DistilOptions, finished: Path, interrupted: Path
) -> None:
    shutil.copytree(interrupted, work_folder(out))
    distil([scenes], out, options, resume=True)
    assert out.read_bytes() == finished.read_bytes()
    assert (work_folder(out) / METRICS).read_bytes() == (work_folder(finished) / METRICS).read_bytes()


def test_the_same_seed_gives_the_same_student_if_resumed_without_a_checkpoint(
    scenes: Path, out: Path, options: DistilOptions, finished: Path, interrupted: Path
) -> None:
    shutil.copytree(interrupted, work_folder(out))
    (work_folder(out) / CHECKPOINT).unlink()
    distil([scenes], out, options, resume=True)
    assert out.read_bytes() == finished.read_bytes()
    assert (work_folder(out) / METRICS).read_bytes() == (work_folder(finished) / METRICS).read_bytes()


def test_the_number_of_steps_can_change_before_the_learning_rate_decays(
    scenes: Path, out: Path, options: DistilOptions, finished: Path
) -> None:
    with pytest.raises(StoppedError):
        distil([scenes], out, replace(options, steps=100), report=stop_after(3))
    distil([scenes], out, options, resume=True)
    assert out.read_bytes() == finished.read_bytes()


def test_the_number_of_steps_cannot_change_afterwards(
    scenes: Path, out: Path, options: DistilOptions, blocked: Path
) -> None:
    shutil.copytree(blocked, work_folder(out))
    with pytest.raises(UsageError, match="started with other options"):
        distil([scenes], out, replace(options, steps=100), resume=True)


def test_resuming_with_other_options_images_or_weights_is_refused(
    scenes: Path, out: Path, options: DistilOptions, interrupted: Path, save: Callable, scene: Callable
) -> None:
    shutil.copytree(interrupted, work_folder(out))
    more = save(out.parent / "more" / "one.png", scene(99)).parent
    other = out.with_name("other.safetensors")
    save_file({key: value * 1.01 for key, value in load_file(options.teacher_weights or "").items()}, other)
    for images, changed in (
        ([scenes], replace(options, seed=1)),
        ([scenes], replace(options, teacher_weights=other)),
        ([scenes, more], options),
    ):
        with pytest.raises(UsageError, match="started with other options, images or weights"):
            distil(images, out, changed, resume=True)


def test_resuming_with_other_options_is_refused_before_the_first_measurement_too(
    scenes: Path, out: Path, options: DistilOptions
) -> None:
    """A process that is killed leaves its first checkpoint; one that stops itself leaves nothing."""
    killed = out.with_name("killed.safetensors")

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "distilling" and done == 1:
            shutil.copytree(work_folder(out), work_folder(killed), ignore=shutil.ignore_patterns(".*"))
            raise StoppedError

    with pytest.raises(StoppedError):
        distil([scenes], out, replace(options, measure_every=100), report=report)
    assert not work_folder(out).exists()
    with pytest.raises(UsageError, match="started with other options, images or weights"):
        distil([scenes], killed, replace(options, seed=1), resume=True)


def test_a_damaged_checkpoint_is_refused(scenes: Path, out: Path, options: DistilOptions, interrupted: Path) -> None:
    shutil.copytree(interrupted, work_folder(out))
    checkpoint = work_folder(out) / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(KitError, match="damaged, or not a checkpoint"):
        distil([scenes], out, options, resume=True)


def test_a_finished_distillation_cannot_be_resumed(scenes: Path, options: DistilOptions, finished: Path) -> None:
    with pytest.raises(UsageError, match="already finished; the student is"):
        distil([scenes], finished, options, resume=True)


def test_batch_norm_statistics_are_learned_from_scratch_only(
    scenes: Path, out: Path, options: DistilOptions, finished: Path
) -> None:
    record = distil([scenes], out, replace(options, student_weights=finished, steps=1))
    assert record is not None
    assert record.start.startswith("student.safetensors (")
    before, after = load_file(finished), load_file(out)
    assert any((value != 0).any() for key, value in before.items() if key.endswith("running_mean"))
    for key, value in after.items():
        buffer = "running_" in key or key.endswith("num_batches_tracked")
        assert torch.equal(value, before[key]) == buffer, key


def test_a_narrower_student_is_pruned_from_the_teacher(
    scenes: Path, out: Path, options: DistilOptions, randomise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil_module, "_PRUNING_CROPS", 16)
    teacher = build_backbone("mobilenet_v2")
    randomise(teacher, 0)
    save_file(teacher.state_dict(), out.with_name("teacher.safetensors"))
    pruned = replace(
        options,
        teacher_backbone="mobilenet_v2",
        teacher_weights=out.with_name("teacher.safetensors"),
        teacher_stop_at=None,
        student="edge-small",
        learning_rate=1e-12,
        steps=1,
        half=True,
    )
    record = distil([scenes], out, pruned)
    assert record is not None
    assert record.start == "pruned"
    assert record.result["unexplained"] is not None
    student = load_file(out)
    assert {value.dtype for value in student.values() if value.is_floating_point()} == {torch.float16}
    assert out.stat().st_size < 5_000_000
    # A block of the same width is copied from the teacher.
    for key, value in teacher.state_dict().items():
        if key.startswith(("features.0.", "features.1.", "features.18.")):
            torch.testing.assert_close(student[key].to(value.dtype), value, rtol=1e-3, atol=1e-6)


def test_edge_small_starts_from_the_bundled_weights_with_another_teacher(
    scenes: Path, out: Path, options: DistilOptions
) -> None:
    record = distil([scenes], out, replace(options, student="edge-small", steps=1, learning_rate=None))
    assert record is not None
    assert record.start.startswith("edge-small, of msc-edge")
    assert record.settings.learning_rate == 2e-4
    before, after = pretrained_weights(EDGE_SMALL, None).state, load_file(out)
    # The first step of the warm-up changes a weight by at most its learning rate, 2e-6, and rounding.
    assert all(torch.allclose(after[key], before[key].to(after[key].dtype), atol=1e-5) for key in after)


def test_a_run_can_be_the_teacher(scenes: Path, out: Path, options: DistilOptions, teacher_weights: Path) -> None:
    run = out.with_name("run")
    train(
        scenes,
        run,
        TrainingOptions(
            backbone="mobilenet_v2_x0.1",
            weights=teacher_weights,
            stop_at="features.6",
            image_size=48,
            scores="image",
            steps=0,
            accelerator="cpu",
            dtype="fp32",
        ),
    )
    from_run = replace(
        options,
        teacher_run=run,
        teacher_backbone=None,
        teacher_weights=None,
        teacher_stop_at=None,
        image_size=None,
        steps=1,
    )
    record = distil([scenes], out, from_run)
    assert record is not None
    assert record.settings.image_size == 48  # that of the run
    assert record.teacher_weights == weights_from_file(run / "backbone.safetensors").origin
    (run / "backbone.safetensors").write_bytes(b"damaged")
    with pytest.raises(KitError, match="SHA-256 differs"):
        distil([scenes], out.with_name("another.safetensors"), from_run)


@pytest.mark.long  # starts three Python processes with torch
def test_two_processes_learn_the_same_as_one(
    scenes: Path, tmp_path: Path, options: DistilOptions, resnet_weights: Path, student_weights: Path
) -> None:
    # The student keeps its batch-norm statistics: those of half a batch differ from those of the batch.
    for devices in (1, 2):
        command = [Path(sys.executable).with_name("msc-edge"), "distil", "--images", scenes]
        command += ["--out", tmp_path / f"on{devices}.safetensors", "--devices", devices]
        command += ["--teacher-backbone", "resnet18", "--teacher-stop-at", "layer2"]
        command += ["--teacher-weights", resnet_weights, "--student", options.student]
        command += ["--student-weights", student_weights, "--steps", 4, "--batch", 8, "--image-size", 32]
        command += ["--accelerator", "cpu", "--dtype", "fp32", "--measure-every", 1]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    alone, together = (load_file(tmp_path / f"on{devices}.safetensors") for devices in (1, 2))
    before = load_file(student_weights)
    # Norms, not the largest difference: where a gradient is near zero, Adam amplifies its rounding to a whole step.
    weights = [key for key in alone if key.endswith("weight")]
    moved = sum(float((alone[key] - before[key]).square().sum()) for key in weights) ** 0.5
    apart = sum(float((alone[key] - together[key]).square().sum()) for key in weights) ** 0.5
    assert apart < moved / 20
    one, two = (rows_of(tmp_path / f"on{devices}.safetensors") for devices in (1, 2))
    assert [row.loss for row in two] == pytest.approx([row.loss for row in one], rel=1e-3)


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


def test_a_file_that_appears_during_the_distillation_is_kept_unless_it_is_the_student(
    scenes: Path, out: Path, options: DistilOptions, finished: Path, blocked: Path
) -> None:
    shutil.copytree(blocked, work_folder(out))
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"move that file away.*--resume"):
        distil([scenes], out, options, resume=True)
    assert out.read_bytes() == b"mine"
    # A distillation that was killed before it wrote its record left the student.
    out.write_bytes(finished.read_bytes())
    assert distil([scenes], out, options, resume=True) is not None


def test_a_resumed_distillation_accepts_missing_metrics_but_not_damaged_ones(
    scenes: Path, out: Path, options: DistilOptions, finished: Path, blocked: Path
) -> None:
    shutil.copytree(blocked, work_folder(out))
    metrics = work_folder(out) / METRICS
    metrics.write_bytes(b"\xff\xfe\n" + metrics.read_bytes())
    with pytest.raises(KitError, match=r"metrics\.csv: is damaged .*; move it away"):
        distil([scenes], out, options, resume=True)
    metrics.unlink()
    again = distil([scenes], out, options, resume=True)
    assert again is not None
    assert out.read_bytes() == finished.read_bytes()
    # The student is measured again. The losses of past steps are no longer known.
    expected = record_of(finished).result
    assert again.result == {**expected, "loss": None, "embedding_loss": None, "map_loss": None} | {"step": 4}
    assert [row.step for row in rows_of(out)] == [4]


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
    rate: float, steps: int, scenes: Path, out: Path, options: DistilOptions
) -> None:
    with pytest.raises(UsageError, match=r"no longer finite at step \d+.*--learning-rate"):
        distil([scenes], out, replace(options, learning_rate=rate, steps=steps))
    assert not out.exists()
    assert not rows_of(out)
