import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train.backbones import Backbone, build_backbone
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.distillation.distil import (
    DISTIL_RECORD,
    DistilOptions,
    DistilRecord,
    distil,
    work_folder,
)
from msc_edge.train.distillation.loop import DistilMetrics, rank_correlation
from msc_edge.train.metrics import METRICS, read_metrics
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.training import TrainingOptions, train
from msc_edge.train.weights import bundled_weights, load_into, weights_from_file


class StoppedError(Exception):
    """What a test raises to stop a distillation after a step."""


def scene(seed: int) -> np.ndarray:
    """An image that is like no other: patches and stripes of many colours, uint8 (48, 64, 3)."""
    random = np.random.default_rng(seed)
    patches = random.uniform(0, 255, (random.integers(1, 7), random.integers(1, 7), 3)).astype(np.float32)
    image = cv2.resize(patches, (64, 48), interpolation=cv2.INTER_CUBIC)
    row, column = np.mgrid[:48, :64]
    stripes = np.sin(random.uniform(0.1, 2) * row + random.uniform(0.1, 2) * column)[..., None]
    return np.clip(image + stripes * random.uniform(-80, 80, 3), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, save: Callable) -> Path:
    """Forty-eight scenes; not to be changed."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(48):
        save(folder / f"{seed:02d}.png", scene(seed))
    return folder


def settled(backbone: Backbone, photos: Path) -> dict[str, Tensor]:
    """Give a random network the batch-norm statistics of the scenes, so that it tells them apart; its state."""
    frame = Preprocess(preset("whole-frame", image_size=32))
    scenes = torch.cat([frame(torch.from_numpy(read_image(path))[None]) for path in sorted(photos.iterdir())])
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over what it sees
    with torch.no_grad():
        backbone.train()(scenes)
    return backbone.eval().state_dict()


@pytest.fixture(scope="module")
def teacher_weights(photos: Path, tmp_path_factory: pytest.TempPathFactory, randomise: Callable) -> Path:
    """A random ResNet-18 to layer2."""
    backbone = build_backbone("resnet18", stop_at="layer2")
    randomise(backbone, 0)
    path = tmp_path_factory.mktemp("teacher") / "resnet18_to_layer2.safetensors"
    save_file(settled(backbone, photos), path)
    return path


@pytest.fixture
def options(teacher_weights: Path) -> DistilOptions:
    """A ResNet-18 to layer2 teaches a MobileNetV2 of a tenth of the width."""
    return DistilOptions(
        teacher_backbone="resnet18",
        teacher_weights=teacher_weights,
        teacher_stop_at="layer2",
        student="mobilenet_v2_x0.1",
        steps=6,
        batch=8,
        image_size=32,
        accelerator="cpu",
        precision="fp32",
        measure_every=2,
        learning_rate=1e-3,
    )


def stopping_after(step: int) -> Callable:
    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "distilling" and done == step:
            raise StoppedError

    return report


def rows_of(out: Path) -> list[DistilMetrics]:
    return read_metrics(work_folder(out) / METRICS, DistilMetrics)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_student_comes_to_see_as_its_teacher_does(photos: Path, tmp_path: Path, options: DistilOptions) -> None:
    out = tmp_path / "student.safetensors"
    distil([photos], out, replace(options, student="resnet18", steps=60, batch=16, measure_every=10))
    rows = rows_of(out)
    assert [row.step for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1].loss < 0.7 * rows[0].loss
    assert rows[-1].rank_correlation > max(0.5, rows[0].rank_correlation)
    assert all(np.isnan(row.unexplained) for row in rows)  # the dimensions differ
    assert all(row.loss == pytest.approx(row.embedding_loss + row.map_loss) for row in rows)


def test_the_weights_are_those_of_the_named_backbone_and_the_record_tells_where_they_come_from(
    photos: Path, tmp_path: Path, options: DistilOptions, teacher_weights: Path
) -> None:
    out = tmp_path / "student.safetensors"
    record = distil([photos], out, options)
    assert record is not None
    backbone = build_backbone("mobilenet_v2_x0.1")
    load_into(backbone, weights_from_file(out).state, source="student")
    assert same(backbone.state_dict(), load_file(out))
    with safe_open(out, "pt") as file:
        assert file.metadata() == {"backbone": "mobilenet_v2_x0.1"}

    written = DistilRecord.model_validate_json((work_folder(out) / DISTIL_RECORD).read_bytes())
    assert written == record
    assert (record.teacher, record.teacher_stop_at, record.start) == ("resnet18", "layer2", "from scratch")
    assert record.teacher_weights == weights_from_file(teacher_weights).origin
    assert record.weights_sha256 == weights_from_file(out).origin.sha256
    assert record.images + record.held_out == 48
    assert record.result["rank_correlation"] == rows_of(out)[-1].rank_correlation
    assert not (work_folder(out) / CHECKPOINT).exists()


def test_the_same_seed_gives_the_same_student_and_another_seed_another(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    for one, another in ((5, 6), (10**20, 10**20 + 1)):  # torch takes seeds below 2**64
        students = {}
        for name, seed in (("one", one), ("same", one), ("other", another)):
            out = tmp_path / f"{name}-{seed}.safetensors"
            distil([photos], out, replace(options, seed=seed))
            students[name] = load_file(out)
        assert same(students["one"], students["same"])
        assert not same(students["one"], students["other"])


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_one_that_was_broken_off_goes_on_as_if_it_had_not_been(
    stop: int, photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    distil([photos], whole, options)
    with pytest.raises(StoppedError):
        distil([photos], broken, options, report=stopping_after(stop))
    assert not broken.exists()
    distil([photos], broken, options, resume=True)
    assert whole.read_bytes() == broken.read_bytes()
    assert [(work_folder(out) / METRICS).read_bytes() for out in (whole, broken)].count(
        (work_folder(whole) / METRICS).read_bytes()
    ) == 2


def test_before_the_rate_falls_more_or_fewer_steps_can_be_asked_for(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    straight, changed = tmp_path / "straight.safetensors", tmp_path / "changed.safetensors"
    distil([photos], straight, replace(options, steps=10))
    with pytest.raises(StoppedError):
        distil([photos], changed, replace(options, steps=100), report=stopping_after(5))
    distil([photos], changed, replace(options, steps=10), resume=True)
    assert straight.read_bytes() == changed.read_bytes()

    late = tmp_path / "late.safetensors"
    with pytest.raises(StoppedError):
        distil([photos], late, replace(options, steps=10, measure_every=1), report=stopping_after(10))
    with pytest.raises(UsageError, match="begun with other options"):
        distil([photos], late, replace(options, steps=100, measure_every=1), resume=True)


def test_other_options_images_or_weights_cannot_take_it_up(
    photos: Path, tmp_path: Path, options: DistilOptions, save: Callable
) -> None:
    out = tmp_path / "student.safetensors"
    with pytest.raises(StoppedError):
        distil([photos], out, options, report=stopping_after(3))
    more = save(tmp_path / "more" / "one.png", scene(99)).parent
    other = tmp_path / "other.safetensors"
    save_file({key: value * 1.01 for key, value in load_file(options.teacher_weights or "").items()}, other)
    for images, changed in (
        ([photos], replace(options, seed=1)),
        ([photos], replace(options, learning_rate=1e-4)),
        ([photos], replace(options, teacher_weights=other)),
        ([photos, more], options),
    ):
        with pytest.raises(UsageError, match="begun with other options, images or weights"):
            distil(images, out, changed, resume=True)
    distil([photos], out, options, resume=True)
    with pytest.raises(UsageError, match="finished already; its student is"):
        distil([photos], out, options, resume=True)


def test_a_damaged_checkpoint_is_told(photos: Path, tmp_path: Path, options: DistilOptions) -> None:
    out = tmp_path / "student.safetensors"
    with pytest.raises(StoppedError):
        distil([photos], out, options, report=stopping_after(3))
    checkpoint = work_folder(out) / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(KitError, match="cannot be read"):
        distil([photos], out, options, resume=True)


def test_statistics_of_batch_norm_are_learned_from_scratch_and_kept_from_weights(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    distil([photos], first, options)
    record = distil([photos], second, replace(options, student_weights=first))
    assert record is not None
    assert record.start.startswith("first.safetensors (")
    before, after = load_file(first), load_file(second)
    assert any((value != 0).any() for key, value in before.items() if key.endswith("running_mean"))
    for key, value in after.items():
        buffer = "running_" in key or key.endswith("num_batches_tracked")
        assert torch.equal(value, before[key]) == buffer, key


def test_a_thinner_network_starts_from_the_teachers_channels(
    photos: Path, tmp_path: Path, options: DistilOptions, randomise: Callable
) -> None:
    teacher = build_backbone("mobilenet_v2")
    randomise(teacher, 0)
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    thin = replace(
        options,
        teacher_backbone="mobilenet_v2",
        teacher_weights=tmp_path / "teacher.safetensors",
        teacher_stop_at=None,
        student="edge-small",
        learning_rate=1e-12,
        steps=1,
        half=True,
    )
    out = tmp_path / "student.safetensors"
    record = distil([photos], out, thin)
    assert record is not None
    assert record.start == "thinned"
    assert record.result["unexplained"] is not None
    student = load_file(out)
    assert {value.dtype for value in student.values() if value.is_floating_point()} == {torch.float16}
    assert out.stat().st_size < 5_000_000
    # A block without hidden channels to leave out is the teacher's own.
    for key, value in teacher.state_dict().items():
        if key.startswith(("features.0.", "features.1.", "features.18.")):
            torch.testing.assert_close(student[key].to(value.dtype), value, rtol=1e-3, atol=1e-6)


def test_edge_small_starts_from_its_own_weights_for_another_teacher(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out = tmp_path / "student.safetensors"
    record = distil([photos], out, replace(options, student="edge-small", steps=1, learning_rate=None))
    assert record is not None
    assert record.start.startswith("edge-small, of msc-edge")
    assert record.settings.learning_rate == 2e-4
    before, after = bundled_weights().state, load_file(out)
    # The first step of the warm-up moves no weight by more than its rate, 2e-6, and rounding.
    assert all(torch.allclose(after[key], before[key].to(after[key].dtype), atol=1e-5) for key in after)


def test_a_run_teaches_what_it_has_learned(
    photos: Path, tmp_path: Path, options: DistilOptions, teacher_weights: Path
) -> None:
    run = tmp_path / "run"
    train(
        photos,
        run,
        TrainingOptions(
            backbone="resnet18",
            weights=teacher_weights,
            stop_at="layer2",
            image_size=48,
            steps=2,
            batch=4,
            accelerator="cpu",
            precision="fp32",
        ),
    )
    from_run = replace(
        options, teacher_run=run, teacher_backbone=None, teacher_weights=None, teacher_stop_at=None, image_size=None
    )
    record = distil([photos], tmp_path / "student.safetensors", from_run)
    assert record is not None
    assert record.settings.image_size == 48  # what the run has seen
    assert record.teacher_weights == weights_from_file(run / "backbone.safetensors").origin
    (run / "backbone.safetensors").write_bytes(b"damaged")
    with pytest.raises(KitError, match="SHA-256 differs"):
        distil([photos], tmp_path / "another.safetensors", from_run)


def test_two_processes_learn_what_one_does(photos: Path, tmp_path: Path, options: DistilOptions) -> None:
    # Batch-norm statistics of half a batch are not those of the batch: so the student keeps those it starts with.
    start = tmp_path / "start.safetensors"
    torch.manual_seed(0)
    save_file(settled(build_backbone(options.student), photos), start)
    for devices in (1, 2):
        command = [Path(sys.executable).with_name("msc-edge"), "distil", "--images", photos]
        command += ["--out", tmp_path / f"on{devices}.safetensors", "--devices", devices]
        command += ["--teacher-backbone", "resnet18", "--teacher-stop-at", "layer2"]
        command += ["--teacher-weights", options.teacher_weights, "--student", options.student]
        command += ["--student-weights", start, "--steps", 4, "--batch", 8, "--image-size", 32]
        command += ["--accelerator", "cpu", "--precision", "fp32", "--measure-every", 1]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    alone, together = (load_file(tmp_path / f"on{devices}.safetensors") for devices in (1, 2))
    before = load_file(start)
    moved = max(float((alone[key] - before[key]).abs().max()) for key in alone if key.endswith("weight"))
    apart = max(float((alone[key] - together[key]).abs().max()) for key in alone if key.endswith("weight"))
    assert apart < moved / 20
    one, two = (rows_of(tmp_path / f"on{devices}.safetensors") for devices in (1, 2))
    assert [row.loss for row in two] == pytest.approx([row.loss for row in one], rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher_backbone": None}, "name one teacher"),
        ({"teacher_run": Path("run")}, "name one teacher"),
        ({"teacher_backbone": None, "teacher_run": Path("run")}, "leave out --teacher-weights"),
        ({"student": "resnet19"}, "--student resnet19: not known"),
        ({"teacher_backbone": "resnet19"}, "--teacher-backbone resnet19: not known"),
        ({"teacher_stop_at": "layer9"}, "--teacher-stop-at layer9: there is no such stage"),
        ({"teacher_weights": Path("nowhere.pth")}, "--teacher-weights nowhere.pth: No such file"),
        ({"student": "mobilenet_v2_x0.05"}, "not known.*mobilenet_v2_x0.5"),
        ({"teacher_backbone": "resnet50"}, "another network"),
        ({"batch": 7}, "--batch 7: expected an even number"),
        ({"student_weights": Path("nowhere.safetensors")}, "--student-weights nowhere.safetensors: No such file"),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    changed: dict, message: str, photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out = tmp_path / "student.safetensors"
    with pytest.raises(UsageError, match=message):
        distil([photos], out, replace(options, **changed))
    assert not work_folder(out).exists()


def test_a_place_that_is_taken_or_of_another_kind_is_refused(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends in \.safetensors"):
        distil([photos], tmp_path / "student.pth", options)
    (tmp_path / "student.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        distil([photos], tmp_path / "student.safetensors", options)
    with pytest.raises(UsageError, match="exists already"):  # there is nothing to resume
        distil([photos], tmp_path / "student.safetensors", options, resume=True)
    assert (tmp_path / "student.safetensors").read_bytes() == b"mine"
    strangers = tmp_path / "other-distil"
    strangers.mkdir()
    (strangers / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds no run that was broken off"):
        distil([photos], tmp_path / "other.safetensors", options, resume=True)
    assert [path.name for path in strangers.iterdir()] == ["holiday.jpg"]
    with pytest.raises(UsageError, match="not valid text"):
        distil([photos], tmp_path / "\udcff.safetensors", options)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        distil([photos], tmp_path / "folder.safetensors", options, resume=True)


def test_a_link_that_leads_nowhere_is_a_place_that_is_taken(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    (tmp_path / "student.safetensors").symlink_to(tmp_path / "unplugged" / "disk")
    with pytest.raises(UsageError, match="exists already"):
        distil([photos], tmp_path / "student.safetensors", options)
    assert (tmp_path / "student.safetensors").is_symlink()


def taking(out: Path, *, at: int) -> Callable:
    """Put a file of somebody else's at `out` while a step is done."""

    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "distilling" and done == at:
            out.write_bytes(b"mine")

    return report


def test_a_file_that_appears_meanwhile_is_left_as_it_is_and_the_student_is_not_lost(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out, whole = tmp_path / "student.safetensors", tmp_path / "whole.safetensors"
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"move that file away.*--resume"):
            distil([photos], out, options, report=taking(out, at=3), resume=resume)
        assert out.read_bytes() == b"mine"
        assert not (work_folder(out) / DISTIL_RECORD).exists()
    out.unlink()
    distil([photos], out, options, resume=True)
    distil([photos], whole, options)
    assert out.read_bytes() == whole.read_bytes()


def test_one_that_was_killed_before_its_record_was_written_is_finished(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out = tmp_path / "student.safetensors"
    with pytest.raises(UsageError, match="--resume"):
        distil([photos], out, options, report=taking(out, at=6))
    distil([photos], tmp_path / "whole.safetensors", options)
    out.write_bytes((tmp_path / "whole.safetensors").read_bytes())  # as it would have been
    assert distil([photos], out, options, resume=True) is not None


def test_the_metrics_of_one_that_goes_on_may_be_lost_but_not_damaged(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out, whole = tmp_path / "student.safetensors", tmp_path / "whole.safetensors"
    with pytest.raises(UsageError, match="--resume"):
        distil([photos], out, options, report=taking(out, at=6))
    out.unlink()
    metrics = work_folder(out) / METRICS
    metrics.write_bytes(b"\xff\xfe\n" + metrics.read_bytes())
    with pytest.raises(KitError, match=r"metrics\.csv: is damaged .*; move it away"):
        distil([photos], out, options, resume=True)
    metrics.unlink()
    again, straight = distil([photos], out, options, resume=True), distil([photos], whole, options)
    assert again is not None
    assert straight is not None
    assert out.read_bytes() == whole.read_bytes()
    # How the student ends is measured again; the losses of steps long past are not known any more.
    assert again.result == {**straight.result, "loss": None, "embedding_loss": None, "map_loss": None} | {"step": 6}
    assert [row.step for row in rows_of(out)] == [6]


def test_a_second_distillation_to_the_same_file_is_refused(
    photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out, refused = tmp_path / "student.safetensors", []

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "reading images" and done == 1:
            with pytest.raises(UsageError, match="another training is at work there"):
                distil([photos], out, replace(options, seed=9))
            refused.append(done)

    record = distil([photos], out, options, report=report)
    assert refused
    assert record is not None
    assert record.settings.seed == 0
    assert {path.name for path in work_folder(out).iterdir()} == {DISTIL_RECORD, METRICS, "tensorboard"}


def test_too_few_images_are_refused(save: Callable, tmp_path: Path, options: DistilOptions) -> None:
    for seed in range(10):
        save(tmp_path / "few" / f"{seed}.png", scene(seed))
    with pytest.raises(SourceError, match=r"of 10 images found, 10 can be read.*at least 32"):
        distil([tmp_path / "few"], tmp_path / "student.safetensors", options)


@pytest.mark.parametrize(("rate", "steps"), [(1e30, 20), (1e38, 1)])
def test_a_rate_that_destroys_the_student_is_told(
    rate: float, steps: int, photos: Path, tmp_path: Path, options: DistilOptions
) -> None:
    out = tmp_path / "student.safetensors"
    with pytest.raises(UsageError, match=r"no longer finite at step \d+.*--learning-rate"):
        distil([photos], out, replace(options, learning_rate=rate, steps=steps))
    assert not out.exists()
    assert not rows_of(out)


def test_rank_correlation_is_one_for_any_rising_change_and_minus_one_for_a_falling_one() -> None:
    angles = torch.tensor([0.0, 0.11, 0.29, 0.62, 1.3], dtype=torch.float64)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    wider = torch.stack([(2 * angles).cos(), (2 * angles).sin()], dim=1)
    assert rank_correlation(rows, wider) == pytest.approx(1)
    drawn = torch.nn.functional.normalize(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    assert abs(rank_correlation(drawn, drawn.roll(1, 0))) < 0.5


def test_answers_that_are_all_alike_have_no_rank_correlation() -> None:
    alike = torch.ones(5, 1)
    assert math.isnan(rank_correlation(alike, alike))
    # Two groups under one network, and one image apart under the other: of the cosines most are equal.
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    one, other = torch.stack([east, east, north, north]), torch.stack([east, north, north, north])
    assert rank_correlation(one, other) == pytest.approx(0)


def test_the_record_names_no_place_of_this_machine(photos: Path, tmp_path: Path, options: DistilOptions) -> None:
    out = tmp_path / "student.safetensors"
    distil([photos], out, options)
    text = (work_folder(out) / DISTIL_RECORD).read_text()
    assert json.loads(text)["student"] == "mobilenet_v2_x0.1"
    assert not re.search(r'"/', text)
