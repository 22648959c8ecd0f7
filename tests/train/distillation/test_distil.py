"""What a distillation writes: the student, its metrics and its record, and where the student starts."""

import json
import re
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
from msc_edge.errors import KitError
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.distil import DISTIL_RECORD, DistilRecord, distil, work_folder
from msc_edge.train.distillation.loop import DistilMetrics
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.options import TrainingOptions
from msc_edge.train.run_folder import CHECKPOINT
from msc_edge.train.training import train
from msc_edge.train.weight_files import weights_from_file
from msc_edge.train.weights import load_into, pretrained_weights


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_disturbed_copy_of_the_teacher_approaches_it_again(
    scenes: Path, out: Path, options: DistilOptions, rows_of: Callable[[Path], list[DistilMetrics]]
) -> None:
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
    scenes: Path,
    out: Path,
    options: DistilOptions,
    resnet_weights: Path,
    student_weights: Path,
    rows_of: Callable[[Path], list[DistilMetrics]],
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


def test_the_record_describes_the_distillation(
    finished: Path,
    teacher_weights: Path,
    rows_of: Callable[[Path], list[DistilMetrics]],
    record_of: Callable[[Path], DistilRecord],
) -> None:
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
    scenes: Path,
    tmp_path: Path,
    options: DistilOptions,
    resnet_weights: Path,
    student_weights: Path,
    rows_of: Callable[[Path], list[DistilMetrics]],
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
