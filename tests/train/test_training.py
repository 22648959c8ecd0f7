import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
from msc_edge.train.backbones import build_backbone
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.dataset import fingerprint, read_image_table
from msc_edge.train.devices import precision_of
from msc_edge.train.metrics import METRICS, StepMetrics, read_metrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RECORD, RunRecord, read_record
from msc_edge.train.training import TrainingOptions, train
from msc_edge.train.weights import load_into

RESULTS = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, METRICS)


def trained(normal: Path, out: Path, options: TrainingOptions, **more) -> RunRecord:
    record = train(normal, out, options, **more)
    assert record is not None
    return record


def contents(run: Path, names: tuple[str, ...] = RESULTS) -> dict[str, str]:
    return {name: sha256((run / name).read_bytes()).hexdigest() for name in names}


def command(normal: Path, out: Path, weights: Path, *more: str) -> list[str]:
    """The options of the fixture `options`, as one types them."""
    quick = "--backbone resnet18 --stop-at layer2 --image-size 32 --batch 4 --learning-rate 1e-2 --precision fp32"
    given = [*quick.split(), "--accelerator", "cpu", "--weights", str(weights), *more]
    return [sys.executable, "-m", "msc_edge", "train", "--normal", str(normal), "--out", str(out), *given]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_run_folder_holds_what_was_learnt(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    record = trained(drawn_normals, tmp_path / "run", options())
    assert read_record(tmp_path / "run") == record
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*RESULTS, RECORD, "tensorboard"}  # no checkpoint

    images = read_image_table(tmp_path / "run" / IMAGE_TABLE)
    roles = [image.role for image in images]
    assert (roles.count("bank"), roles.count("calibration")) == (16, 4)
    assert record.data_fingerprint == fingerprint(images)

    # Everything again from the weights that were written, image by image.
    backbone = build_backbone(record.backbone, stop_at=record.stop_at)
    load_into(backbone, load_file(tmp_path / "run" / BACKBONE), source=BACKBONE)
    network = EmbeddingNetwork(backbone, record.preprocessing).eval()
    with torch.no_grad():
        embeddings = {
            role: np.concatenate(
                [
                    network(torch.from_numpy(read_image(drawn_normals / image.path))[None])
                    for image in images
                    if image.role == role
                ]
            )
            for role in ("bank", "calibration")
        }
    bank, scores = np.load(tmp_path / "run" / BANK), np.load(tmp_path / "run" / CALIBRATION)
    assert (bank.dtype, scores.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(bank, embeddings["bank"], atol=2e-6)
    expected = [Bank(embeddings["bank"]).score(embedding) for embedding in embeddings["calibration"]]
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    assert record.dim == bank.shape[1] == 128


def test_the_same_seed_gives_the_same_run_byte_for_byte(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        trained(drawn_normals, tmp_path / name, options(seed=seed))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one")[BACKBONE] != contents(tmp_path / "three")[BACKBONE]
    assert contents(tmp_path / "one")[IMAGE_TABLE] == contents(tmp_path / "three")[IMAGE_TABLE]


def test_no_steps_keep_the_backbone_that_was_given(
    drawn_normals: Path, tmp_path: Path, options: Callable, small_weights: Path
) -> None:
    record = trained(drawn_normals, tmp_path / "run", options(steps=0))
    given, kept = load_file(small_weights), load_file(tmp_path / "run" / BACKBONE)
    assert given.keys() == kept.keys()
    assert all(torch.equal(given[key], kept[key]) for key in given)
    assert record.fine_tuning.steps == 0
    assert record.weights.sha256 == sha256(small_weights.read_bytes()).hexdigest()


def test_the_centre_is_that_of_the_bank_and_not_of_the_held_out_images(
    drawn_normals: Path, tmp_path: Path, options: Callable, toy, save: Callable
) -> None:
    # Other images in the held-out places must not change what is learnt.
    trained(drawn_normals, tmp_path / "run", options())
    others = shutil.copytree(drawn_normals, tmp_path / "others")
    for image in read_image_table(tmp_path / "run" / IMAGE_TABLE):
        if image.role == "calibration":
            save(others / image.path, toy.draw(500, "stain"))
    for i, image in enumerate(sorted(others.iterdir())):  # exact copies would be left out
        if image.read_bytes() == save(tmp_path / "x.png", toy.draw(500, "stain")).read_bytes():
            save(image, toy.draw(500 + i, "stain"))
    trained(others, tmp_path / "again", options())
    assert contents(tmp_path / "run", (BACKBONE, BANK, METRICS)) == contents(
        tmp_path / "again", (BACKBONE, BANK, METRICS)
    )
    assert contents(tmp_path / "run", (CALIBRATION,)) != contents(tmp_path / "again", (CALIBRATION,))


def wait_for_steps(process: subprocess.Popen, out: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(out / METRICS, StepMetrics)) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_run_goes_on_with_the_result_of_an_unbroken_one(
    drawn_normals: Path, tmp_path: Path, options: Callable, small_weights: Path
) -> None:
    steps = 60
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    train_it = command(drawn_normals, broken, small_weights, "--steps", str(steps), "--checkpoint-every", "3")
    with subprocess.Popen(train_it, env=ONE_THREAD, stderr=subprocess.PIPE, text=True) as process:
        wait_for_steps(process, broken, 8)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL if sys.platform != "win32" else process.returncode
    assert (broken / CHECKPOINT).is_file()
    with pytest.raises(KitError, match="not finished"):
        read_record(broken)

    trained(drawn_normals, broken, options(steps=steps, checkpoint_every=50), resume=True)
    trained(drawn_normals, unbroken, options(steps=steps))
    assert contents(broken) == contents(unbroken)


@pytest.mark.slow  # three starts of Python with torch
def test_two_processes_learn_what_one_does(
    drawn_normals: Path, tmp_path: Path, options: Callable, small_weights: Path
) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    train_it = command(drawn_normals, together, small_weights, "--steps", "6", "--devices", "2", "--recipe", "v1")
    done = subprocess.run(train_it, env=ONE_THREAD, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: msc-edge export") == 1  # one of the two speaks
    trained(drawn_normals, alone, options(steps=6, recipe="v1"))

    ours, theirs = load_file(alone / BACKBONE), load_file(together / BACKBONE)
    start = load_file(small_weights)
    moved = max(float((ours[key] - start[key]).abs().max()) for key in ours)
    apart = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
    assert apart < 1e-5
    assert apart < moved / 50  # and they did learn
    np.testing.assert_allclose(np.load(together / BANK), np.load(alone / BANK), atol=1e-5)
    rows = [read_metrics(folder / METRICS, StepMetrics) for folder in (together, alone)]
    for one, other in zip(*rows, strict=True):
        assert (one.step, one.loss) == (other.step, pytest.approx(other.loss, abs=1e-4))
        assert one.mean_pairwise_cosine == pytest.approx(other.mean_pairwise_cosine, abs=1e-4)
        assert one.effective_rank == pytest.approx(other.effective_rank, abs=1e-2)


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory, drawn_normals: Path, options: Callable) -> Path:
    """A run that was stopped after three of its four steps; not to be changed."""
    out = tmp_path_factory.mktemp("broken") / "run"

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "fine-tuning" and done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(drawn_normals, out, options(checkpoint_every=1), report=report)
    return out


@pytest.mark.parametrize(
    "other",
    [
        {"steps": 9},
        {"seed": 1},
        {"recipe": "v1"},
        {"image_size": 64},
        {"preset": "paper"},
        {"holdout": 0.4},
        {"stop_at": "layer1"},
        {"region": Region(x=0, y=0, width=30, height=30)},
    ],
)
def test_resuming_with_other_options_is_refused(
    other: dict, drawn_normals: Path, broken_off: Path, tmp_path: Path, options: Callable
) -> None:
    run = shutil.copytree(broken_off, tmp_path / "run")
    with pytest.raises(UsageError, match="begun with other options"):
        train(drawn_normals, run, options(**other), resume=True)
    assert contents(run, (CHECKPOINT, METRICS)) == contents(broken_off, (CHECKPOINT, METRICS))  # nothing was lost


def test_resuming_with_the_same_options_finishes_the_run(
    drawn_normals: Path, broken_off: Path, tmp_path: Path, options: Callable
) -> None:
    run = shutil.copytree(broken_off, tmp_path / "run")
    trained(drawn_normals, run, options(), resume=True)
    trained(drawn_normals, tmp_path / "unbroken", options())
    assert contents(run) == contents(tmp_path / "unbroken")


def test_a_finished_run_is_not_trained_again(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    out = tmp_path / "run"
    trained(drawn_normals, out, options(steps=0))
    before = contents(out, (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RECORD))
    with pytest.raises(UsageError, match=r"finished already.*msc-edge export"):
        train(drawn_normals, out, options(steps=0), resume=True)
    with pytest.raises(UsageError, match=r"is not empty"):
        train(drawn_normals, out, options(steps=0))
    assert contents(out, (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RECORD)) == before


def test_resuming_where_nothing_was_begun_begins(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    trained(drawn_normals, tmp_path / "fresh", options())
    trained(drawn_normals, tmp_path / "resumed", options(), resume=True)
    assert contents(tmp_path / "fresh") == contents(tmp_path / "resumed")


def test_a_second_training_into_the_same_folder_is_refused_and_the_first_goes_on(
    drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    refused: list[str] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "reading the normals" and done == 1:  # nothing is written yet
            for resume in (False, True):
                with pytest.raises(UsageError) as refusal:
                    train(drawn_normals, tmp_path / "run", options(seed=1), resume=resume)
                refused.append(str(refusal.value))

    trained(drawn_normals, tmp_path / "run", options(), report=report)
    assert ["at work there" in each for each in refused] == [True, True]
    trained(drawn_normals, tmp_path / "alone", options())
    assert contents(tmp_path / "run") == contents(tmp_path / "alone")


@pytest.mark.parametrize("occupied", ["file", "folder"])
def test_an_occupied_place_is_left_as_it_is(
    occupied: str, drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    out = tmp_path / "out"
    if occupied == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=str(out)):
        train(drawn_normals, out, options())
    assert (out if occupied == "file" else out / "thesis.txt").read_text() == "mine"


def test_jpegs_are_decoded_at_a_reduced_size_in_training_and_by_the_kit(
    tmp_path: Path, options: Callable, toy: ModuleType, save: Callable
) -> None:
    folder = tmp_path / "jpegs"
    for seed in range(12):
        save(folder / f"{seed:02d}.jpg", np.kron(toy.draw(seed), np.ones((3, 3, 1), np.uint8)))
    height, width = read_image(folder / "00.jpg").shape[:2]
    record = trained(folder, tmp_path / "run", options(steps=0, reduced_jpeg=True))
    assert record.decode.jpeg_keep == 64  # twice the 32 that the network sees
    small = read_image(folder / "00.jpg", record.decode).shape
    assert small[0] < height
    assert 64 <= min(small[:2]) < 128
    whole = trained(folder, tmp_path / "whole", options(steps=0))
    assert whole.decode.jpeg_keep is None
    apart = np.abs(np.load(tmp_path / "run" / BANK) - np.load(tmp_path / "whole" / BANK)).max()
    assert 1e-4 < apart < 0.1  # another image, though much like it
    assert width > small[1]


def test_a_region_and_reduced_jpegs_contradict_each_other(
    drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    with pytest.raises(UsageError, match="--reduced-jpeg and --roi: a region is in pixels of the whole image"):
        train(drawn_normals, tmp_path / "run", options(reduced_jpeg=True, region=Region(x=0, y=0, width=9, height=9)))


def test_unreadable_images_and_copies_are_left_out_and_told(
    drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    folder = shutil.copytree(drawn_normals, tmp_path / "in")
    (folder / "part_03.png").write_bytes((folder / "part_03.png").read_bytes()[:300])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    shutil.copy(folder / "part_05.png", folder / "zz copy.png")
    (folder / "zz metadata.png").write_bytes((folder / "part_05.png").read_bytes() + b"behind the end")
    told: list[tuple[str, str]] = []
    record = trained(
        folder, tmp_path / "run", options(steps=2), unreadable=lambda name, reason: told.append((name, reason))
    )
    roles = {image.path: image.role for image in read_image_table(tmp_path / "run" / IMAGE_TABLE)}
    assert sorted(name for name, _ in told) == ["broken.jpg", "part_03.png"]
    assert {name for name, role in roles.items() if role == "unreadable"} == {"broken.jpg", "part_03.png"}
    assert (roles["zz copy.png"], roles["zz metadata.png"]) == ("copy", "copy")
    used = [
        image for image in read_image_table(tmp_path / "run" / IMAGE_TABLE) if image.role in ("bank", "calibration")
    ]
    assert len(used) == 19
    assert record.data_fingerprint == fingerprint(used)
    assert len(np.load(tmp_path / "run" / BANK)) + len(np.load(tmp_path / "run" / CALIBRATION)) == 19


@pytest.mark.parametrize(("good", "bad"), [(0, 4), (1, 0), (2, 3)])
def test_too_few_readable_images_are_refused(
    good: int, bad: int, drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(good):
        shutil.copy(drawn_normals / f"part_{i:02d}.png", folder)
    for i in range(bad):
        (folder / f"bad_{i}.png").write_bytes(b"bad %d" % i)
    reason = f"^{bad} of {good + bad} images cannot be read, .*the first: bad_0.png: " if bad else "^of 1 images found"
    with pytest.raises(SourceError, match=rf"{reason}.*"):
        train(folder, tmp_path / "run", options())
    with pytest.raises(KitError):
        read_record(tmp_path / "run")


def test_three_images_are_enough(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        shutil.copy(drawn_normals / f"part_{i:02d}.png", folder)
    record = trained(folder, tmp_path / "run", options())
    assert record.fine_tuning.batch == 2
    assert len(np.load(tmp_path / "run" / BANK)) == 2
    assert len(np.load(tmp_path / "run" / CALIBRATION)) == 1


@pytest.mark.parametrize("region", [(0, 0, 65, 48), (60, 0, 5, 5), (900, 900, 5, 5)])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_region_that_leaves_a_image_is_refused_by_name(
    region: tuple, steps: int, drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    x, y, width, height = region
    looking = options(steps=steps, region=Region(x=x, y=y, width=width, height=height))
    with pytest.raises(SourceError, match=rf"part_00\.png: is 64x48 pixels, and --roi {x},{y},{width},{height}"):
        train(drawn_normals, tmp_path / "run", looking)


def test_what_lies_outside_the_region_is_not_looked_at(
    drawn_normals: Path, tmp_path: Path, options: Callable, save: Callable
) -> None:
    folder = tmp_path / "in"
    for path in sorted(drawn_normals.iterdir()):
        image = read_image(path)
        image[:, :10] = image[:, 50:] = image[:4] = image[40:] = 255 - image[0, 0]
        save(folder / path.name, image)
    looking = options(region=Region(x=10, y=4, width=40, height=36))
    for normal, name in ((drawn_normals, "one"), (folder, "two")):
        trained(normal, tmp_path / name, looking)
    names = (BACKBONE, BANK, CALIBRATION, METRICS)
    assert contents(tmp_path / "one", names) == contents(tmp_path / "two", names)


@pytest.mark.parametrize(("steps", "rate"), [(4, 1e30), (1, 1e30)])
def test_an_absurd_learning_rate_is_told_and_leaves_no_run(
    steps: int, rate: float, drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    # With one step the loss is still finite: what the step has done shows only in the embeddings.
    with pytest.raises(UsageError, match="--learning-rate"):
        train(drawn_normals, tmp_path / "run", options(steps=steps, learning_rate=rate))
    with pytest.raises(KitError):
        read_record(tmp_path / "run")


def test_a_network_that_sees_nothing_is_refused(
    drawn_normals: Path, tmp_path: Path, options: Callable, small_weights: Path
) -> None:
    dead = load_file(small_weights)
    dead["layer2.1.bn2.bias"] -= 1e6  # what follows is a ReLU
    save_file(dead, tmp_path / "dead.safetensors")
    with pytest.raises(UsageError, match="no direction"):
        train(drawn_normals, tmp_path / "run", options(steps=0, weights=tmp_path / "dead.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    with pytest.raises(UsageError, match="--accelerator gpu --devices 1: not on this machine"):
        train(drawn_normals, tmp_path / "run", options(accelerator="gpu"))


def test_precision_is_the_one_asked_for_or_one_that_the_machine_has() -> None:
    for asked in ("fp32", "bf16"):
        assert precision_of("cpu", asked) == asked
    assert precision_of("auto", "auto") in ("fp32", "bf16")


def test_bf16_steps_learn_much_the_same(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    for precision in ("fp32", "bf16"):
        trained(drawn_normals, tmp_path / precision, options(precision=precision))
    exact, rounded = (read_metrics(tmp_path / name / METRICS, StepMetrics) for name in ("fp32", "bf16"))
    assert [row.loss for row in rounded] == pytest.approx([row.loss for row in exact], abs=0.05)
    assert all(
        value.dtype == torch.float32
        for key, value in load_file(tmp_path / "bf16" / BACKBONE).items()
        if "num_" not in key
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold text alone")
def test_a_folder_whose_name_is_not_text_is_refused_before_the_work(
    drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(drawn_normals, folder)
    with pytest.raises(SourceError, match="not valid text"):
        train(folder, tmp_path / "run", options())
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold text alone")
def test_a_image_whose_name_is_not_text_is_trained_on(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    folder = shutil.copytree(drawn_normals, tmp_path / "in")
    (folder / "part_00.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    trained(folder, tmp_path / "run", options(steps=1))
    assert os.fsdecode(b"caf\xe9.png") in [image.path for image in read_image_table(tmp_path / "run" / IMAGE_TABLE)]


def test_record_says_how_the_run_came_to_be(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    out = tmp_path / "run"
    trained(drawn_normals, out, options(steps=1, region=Region(x=1, y=2, width=30, height=40), seed=5))
    record = json.loads((out / RECORD).read_text())
    assert record["format_version"] == 1
    assert (record["backbone"], record["stop_at"], record["k"]) == ("resnet18", "layer2", 2)
    assert record["preprocessing"]["region"] == {"x": 1, "y": 2, "width": 30, "height": 40}
    assert (record["fine_tuning"]["seed"], record["fine_tuning"]["steps"]) == (5, 1)
    assert record["weights"]["source"] == "resnet18_to_layer2.safetensors"
    assert Path(record["folder"]) == drawn_normals.resolve()
    assert {"torch", "torchvision", "numpy"} <= record["versions"].keys()
    assert {name: entry["sha256"] for name, entry in record["files"].items()} == contents(
        out, (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE)
    )


def test_frozen_genuine_weights_tell_defective_papers_from_good_ones(
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
    bad = [bank.score(row) for row in network.embed_all((path.name, read_image(path)) for path in defective)]
    good = np.load(tmp_path / "run" / CALIBRATION).tolist()
    assert roc_auc_score([0] * len(good) + [1] * len(bad), good + bad) > 0.8


@pytest.mark.parametrize("wrong", [{"image_size": 10**6}, {"devices": 1000}, {"stop_at": "nonsense"}])
def test_a_wrong_option_leaves_no_folder_behind(
    wrong: dict[str, Any], drawn_normals: Path, tmp_path: Path, options: Callable
) -> None:
    with pytest.raises(UsageError):
        train(drawn_normals, tmp_path / "run", options(steps=0, **wrong))
    assert not (tmp_path / "run").exists()


def test_a_collapsed_network_is_refused(drawn_normals: Path, tmp_path: Path, options: Callable) -> None:
    # So far out of hand that all images become one point, at which every score is 0 and every defect normal.
    with pytest.raises(UsageError, match=r"collapsed the embeddings: .* train again with a lower --learning-rate"):
        train(drawn_normals, tmp_path / "run", options(learning_rate=5.0, steps=3))
    assert not (tmp_path / "run" / RECORD).exists()
