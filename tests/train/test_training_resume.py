"""Trainings that were killed, stopped or finished and are resumed, and a training of two processes."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from msc_edge.errors import KitError, UsageError
from msc_edge.preprocessing import Region
from msc_edge.train import recipes
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.recipes import recipe_named
from msc_edge.train.run_folder import CHECKPOINT, METRICS, RECORD, VIEWS
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, read_record
from msc_edge.train.training import train


def command(normal: Path, out: Path, weights: Path, *more: str) -> list[str]:
    """The options of the fixture `options`, on the command line."""
    quick = (
        "--backbone mobilenet_v2_x0.1 --stop-at features.3 --image-size 32 --batch 4 --learning-rate 1e-2 --dtype fp32 "
        "--scores image"
    )
    given = [*quick.split(), "--accelerator", "cpu", "--weights", str(weights), *more]
    return [sys.executable, "-m", "msc_edge", "train", "--normal", str(normal), "--out", str(out), *given]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def wait_for_steps(process: subprocess.Popen, out: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(out / METRICS, StepMetrics)) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow  # starts another Python process with torch
def test_a_killed_run_can_be_resumed_with_the_same_result(
    normal_images: Path, tmp_path: Path, options: Callable, small_weights: Path, trained: Callable, contents: Callable
) -> None:
    steps = 40
    killed, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    arguments = command(normal_images, killed, small_weights, "--steps", str(steps), "--checkpoint-every", "3")
    with subprocess.Popen(arguments, env=ONE_THREAD, stderr=subprocess.PIPE, text=True) as process:
        wait_for_steps(process, killed, 7)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL if sys.platform != "win32" else process.returncode
    assert (killed / CHECKPOINT).is_file()
    with pytest.raises(KitError, match="not finished"):
        read_record(killed)

    trained(normal_images, killed, options(steps=steps, checkpoint_every=50), resume=True)
    trained(normal_images, uninterrupted, options(steps=steps))
    assert contents(killed) == contents(uninterrupted)


@pytest.mark.long  # starts three Python processes with torch
def test_two_processes_learn_the_same_as_one(
    normal_images: Path, tmp_path: Path, options: Callable, small_weights: Path, trained: Callable
) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    arguments = command(normal_images, together, small_weights, "--steps", "6", "--devices", "2", "--recipe", "v1")
    done = subprocess.run(arguments, env=ONE_THREAD, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: msc-edge export") == 1  # only one process prints
    trained(normal_images, alone, options(steps=6, recipe="v1"))

    ours, theirs = load_file(alone / BACKBONE), load_file(together / BACKBONE)
    start = load_file(small_weights)
    moved = max(float((ours[key] - start[key]).abs().max()) for key in ours)
    apart = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    assert apart < 1e-5
    assert apart < moved / 50  # the weights did change
    np.testing.assert_allclose(np.load(together / BANK), np.load(alone / BANK), atol=1e-5)
    rows = [read_metrics(folder / METRICS, StepMetrics) for folder in (together, alone)]
    for one, other in zip(*rows, strict=True):
        assert (one.step, one.loss) == (other.step, pytest.approx(other.loss, abs=1e-4))
        assert one.mean_pairwise_cosine == pytest.approx(other.mean_pairwise_cosine, abs=1e-4)
        assert one.effective_rank == pytest.approx(other.effective_rank, abs=1e-2)


class StoppedError(Exception):
    """Raised by a test to interrupt a training."""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, normal_images: Path, options: Callable) -> Path:
    """A run that was interrupted after three of its four steps; read-only."""
    out = tmp_path_factory.mktemp("interrupted") / "run"

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "fine-tuning" and done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(normal_images, out, options(checkpoint_every=1), report=report)
    return out


@pytest.mark.parametrize(
    "other",
    [
        {"image_size": 64},
        {"holdout": 0.4},
        {"region": Region(x=0, y=0, width=30, height=30)},
    ],
)
def test_resuming_with_other_options_is_refused(
    other: dict, normal_images: Path, interrupted: Path, tmp_path: Path, options: Callable, contents: Callable
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    with pytest.raises(UsageError, match="started with other options"):
        train(normal_images, run, options(**other), resume=True)
    assert contents(run, (CHECKPOINT, METRICS)) == contents(interrupted, (CHECKPOINT, METRICS))  # nothing was lost


def test_before_the_second_checkpoint_only_the_same_options_resume_a_run(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
) -> None:
    """A process that is killed leaves its first checkpoint; one that stops itself leaves nothing before the second."""
    out = tmp_path / "run"

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "fine-tuning" and done == 2:
            shutil.copytree(tmp_path / "stopped", out, ignore=shutil.ignore_patterns(".*"))
            raise StoppedError

    with pytest.raises(StoppedError):
        train(normal_images, tmp_path / "stopped", options(), report=report)
    assert not (tmp_path / "stopped").exists()
    started = contents(out, (METRICS, VIEWS))
    for other in ({"seed": 8}, {"learning_rate": 1e-3}, {"steps": 5}):
        with pytest.raises(UsageError, match="started with other options"):
            train(normal_images, out, options(**other), resume=True)
    assert contents(out, (METRICS, VIEWS)) == started
    trained(normal_images, out, options(), resume=True)
    assert contents(out) == contents(finished_run)


def test_a_run_without_a_checkpoint_keeps_nothing_of_its_first_start(
    normal_images: Path, interrupted: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
) -> None:
    """As an older version left it before its first checkpoint: the views of other settings would stay."""
    run = shutil.copytree(interrupted, tmp_path / "run")
    (run / CHECKPOINT).unlink()
    trained(normal_images, run, options(seed=8), resume=True)
    trained(normal_images, tmp_path / "other", options(seed=8))
    assert contents(run) == contents(tmp_path / "other")


def test_resuming_with_the_same_options_finishes_the_run(
    normal_images: Path,
    interrupted: Path,
    finished_run: Path,
    tmp_path: Path,
    options: Callable,
    trained: Callable,
    contents: Callable,
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    trained(normal_images, run, options(), resume=True)
    assert contents(run) == contents(finished_run)


def test_a_finished_run_is_not_trained_again(
    normal_images: Path, frozen_run: Path, tmp_path: Path, options: Callable, contents: Callable
) -> None:
    out = shutil.copytree(frozen_run, tmp_path / "run")
    with pytest.raises(UsageError, match=r"already finished.*msc-edge export"):
        train(normal_images, out, options(steps=0), resume=True)
    with pytest.raises(UsageError, match=r"is not empty"):
        train(normal_images, out, options(steps=0))
    files = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RECORD)
    assert contents(out, files) == contents(frozen_run, files)


def test_resuming_a_run_that_was_not_started_starts_it(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
) -> None:
    trained(normal_images, tmp_path / "run", options(), resume=True)
    assert contents(tmp_path / "run") == contents(finished_run)


@pytest.mark.parametrize(("fails_at", "kept"), [(1, 0), (3, 0), (4, 3)])
def test_after_a_crash_in_a_loss_the_same_command_works_or_the_error_says_resume(
    fails_at: int,
    kept: int,
    normal_images: Path,
    finished_run: Path,
    tmp_path: Path,
    options: Callable,
    monkeypatch: pytest.MonkeyPatch,
    trained: Callable,
    contents: Callable,
) -> None:
    """A checkpoint each three steps: before the first one there is nothing to resume from."""
    v2, calls = recipe_named("v2"), itertools.count(1)

    def own_loss(*arguments: Any) -> torch.Tensor:
        if next(calls) == fails_at:
            raise RuntimeError("a mistake in a loss")
        return v2.loss(*arguments)

    monkeypatch.setattr(recipes, "RECIPES", (replace(v2, loss=own_loss),))
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a mistake") as caught:
        train(normal_images, run, options(checkpoint_every=3))
    notes = getattr(caught.value, "__notes__", [])
    if kept:
        said = f"the checkpoint of step {kept} is kept; give the same command with --resume to go on from it"
        assert notes == [f"{run}: {said}"]
    else:
        assert (notes, run.exists()) == ([], False)
    trained(normal_images, run, options(checkpoint_every=3), resume=bool(kept))
    learned = (BACKBONE, BANK, CALIBRATION)
    assert contents(run, learned) == contents(finished_run, learned)
