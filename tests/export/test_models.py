"""Kits of images that were held out in turn: their calibration, and the gates of their int8 model."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from msc_edge.bank import Bank
from msc_edge.calibration import Calibration, Rates
from msc_edge.export import int8
from msc_edge.export.entry import ScorePlan, outputs_of
from msc_edge.export.held_out_model import HeldOutModel
from msc_edge.export.models import Parts
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.pack import export
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages
from msc_edge.images import read_image
from msc_edge.kit.manifest import Manifest, Precision
from msc_edge.kit.model_entry import ALL_IN_TURN, HELD_OUT_IN_TURN
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.scoring import ScoreKind, Standard, calibration_scores
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.dataset import read_image_table
from msc_edge.train.harmless import changed_copies
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import MAP_SETTINGS, outputs, patch_scores
from msc_edge.train.patches.run_files import read_head, read_standard
from msc_edge.train.run_record import (
    BACKBONE,
    BANK,
    CALIBRATION,
    IMAGE_TABLE,
    PATCH_CALIBRATION,
    PATCHES,
    read_record,
)
from msc_edge.train.split import Split
from msc_edge.train.weights import load_into

IMAGES, GROUPS = 64, 32
EDGE_SMALL = {"backbone": "edge-small", "weights": None, "stop_at": "features.7", "image_size": 64, "patch_rows": 200}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Folders with two images each."""
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(IMAGES):
        save(folder / f"part_{number // 2:02d}" / f"{number % 2}.png", toy.draw(number))
    return folder


@pytest.fixture(scope="module")
def run(train_on: Callable, pairs: Path) -> Path:
    """A frozen run of edge-small with patches."""
    return train_on(pairs, **EDGE_SMALL, scores="both", group_by="folder")


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("kits") / "in-turn"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "passes_gates", lambda _: True)  # few small images; test_int8.py tests the gates
        return out, export(run, out)


def test_all_images_are_in_the_bank_and_in_the_calibration(run: Path, made: tuple[Path, Manifest]) -> None:
    assert read_record(run).in_turn
    model = made[1].models["fp32"]
    assert made[1].normal_images.count == model.banks.images.count == len(model.calibration.scores) == IMAGES
    assert len(set(model.calibration.groups or ())) == GROUPS
    assert model.calibration.reason == ALL_IN_TURN


def test_the_calibration_of_the_kit_is_that_of_training(run: Path, made: tuple[Path, Manifest]) -> None:
    model = made[1].models["fp32"]
    image, patch = np.load(run / CALIBRATION), np.load(run / PATCH_CALIBRATION)
    expected = sorted(calibration_scores("both", image, patch, read_standard(run), model.scoring.map))
    assert model.calibration.scores == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert model.calibration.regions is not None
    assert model.calibration.regions.patch_scores == pytest.approx(sorted(patch), rel=1e-4)


def test_a_patch_bank_knows_the_group_of_each_row(run: Path) -> None:
    groups = read_head(run / PATCHES).bank_groups
    assert groups.shape == (200,)
    assert set(groups.tolist()) <= set(range(IMAGES // 2))
    assert len(set(groups.tolist())) > 20


def test_its_images_are_at_no_distance_and_new_ones_are(
    made: tuple[Path, Manifest], pairs: Path, toy: ModuleType
) -> None:
    detector = Detector.load(made[0], threads=1)
    for path in sorted(pairs.glob("*/*.png"))[::9]:
        result = detector.score_file(path)
        assert result.is_in_bank
        assert result.verdict == "normal"
    assert not detector.score(toy.draw(900)).is_in_bank


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_scores_of_a_model_are_those_against_its_own_bank_without_the_group(
    made: tuple[Path, Manifest], pairs: Path, precision: Precision
) -> None:
    """Image scores of changed copies, from the bank of the kit; `HeldOutModel` is compared with training above."""
    model = made[1].models[precision]
    with Kit.open(made[0]) as kit:
        rows = kit.embeddings(precision)
    embed, groups = Detector.load(made[0], threads=1, precision=precision).embed, np.arange(IMAGES) // 2
    copies = changed_copies(((path.name, read_image(path)) for path in sorted(pairs.glob("*/*.png"))), may_move=True)
    image = np.array(
        [Bank(rows[groups != group]).score(embed(copy)) for (_, copy), group in zip(copies, groups, strict=True)]
    )
    assert model.scoring.image is not None
    assert model.scoring.image.deviation == pytest.approx(max(image.std(ddof=1), 0.01 * image.mean()), rel=1e-3)
    assert np.mean(model.calibration.scores) == pytest.approx(0, abs=0.1), "each is standardised by the others"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_patch_distances_in_turn_are_those_of_a_bank_without_the_group(
    run: Path, pairs: Path, tmp_path: Path, precision: Precision
) -> None:
    """The model with the input `left_out`, and the same model with a bank that lacks these patches."""
    record, head = read_record(run), read_head(run / PATCHES)
    network = EmbeddingNetwork(build_backbone(record.backbone, stop_at=record.stop_at), record.preprocessing).eval()
    load_into(network.backbone, load_file(run / BACKBONE), source=BACKBONE)
    paths = sorted(pairs.glob("*/*.png"))
    left_out = 9
    heads = (head, head.without(torch.tensor([left_out])))
    assert (head.substitute_replaced == left_out).any()
    files, made = [], []
    for number, each in enumerate(heads):
        file = tmp_path / f"{number}.onnx"
        made.append(export_onnx(network, file, head=each))
        if precision == "int8":
            (scratch := tmp_path / f"scratch {number}").mkdir()
            images = [read_image(path) for path in paths[::4]]
            quantizer = Quantizer(file, lambda images=images: iter(images), target="x86-vnni", scratch=scratch)
            file = tmp_path / f"{number}.int8.onnx"
            quantizer.write(file)
        files.append(file)
    image = read_image(paths[2 * left_out])
    in_turn = HeldOutModel(files[0], made[0], head)
    decoded = [(path.name, read_image(path)) for path in paths]
    found = list(in_turn.in_turn(decoded, (np.arange(IMAGES) // 2).tolist()))[2 * left_out]
    (expected,) = outputs_of(files[1], made[1], [("", image)])
    assert found.patch_distances == pytest.approx(expected.patch_distances, rel=1e-3 if precision == "fp32" else 0.05)
    assert found.embedding == pytest.approx(expected.embedding, abs=1e-6)


def test_trial_models_know_no_image_that_was_held_out_once(run: Path) -> None:
    record, table, head = read_record(run), read_image_table(run / IMAGE_TABLE), read_head(run / PATCHES)
    images = RunImages(Path(record.folder), Split.of(table, in_turn=True), record.decode)
    network = EmbeddingNetwork(build_backbone(record.backbone, stop_at=record.stop_at), record.preprocessing)
    bank, plan = Bank(np.load(run / BANK)), ScorePlan.of("both", record.map, head, may_move=True)
    trial = Parts(network, bank, head, plan, images, Rates(0.05, 0.01, 0.01), seed=0).held_out_once()
    held_out = {number for number, image in enumerate(table) if image.role == "calibration"}
    assert len(held_out) == len(trial.images.calibration) == 12
    assert trial.head is not None
    assert not {number // 2 for number in held_out} & set(trial.head.bank_groups.tolist())
    assert trial.plan.patches is not None
    assert trial.plan.patches.count == len(trial.head.bank)
    kept = [number for number in range(IMAGES) if number not in held_out]
    assert np.array_equal(trial.bank.embeddings, bank.embeddings[kept])


def test_a_trained_network_has_all_images_in_its_banks_and_limits_from_those_it_was_not_trained_on(
    train_on: Callable, pairs: Path, tmp_path: Path, network_of: Callable
) -> None:
    run = train_on(pairs, **EDGE_SMALL, scores="both", group_by="folder", steps=2, select="last")
    table, head, network = read_image_table(run / IMAGE_TABLE), read_head(run / PATCHES), network_of(run)
    rows, groups = np.load(run / BANK), np.arange(IMAGES) // 2
    held_out = [number for number, image in enumerate(table) if image.role == "calibration"]
    assert len(rows) == IMAGES
    assert {groups[number] for number in held_out} & set(head.bank_groups.tolist())

    decoded = [(table[number].path, read_image(pairs / table[number].path)) for number in held_out]

    def scored(images: Iterable[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        scores = []
        for number, each in zip(held_out, images, strict=True):
            others = head.without(torch.tensor([groups[number]]))
            found = list(outputs(network, others, [each]))
            own = Bank(rows[groups != groups[number]]).score(found[0][0])
            scores.append((own, patch_scores(found, MAP_SETTINGS)[0]))
        image, patch = np.array(scores).T
        return image, patch

    image, patch = scored(decoded)
    assert np.load(run / CALIBRATION) == pytest.approx(image, abs=1e-6)
    assert np.load(run / PATCH_CALIBRATION) == pytest.approx(patch, rel=1e-4)
    standard = Standard.of_images(*scored(changed_copies(decoded, may_move=True))).from_zero(image, patch)
    stored = read_standard(run)
    assert stored.places.tolist() == list(range(len(held_out)))
    assert stored.image == pytest.approx(standard.image, abs=1e-6)
    assert stored.patch == pytest.approx(standard.patch, rel=1e-4)

    manifest = export(run, tmp_path / "kit", precision="fp32", thumbnails=False)
    model = manifest.models["fp32"]
    assert manifest.normal_images.count == model.banks.images.count == IMAGES
    assert model.calibration.reason == HELD_OUT_IN_TURN
    expected = sorted(calibration_scores("both", image, patch, standard, MAP_SETTINGS))
    assert model.calibration.scores == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["image", "patch"])
def test_another_score_of_the_same_run_has_its_limits_from_all_images(
    run: Path, tmp_path: Path, kind: ScoreKind
) -> None:
    made = export(run, tmp_path / "kit", precision="fp32", scores=kind, thumbnails=False).models["fp32"]
    own = np.load(run / (CALIBRATION if kind == "image" else PATCH_CALIBRATION))
    assert made.calibration.scores == pytest.approx(sorted(own), rel=1e-3, abs=1e-5)


def test_the_gates_of_int8_compare_images_that_are_in_no_bank(made: tuple[Path, Manifest]) -> None:
    model = made[1].models["int8"]
    assert model.agreement is not None
    assert model.agreement.normal_images == 12  # a fifth of the images, in pairs, held out once
    assert model.banks.images.count == len(model.calibration.scores) == IMAGES
    assert model.agreement.auroc < 1  # an image of the bank would be below every anomaly
    detector = Detector.load(made[0], threads=1, precision="int8")
    assert detector.calibration.scores.tolist() == model.calibration.scores


def test_new_parts_are_above_the_limit_about_as_often_as_stated(
    train_on: Callable, drawn_parts: Path, tmp_path: Path, toy: ModuleType
) -> None:
    manifest = export(train_on(drawn_parts, group_by=None), tmp_path / "kit", precision="fp32", thumbnails=False)
    model = manifest.models["fp32"]
    limit = Calibration(model.calibration.scores).limit(0.1)
    detector = Detector.load(tmp_path / "kit", threads=1)
    found = sum(detector.score(toy.draw(seed)).score > limit.score for seed in range(1000, 1200))
    assert limit.expected_rate == pytest.approx(4 / 41)
    # The rate of such a limit is Beta(4, 37), and the count binomial: outside of 1 to 53 once in a thousand times.
    assert 1 <= found <= 53
