"""What a training writes: weights, bank, calibration and record, and what they depend on."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.images import read_image
from msc_edge.preprocessing import Region
from msc_edge.train import training as training_module
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.dataset import fingerprint, read_image_table
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import TrainingOptions
from msc_edge.train.run_folder import CURVES, METRICS, RECORD, VIEWS
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, read_record
from msc_edge.train.training import train
from msc_edge.train.weights import load_into

RESULTS = (BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, METRICS, CURVES, VIEWS)
NOT_TEXT = pytest.mark.skipif(sys.platform != "linux", reason="other file systems accept valid text only")


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
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
) -> None:
    trained(normal_images, tmp_path / "same", options())
    trained(normal_images, tmp_path / "other", options(seed=8))
    assert contents(tmp_path / "same") == contents(finished_run)
    assert contents(tmp_path / "other")[BACKBONE] != contents(finished_run)[BACKBONE]
    assert contents(tmp_path / "other")[IMAGE_TABLE] == contents(finished_run)[IMAGE_TABLE]


def test_curves_and_views_do_not_change_the_training(
    normal_images: Path,
    finished_run: Path,
    tmp_path: Path,
    options: Callable,
    monkeypatch: pytest.MonkeyPatch,
    trained: Callable,
    contents: Callable,
) -> None:
    for name in ("write_curves", "write_view_sheet"):
        monkeypatch.setattr(training_module, name, lambda *_, **__: None)
    trained(normal_images, tmp_path / "run", options())
    learned = (BACKBONE, BANK, CALIBRATION, METRICS)
    assert contents(tmp_path / "run", learned) == contents(finished_run, learned)
    assert not (tmp_path / "run" / VIEWS).exists()


def test_the_views_can_be_seen_while_the_training_runs(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
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
    normal_images: Path,
    finished_run: Path,
    tmp_path: Path,
    options: Callable,
    toy,
    save: Callable,
    trained: Callable,
    contents: Callable,
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


def test_reduced_jpeg_decodes_at_a_reduced_size_in_training_and_in_the_kit(
    tmp_path: Path, options: Callable, toy: ModuleType, save: Callable, trained: Callable
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


@pytest.mark.skipif(os.name != "posix", reason="no named pipes here")
def test_unreadable_images_and_duplicates_are_skipped_and_reported(
    normal_images: Path, tmp_path: Path, options: Callable, trained: Callable
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


def test_three_images_are_enough(normal_images: Path, tmp_path: Path, options: Callable, trained: Callable) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        shutil.copy(normal_images / f"part_{i:02d}.png", folder)
    record = trained(folder, tmp_path / "run", options(steps=2))
    assert record.fine_tuning.batch == 2
    assert len(np.load(tmp_path / "run" / BANK)) == 3
    assert len(np.load(tmp_path / "run" / CALIBRATION)) == 1


def test_pixels_outside_the_region_have_no_influence(
    normal_images: Path, tmp_path: Path, options: Callable, save: Callable, trained: Callable, contents: Callable
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


def test_bf16_steps_learn_nearly_the_same(
    normal_images: Path, finished_run: Path, tmp_path: Path, options: Callable, trained: Callable
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
def test_an_image_whose_name_is_not_text_is_used(
    normal_images: Path, tmp_path: Path, options: Callable, trained: Callable
) -> None:
    folder = shutil.copytree(normal_images, tmp_path / "in")
    (folder / "part_00.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    trained(folder, tmp_path / "run", options(steps=0))
    assert os.fsdecode(b"caf\xe9.png") in [image.path for image in read_image_table(tmp_path / "run" / IMAGE_TABLE)]


def test_the_record_describes_the_run(
    normal_images: Path, tmp_path: Path, options: Callable, trained: Callable, contents: Callable
) -> None:
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
    real_weights: Path, real_papers: Path, tmp_path: Path, trained: Callable
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
