import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.images import read_image
from msc_edge.preprocessing import Region
from msc_edge.train import recipes
from msc_edge.train import training as training_module
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.dataset import fingerprint, read_image_table
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import TrainingOptions
from msc_edge.train.recipes import recipe_named
from msc_edge.train.run_folder import CHECKPOINT, CURVES, METRICS, VIEWS
from msc_edge.train.run_record import (
    BACKBONE,
    BANK,
    CALIBRATION,
    IMAGE_TABLE,
    RECORD,
    RunRecord,
    read_record,
)
from msc_edge.train.training import train
from msc_edge.train.weights import load_into

RESULTS = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, METRICS, CURVES, VIEWS)
NOT_TEXT = pytest.mark.skipif(sys.platform != "linux", reason="other file systems accept valid text only")


def trained(normal: Path, out: Path, options: TrainingOptions, **more) -> RunRecord:
    record = train(normal, out, options, **more)
    assert record is not None
    return record


def contents(run: Path, names: tuple[str, ...] = RESULTS) -> dict[str, str]:
    return {name: sha256((run / name).read_bytes()).hexdigest() for name in names}


def command(normal: Path, out: Path, weights: Path, *more: str) -> list[str]:
    """The options of the fixture `options`, on the command line."""
    quick = (
        "--backbone mobilenet_v2_x0.1 --stop-at features.3 --image-size 32 --batch 4 --learning-rate 1e-2 --dtype fp32 "
        "--scores image"
    )
    given = [*quick.split(), "--accelerator", "cpu", "--weights", str(weights), *more]
    return [sys.executable, "-m", "msc_edge", "train", "--normal", str(normal), "--out", str(out), *given]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_the_arrays_of_a_run_belong_to_its_weights(finished_run: Path, normal_images: Path) -> None:
    record = read_record(finished_run)
    assert {path.name for path in finished_run.iterdir()} == {*RESULTS, RECORD, "tensorboard"}  # no checkpoint

    images = read_image_table(finished_run / IMAGE_TABLE)
    roles = [image.role for image in images]
    assert (roles.count("bank"), roles.count("calibration")) == (16, 4)
    held_out = np.array([role == "calibration" for role in roles])
    assert record.data_fingerprint == fingerprint(images)

    # Compute everything again with the written weights, image by image.
    backbone = build_backbone(record.backbone, stop_at=record.stop_at)
    load_into(backbone, load_file(finished_run / BACKBONE), source=BACKBONE)
    network = EmbeddingNetwork(backbone, record.preprocessing).eval()
    with torch.no_grad():
        decoded = (torch.from_numpy(read_image(normal_images / image.path)) for image in images)
        embeddings = np.concatenate([network(image[None]) for image in decoded])
    bank, scores = np.load(finished_run / BANK), np.load(finished_run / CALIBRATION)
    assert (bank.dtype, scores.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(bank, embeddings, atol=2e-6)
    expected = [Bank(np.delete(embeddings, row, axis=0)).score(embeddings[row]) for row in np.flatnonzero(held_out)]
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    assert record.dim == bank.shape[1] == 8


def test_of_a_pretrained_network_all_images_are_in_the_bank_and_held_out_in_turn(frozen_run: Path) -> None:
    record, images = read_record(frozen_run), read_image_table(frozen_run / IMAGE_TABLE)
    bank, scores = np.load(frozen_run / BANK), np.load(frozen_run / CALIBRATION)
    assert record.in_turn
    assert len(bank) == len(scores) == len(images) == 20
    groups = np.array([image.group for image in images])
    expected = [Bank(bank[groups != group]).score(row) for row, group in zip(bank, groups, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_images_of_one_part_that_are_most_of_all_are_held_out_once(
    normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    names = sorted(path.name for path in normal_images.iterdir())
    for number, name in enumerate(names):
        folder = tmp_path / "normal" / ("most" if number < 12 else str(number))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(normal_images / name, folder)
    train(tmp_path / "normal", tmp_path / "run", options(steps=0, group_by="folder"))
    record, images = read_record(tmp_path / "run"), read_image_table(tmp_path / "run" / IMAGE_TABLE)
    assert not record.in_turn
    assert len(np.load(tmp_path / "run" / BANK)) == [image.role for image in images].count("bank") < 20


def test_the_same_seed_gives_the_same_run_byte_for_byte(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable
) -> None:
    trained(normal_images, tmp_path / "same", options())
    trained(normal_images, tmp_path / "other", options(seed=8))
    assert contents(tmp_path / "same") == contents(finished_run)
    assert contents(tmp_path / "other")[BACKBONE] != contents(finished_run)[BACKBONE]
    assert contents(tmp_path / "other")[IMAGE_TABLE] == contents(finished_run)[IMAGE_TABLE]


def test_curves_and_views_do_not_change_the_training(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("write_curves", "write_view_sheet"):
        monkeypatch.setattr(training_module, name, lambda *_, **__: None)
    trained(normal_images, tmp_path / "run", options())
    learned = (BACKBONE, BANK, CALIBRATION, METRICS)
    assert contents(tmp_path / "run", learned) == contents(finished_run, learned)
    assert not (tmp_path / "run" / VIEWS).exists()


def test_the_views_can_be_seen_while_the_training_runs(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable
) -> None:
    seen: list[bool] = []

    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "fine-tuning" and done:
            seen.append((tmp_path / "run" / VIEWS).exists())

    trained(normal_images, tmp_path / "run", options(), report=report)
    assert seen == [True] * 4
    assert contents(tmp_path / "run", (VIEWS,)) == contents(finished_run, (VIEWS,))


def test_without_steps_there_are_no_curves_and_views(frozen_run: Path) -> None:
    assert not {CURVES, VIEWS} & {path.name for path in frozen_run.iterdir()}


def test_without_steps_the_backbone_does_not_change(frozen_run: Path, small_weights: Path) -> None:
    given, written = load_file(small_weights), load_file(frozen_run / BACKBONE)
    assert given.keys() == written.keys()
    assert all(torch.equal(given[key], written[key]) for key in given)
    record = read_record(frozen_run)
    assert record.fine_tuning.steps == 0
    assert record.weights.sha256 == sha256(small_weights.read_bytes()).hexdigest()


def test_held_out_images_do_not_influence_the_training(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, toy, save: Callable
) -> None:
    others = shutil.copytree(normal_images, tmp_path / "others")
    for number, image in enumerate(read_image_table(finished_run / IMAGE_TABLE)):
        if image.role == "calibration":
            save(others / image.path, toy.draw(500 + number, "stain"))
    trained(others, tmp_path / "run", options())
    assert contents(tmp_path / "run", (BACKBONE, METRICS)) == contents(finished_run, (BACKBONE, METRICS))
    learned = [image.role == "bank" for image in read_image_table(finished_run / IMAGE_TABLE)]
    banks = [np.load(run / BANK) for run in (tmp_path / "run", finished_run)]
    assert np.array_equal(*(bank[learned] for bank in banks))
    assert not np.array_equal(*banks)
    assert contents(tmp_path / "run", (CALIBRATION,)) != contents(finished_run, (CALIBRATION,))


def wait_for_steps(process: subprocess.Popen, out: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(out / METRICS, StepMetrics)) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow  # starts another Python process with torch
def test_a_killed_run_can_be_resumed_with_the_same_result(
    normal_images: Path, tmp_path: Path, options: Callable, small_weights: Path
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
    normal_images: Path, tmp_path: Path, options: Callable, small_weights: Path
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
    other: dict, normal_images: Path, interrupted: Path, tmp_path: Path, options: Callable
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    with pytest.raises(UsageError, match="started with other options"):
        train(normal_images, run, options(**other), resume=True)
    assert contents(run, (CHECKPOINT, METRICS)) == contents(interrupted, (CHECKPOINT, METRICS))  # nothing was lost


def test_before_the_second_checkpoint_only_the_same_options_resume_a_run(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable
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
    normal_images: Path, interrupted: Path, tmp_path: Path, options: Callable
) -> None:
    """As an older version left it before its first checkpoint: the views of other settings would stay."""
    run = shutil.copytree(interrupted, tmp_path / "run")
    (run / CHECKPOINT).unlink()
    trained(normal_images, run, options(seed=8), resume=True)
    trained(normal_images, tmp_path / "other", options(seed=8))
    assert contents(run) == contents(tmp_path / "other")


def test_resuming_with_the_same_options_finishes_the_run(
    normal_images: Path, interrupted: Path, finished_run: Path, tmp_path: Path, options: Callable
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    trained(normal_images, run, options(), resume=True)
    assert contents(run) == contents(finished_run)


def test_a_finished_run_is_not_trained_again(
    normal_images: Path, frozen_run: Path, tmp_path: Path, options: Callable
) -> None:
    out = shutil.copytree(frozen_run, tmp_path / "run")
    with pytest.raises(UsageError, match=r"already finished.*msc-edge export"):
        train(normal_images, out, options(steps=0), resume=True)
    with pytest.raises(UsageError, match=r"is not empty"):
        train(normal_images, out, options(steps=0))
    files = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RECORD)
    assert contents(out, files) == contents(frozen_run, files)


def test_resuming_a_run_that_was_not_started_starts_it(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable
) -> None:
    trained(normal_images, tmp_path / "run", options(), resume=True)
    assert contents(tmp_path / "run") == contents(finished_run)


def test_a_second_training_in_the_same_folder_is_refused_and_the_first_continues(
    normal_images: Path, frozen_run: Path, tmp_path: Path, options: Callable
) -> None:
    errors: list[str] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "reading images" and done == 1:  # nothing is written yet
            for resume in (False, True):
                with pytest.raises(UsageError) as refused:
                    train(normal_images, tmp_path / "run", options(seed=1), resume=resume)
                errors.append(str(refused.value))

    trained(normal_images, tmp_path / "run", options(steps=0), report=report)
    assert ["another training is running there" in each for each in errors] == [True, True]
    files = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE)
    assert contents(tmp_path / "run", files) == contents(frozen_run, files)


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_existing_files_at_the_output_path_are_not_changed(
    occupied: str, normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    out = tmp_path / "out"
    if occupied == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=str(out)):
        train(normal_images, out, options())
    assert (out if occupied == "file" else out / "thesis.txt").read_text() == "mine"


def test_reduced_jpeg_decodes_at_a_reduced_size_in_training_and_in_the_kit(
    tmp_path: Path, options: Callable, toy: ModuleType, save: Callable
) -> None:
    folder = tmp_path / "jpegs"
    for seed in range(6):
        save(folder / f"{seed:02d}.jpg", np.kron(toy.draw(seed), np.ones((3, 3, 1), np.uint8)))
    height, width = read_image(folder / "00.jpg").shape[:2]
    record = trained(folder, tmp_path / "run", options(steps=0, reduced_jpeg=True))
    assert record.decode.jpeg_keep == 64  # twice the input size of the network, 32
    small = read_image(folder / "00.jpg", record.decode).shape
    assert small[0] < height
    assert 64 <= min(small[:2]) < 128
    full = trained(folder, tmp_path / "full", options(steps=0))
    assert full.decode.jpeg_keep is None
    apart = np.abs(np.load(tmp_path / "run" / BANK) - np.load(tmp_path / "full" / BANK)).max()
    assert 1e-4 < apart < 0.1  # a different image, but a similar one
    assert width > small[1]


def test_a_region_and_reduced_jpeg_exclude_each_other(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    with pytest.raises(UsageError, match="--reduced-jpeg and --roi: a region is in pixels of the full image"):
        train(normal_images, tmp_path / "run", options(reduced_jpeg=True, region=Region(x=0, y=0, width=9, height=9)))


@pytest.mark.skipif(os.name != "posix", reason="no named pipes here")
def test_unreadable_images_and_duplicates_are_skipped_and_reported(
    normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    folder = shutil.copytree(normal_images, tmp_path / "in")
    (folder / "part_03.png").write_bytes((folder / "part_03.png").read_bytes()[:300])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    (folder / "link.png").symlink_to(tmp_path / "gone.png")
    (folder / "link2.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(folder / "pipe.png")
    shutil.copy(folder / "part_05.png", folder / "zz copy.png")
    (folder / "zz metadata.png").write_bytes((folder / "part_05.png").read_bytes() + b"behind the end")
    unreadable: dict[str, str] = {}
    record = trained(folder, tmp_path / "run", options(steps=1), unreadable=unreadable.__setitem__)
    images = read_image_table(tmp_path / "run" / IMAGE_TABLE)
    roles = {image.path: image.role for image in images}
    assert sorted(unreadable) == ["broken.jpg", "link.png", "link2.png", "part_03.png", "pipe.png"]
    assert unreadable["pipe.png"] == "cannot be opened: it is not a regular file; check the path"
    assert {name for name, role in roles.items() if role == "unreadable"} == set(unreadable)
    assert (roles["zz copy.png"], roles["zz metadata.png"]) == ("duplicate", "duplicate")
    used = [image for image in images if image.role in ("bank", "calibration")]
    assert len(used) == 19
    assert record.data_fingerprint == fingerprint(used)
    assert len(np.load(tmp_path / "run" / BANK)) == 19
    assert len(np.load(tmp_path / "run" / CALIBRATION)) == 4


@pytest.mark.parametrize(("readable", "unreadable"), [(0, 4), (1, 0), (2, 3)])
def test_too_few_readable_images_are_refused(
    readable: int, unreadable: int, normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(readable):
        shutil.copy(normal_images / f"part_{i:02d}.png", folder)
    for i in range(unreadable):
        (folder / f"bad_{i}.png").write_bytes(b"bad %d" % i)
    reason = (
        f"^{unreadable} of {readable + unreadable} images cannot be read, .*the first failure: bad_0.png: "
        if unreadable
        else "^of 1 images found"
    )
    with pytest.raises(SourceError, match=rf"{reason}.*"):
        train(folder, tmp_path / "run", options())
    with pytest.raises(KitError):
        read_record(tmp_path / "run")


def test_three_images_are_enough(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        shutil.copy(normal_images / f"part_{i:02d}.png", folder)
    record = trained(folder, tmp_path / "run", options(steps=2))
    assert record.fine_tuning.batch == 2
    assert len(np.load(tmp_path / "run" / BANK)) == 3
    assert len(np.load(tmp_path / "run" / CALIBRATION)) == 1


def test_the_error_names_the_image_that_does_not_contain_the_region(
    normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    with pytest.raises(SourceError, match=r"part_00\.png: is 64x48 pixels, and --roi 0,0,65,48 is not inside it"):
        train(normal_images, tmp_path / "run", options(region=Region(x=0, y=0, width=65, height=48)))


def test_pixels_outside_the_region_have_no_influence(
    normal_images: Path, tmp_path: Path, options: Callable, save: Callable
) -> None:
    folder = tmp_path / "in"
    for path in sorted(normal_images.iterdir()):
        image = read_image(path)
        image[:, :10] = image[:, 50:] = image[:4] = image[40:] = 255 - image[0, 0]
        save(folder / path.name, image)
    with_region = options(steps=2, region=Region(x=10, y=4, width=40, height=36))
    for normal, name in ((normal_images, "one"), (folder, "two")):
        trained(normal, tmp_path / name, with_region)
    names = (BACKBONE, BANK, CALIBRATION, METRICS)
    assert contents(tmp_path / "one", names) == contents(tmp_path / "two", names)


@pytest.mark.parametrize("steps", [4, 1])
def test_a_diverged_training_is_refused(steps: int, normal_images: Path, tmp_path: Path, options: Callable) -> None:
    # With one step the loss is still finite: only the embeddings show the effect of the step.
    with pytest.raises(UsageError, match="--learning-rate"):
        train(normal_images, tmp_path / "run", options(steps=steps, learning_rate=1e30))
    with pytest.raises(KitError):
        read_record(tmp_path / "run")


@pytest.mark.parametrize(("fails_at", "kept"), [(1, 0), (3, 0), (4, 3)])
def test_after_a_crash_in_a_loss_the_same_command_works_or_the_error_says_resume(
    fails_at: int,
    kept: int,
    normal_images: Path,
    finished_run: Path,
    tmp_path: Path,
    options: Callable,
    monkeypatch: pytest.MonkeyPatch,
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


def test_a_collapsed_training_is_refused(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    # All images become one point: every score would be 0 and every defect normal.
    with pytest.raises(UsageError, match=r"embeddings have collapsed: .* train again with a lower --learning-rate"):
        train(normal_images, tmp_path / "run", options(learning_rate=5.0, steps=3))
    assert not (tmp_path / "run" / RECORD).exists()


def test_a_network_whose_features_are_zero_is_refused(
    normal_images: Path, tmp_path: Path, options: Callable, small_weights: Path
) -> None:
    dead = load_file(small_weights)
    for block in (2, 3):  # the second one adds its input to its output
        for name in ("weight", "bias"):
            dead[f"features.{block}.conv.3.{name}"].zero_()
    save_file(dead, tmp_path / "dead.safetensors")
    with pytest.raises(UsageError, match="all zero"):
        train(normal_images, tmp_path / "run", options(steps=0, weights=tmp_path / "dead.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    with pytest.raises(UsageError, match="--accelerator gpu --devices 1: not available on this machine"):
        train(normal_images, tmp_path / "run", options(accelerator="gpu"))


def test_bf16_steps_learn_nearly_the_same(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable
) -> None:
    trained(normal_images, tmp_path / "bf16", options(dtype="bf16"))
    exact, rounded = (read_metrics(run / METRICS, StepMetrics) for run in (finished_run, tmp_path / "bf16"))
    assert [row.loss for row in rounded] == pytest.approx([row.loss for row in exact], abs=0.05)
    assert all(
        value.dtype == torch.float32
        for key, value in load_file(tmp_path / "bf16" / BACKBONE).items()
        if "num_" not in key
    )


@NOT_TEXT
def test_a_folder_whose_name_is_not_text_is_refused_immediately(
    normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(normal_images, folder)
    with pytest.raises(SourceError, match="not valid text"):
        train(folder, tmp_path / "run", options())
    assert not (tmp_path / "run").exists()


@NOT_TEXT
def test_an_image_whose_name_is_not_text_is_used(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    folder = shutil.copytree(normal_images, tmp_path / "in")
    (folder / "part_00.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    trained(folder, tmp_path / "run", options(steps=0))
    assert os.fsdecode(b"caf\xe9.png") in [image.path for image in read_image_table(tmp_path / "run" / IMAGE_TABLE)]


def test_the_record_describes_the_run(normal_images: Path, tmp_path: Path, options: Callable) -> None:
    out = tmp_path / "run"
    trained(normal_images, out, options(steps=1, region=Region(x=1, y=2, width=30, height=40), seed=5))
    record = json.loads((out / RECORD).read_text())
    assert record["format_version"] == 2
    assert (record["backbone"], record["stop_at"], record["k"]) == (
        "mobilenet_v2_x0.1",
        "features.3",
        2,
    )
    assert record["preprocessing"]["region"] == {"x": 1, "y": 2, "width": 30, "height": 40}
    settings = record["fine_tuning"]
    assert (settings["seed"], settings["steps"], settings["dtype"]) == (5, 1, "fp32")
    assert record["weights"]["source"] == "mobilenet_to_3.safetensors"
    assert Path(record["folder"]) == normal_images.resolve()
    assert {"torch", "torchvision", "numpy"} <= record["versions"].keys()
    assert {name: entry["sha256"] for name, entry in record["files"].items()} == contents(
        out, (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE)
    )


def test_real_frozen_weights_separate_defective_papers_from_normal_ones(
    real_weights: Path, real_papers: Path, tmp_path: Path
) -> None:
    record = trained(
        real_papers / "good",
        tmp_path / "run",
        TrainingOptions(backbone="mobilenet_v2", weights=real_weights, image_size=96, steps=0, accelerator="cpu"),
    )
    network = EmbeddingNetwork(build_backbone(record.backbone), record.preprocessing).eval()
    load_into(network.backbone, load_file(tmp_path / "run" / BACKBONE), source=BACKBONE)
    bank = Bank(np.load(tmp_path / "run" / BANK))
    defective = sorted((real_papers / "defect").iterdir())[::2]
    anomalous = [bank.score(row) for row in network.embed_all((path.name, read_image(path)) for path in defective)]
    normal = np.load(tmp_path / "run" / CALIBRATION).tolist()
    assert roc_auc_score([0] * len(normal) + [1] * len(anomalous), normal + anomalous) > 0.8


@pytest.mark.parametrize("wrong", [{"image_size": 10**6}, {"devices": 1000}, {"stop_at": "nonsense"}])
def test_an_invalid_option_leaves_no_folder(
    wrong: dict[str, Any], normal_images: Path, tmp_path: Path, options: Callable
) -> None:
    with pytest.raises(UsageError):
        train(normal_images, tmp_path / "run", options(steps=0, **wrong))
    assert not (tmp_path / "run").exists()
