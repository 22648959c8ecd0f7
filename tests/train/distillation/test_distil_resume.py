"""Distillations that were interrupted, could not write or finished, and what becomes of them with --resume."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from msc_edge.errors import KitError, UsageError
from msc_edge.train.distillation.distil import DISTIL_RECORD, DistilRecord, distil, work_folder
from msc_edge.train.distillation.loop import DistilMetrics
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.run_folder import CHECKPOINT, METRICS


class StoppedError(Exception):
    """Raised by a test to interrupt a distillation."""


def stop_after(step: int) -> Callable:
    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "distilling" and done == step:
            raise StoppedError

    return report


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
    scenes: Path,
    out: Path,
    options: DistilOptions,
    finished: Path,
    blocked: Path,
    rows_of: Callable[[Path], list[DistilMetrics]],
    record_of: Callable[[Path], DistilRecord],
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
