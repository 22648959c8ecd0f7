import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.export import pack
from msc_edge.export.onnx_model import export_onnx
from msc_edge.images import read_image
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.train.dataset import read_image_table
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.run_record import BANK, CALIBRATION, IMAGE_TABLE, RECORD, read_record
from msc_edge.train.training import TrainingOptions, train

# int8 has tests of its own, and takes longer.
export = partial(pack.export, precision="fp32")


def torch_score(network: EmbeddingNetwork, run: Path, image: np.ndarray) -> float:
    with torch.no_grad():
        embedding = network(torch.from_numpy(image)[None])[0].numpy()
    return Bank(np.load(run / BANK)).score(embedding)


def names_with_role(run: Path, role: str) -> list[str]:
    return [image.path for image in read_image_table(run / IMAGE_TABLE) if image.role == role]


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_nothing_left(out: Path) -> None:
    """Neither at the kit's place nor beside it."""
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a kit is to stand, in a folder of its own."""
    (tmp_path / "kits").mkdir()
    return tmp_path / "kits" / "new.kit"


def test_kit_scores_any_image_as_torch_does(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path, toy, network_of: Callable
) -> None:
    detector, network = Detector.load(drawn_kit[0]), network_of(drawn_run)
    noise = np.random.default_rng(0).integers(0, 256, (301, 77, 3), dtype=np.uint8)
    images = [
        toy.draw(100),
        toy.draw(101, "scratch"),
        toy.draw(102, "stain"),
        toy.draw(103, "empty"),
        noise,
        noise[:1, :1],
    ]
    for image in map(np.ascontiguousarray, images):
        assert detector.score(image).score == pytest.approx(torch_score(network, drawn_run, image), abs=1e-5)


def test_kit_tells_what_is_not_a_good_part(drawn_kit: tuple[Path, Manifest], toy) -> None:
    detector = Detector.load(drawn_kit[0])
    good = [detector.score(toy.draw(seed)).score for seed in range(200, 230)]
    empty = [detector.score(toy.draw(seed, "empty")).score for seed in range(200, 230)]
    assert min(empty) > max(good)


def test_manifest_lists_every_file_with_its_size_and_hash(drawn_kit: tuple[Path, Manifest]) -> None:
    kit, manifest = drawn_kit
    own = {"manifest.json", "manifest.sha256"}
    found = {name: digest for name, digest in everything(kit).items() if name not in own}
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == found
    assert all(entry.bytes == (kit / name).stat().st_size for name, entry in manifest.files.items())
    with Kit.open(kit) as opened:
        assert opened.manifest == manifest


def test_manifest_says_what_the_kit_is_and_where_it_came_from(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path
) -> None:
    _, manifest = drawn_kit
    record = read_record(drawn_run)
    assert (manifest.model.backbone, manifest.model.stop_at, manifest.model.dim) == ("resnet18", "layer1", 64)
    assert manifest.preprocessing == record.preprocessing
    assert manifest.decode == record.decode
    assert (manifest.bank.count, manifest.bank.dim, manifest.bank.k) == (32, 64, 2)
    assert manifest.provenance.weights == record.weights
    assert manifest.provenance.data_fingerprint == record.data_fingerprint
    assert manifest.provenance.images == 40
    assert manifest.provenance.recipe["steps"] == 3
    assert (manifest.provenance.recipe["holdout"], manifest.provenance.recipe["group_by"]) == (0.2, None)
    assert manifest.parity is not None
    assert manifest.parity.images >= 32
    assert manifest.parity.max_score_difference <= 1e-4
    assert manifest.parity.max_embedding_difference < 1e-5


def test_bank_and_names_of_the_kit_are_those_of_the_run(drawn_kit: tuple[Path, Manifest], drawn_run: Path) -> None:
    with Kit.open(drawn_kit[0]) as kit:
        np.testing.assert_array_equal(kit.embeddings(), np.load(drawn_run / BANK))
        assert kit.normals() == names_with_role(drawn_run, "bank")


def test_a_image_of_the_bank_is_its_own_nearest_neighbour(drawn_kit: tuple[Path, Manifest], drawn_parts: Path) -> None:
    detector = Detector.load(drawn_kit[0])
    for name in detector.normals[::5]:
        nearest = detector.score_file(drawn_parts / name).nearest_images[0]
        assert nearest.path == name
        assert nearest.distance == pytest.approx(0, abs=1e-6)


def test_limits_follow_from_the_kits_own_scores_of_the_held_out_images(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path, drawn_parts: Path
) -> None:
    kit, manifest = drawn_kit
    detector = Detector.load(kit)
    scores = sorted(detector.score_file(drawn_parts / name).score for name in names_with_role(drawn_run, "calibration"))
    assert manifest.calibration.scores == pytest.approx(scores, abs=1e-6)
    np.testing.assert_allclose(scores, np.sort(np.load(drawn_run / CALIBRATION)), atol=1e-5)
    # Eight of them: the highest is exceeded by one good part in nine, and 5 % or 1 % cannot be promised.
    for limit in (manifest.calibration.limits.warn, manifest.calibration.limits.reject):
        assert limit.score == pytest.approx(scores[-1], abs=1e-6)
        assert limit.expected_rate == pytest.approx(1 / 9)
        assert not limit.meets_target


def test_thumbnails_are_those_of_the_bank_row_by_row(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path, drawn_parts: Path
) -> None:
    names = names_with_role(drawn_run, "bank")
    thumbnails = sorted((drawn_kit[0] / "thumbnails").iterdir())
    assert [path.name for path in thumbnails] == [f"{row:05d}.jpg" for row in range(len(names))]
    for row in (0, 7, 31):
        original, small = read_image(drawn_parts / names[row]).astype(int), read_image(thumbnails[row])
        assert small.shape == original.shape  # 64x48 is below 256 already
        assert np.abs(small - original).mean() < 6


def test_three_images_make_a_kit_that_says_how_little_it_can_promise(
    drawn_parts: Path, train_on: Callable, tmp_path: Path, place: Path
) -> None:
    folder = tmp_path / "three"
    folder.mkdir()
    for i in range(3):
        shutil.copy(drawn_parts / f"part_{i:02d}.png", folder)
    run = train_on(folder)
    manifest = export(run, place)
    assert manifest.bank.count == 2
    assert manifest.bank.search == "exact"
    assert len(manifest.calibration.scores) == 1
    for limit in (manifest.calibration.limits.warn, manifest.calibration.limits.reject):
        assert limit.expected_rate == 0.5  # one held-out image: every second good part may score above it
        assert not limit.meets_target
    assert manifest.parity is not None
    assert manifest.parity.images >= 32
    result = Detector.load(place).score_file(drawn_parts / "part_00.png")
    assert result.p_value in (0.5, 1.0)


def test_paper_preset_with_a_region_is_proven_too(
    drawn_parts: Path, train_on: Callable, place: Path, network_of: Callable
) -> None:
    run = train_on(drawn_parts, preset="paper", region=Region(x=5, y=4, width=51, height=37), steps=1)
    manifest = export(run, place, thumbnails=False)
    assert manifest.preprocessing.region == Region(x=5, y=4, width=51, height=37)
    assert not (place / "thumbnails").exists()
    image = read_image(drawn_parts / "part_09.png")
    detector = Detector.load(place)
    assert detector.score(image).score == pytest.approx(torch_score(network_of(run), run, image), abs=1e-5)
    framed = image.copy()
    framed[:4] = framed[41:] = framed[:, :5] = framed[:, 56:] = 255
    assert detector.score(framed) == detector.score(image)


def test_images_that_moved_are_found_with_normal_and_any_others_are_refused(
    drawn_parts: Path, train_on: Callable, tmp_path: Path, place: Path, change_byte: Callable
) -> None:
    here = shutil.copytree(drawn_parts, tmp_path / "here")
    run = train_on(here, steps=0)
    there = here.rename(tmp_path / "there")

    with pytest.raises(SourceError, match=r"part_00\.png: the run was trained with it.*--normal DIR"):
        export(run, place)
    assert_nothing_left(place)

    changed = shutil.copytree(there, tmp_path / "changed")
    change_byte(changed / "part_17.png", 200)
    with pytest.raises(SourceError, match=r"part_17\.png: has changed since the training"):
        export(run, place, normal=changed)
    assert_nothing_left(place)

    (changed / "part_17.png").unlink()
    with pytest.raises(SourceError, match=r"part_17\.png: the run was trained with it"):
        export(run, place, normal=changed)
    assert_nothing_left(place)

    shutil.copy(there / "part_00.png", there / "one more.png")  # what came later is not looked at
    assert export(run, place, normal=there).provenance.images == 40
    Detector.load(place)


def wrong_model(monkeypatch: pytest.MonkeyPatch, random_weights: Callable) -> None:
    """Let the exporter write the graph of another network, as a defect of it might."""

    def export_another(network: EmbeddingNetwork, path: Path) -> None:
        other = random_weights("resnet18", stop_at="layer1", seed=1)
        export_onnx(EmbeddingNetwork(other, network.preprocess.spec), path)

    monkeypatch.setattr(pack, "export_onnx", export_another)


def test_a_model_that_is_not_the_trained_one_is_stopped_and_the_old_kit_stays(
    drawn_run: Path,
    drawn_kit: tuple[Path, Manifest],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_weights: Callable,
) -> None:
    wrong_model(monkeypatch, random_weights)
    with pytest.raises(KitError, match=r"more than 0\.0001 apart, so no kit was written"):
        export(drawn_run, place)
    assert_nothing_left(place)

    shutil.copytree(drawn_kit[0], place)
    before = everything(place)
    with pytest.raises(KitError, match="no kit was written"):
        export(drawn_run, place, overwrite=True)
    assert everything(place) == before
    assert list(place.parent.iterdir()) == [place]


def rewritten(run: Path, name: str, array: np.ndarray) -> None:
    """Put another array in a run, hash and all, as a mixed-up run would have it."""
    np.save(run / name, array)
    record = json.loads((run / RECORD).read_text())
    content = (run / name).read_bytes()
    record["files"][name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    (run / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize("mixed_up", ["calibration of another run", "bank of another run"])
def test_a_run_whose_parts_do_not_belong_together_is_stopped(
    mixed_up: str, drawn_run: Path, tmp_path: Path, place: Path
) -> None:
    run = shutil.copytree(drawn_run, tmp_path / "run")
    if mixed_up == "calibration of another run":
        rewritten(run, CALIBRATION, 3 * np.load(run / CALIBRATION))
    else:  # rows that no image of the run has
        rewritten(run, BANK, np.ascontiguousarray(np.load(run / BANK)[:, ::-1]))
    with pytest.raises(KitError, match="no kit was written"):
        export(run, place)
    assert_nothing_left(place)


@pytest.mark.parametrize("name", ["backbone.safetensors", "bank.npy", "calibration.npy", "images.csv"])
def test_a_damaged_run_is_refused(
    name: str, drawn_run: Path, tmp_path: Path, place: Path, change_byte: Callable
) -> None:
    run = shutil.copytree(drawn_run, tmp_path / "run")
    change_byte(run / name, (run / name).stat().st_size - 10)
    with pytest.raises(KitError, match=f"{name}: SHA-256 differs"):
        export(run, place)
    assert_nothing_left(place)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, place: Path) -> None:
    for run in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(KitError, match="not a run of msc-edge train"):
            export(run, place)
    assert_nothing_left(place)


@pytest.mark.parametrize(
    ("warn", "reject"), [(0.01, 0.05), (0, 0.5), (1, 0.5), (0.5, 0), (float("nan"), 0.1), (2, 0.1)]
)
def test_rates_that_mean_nothing_are_refused_before_the_work(
    warn: float, reject: float, drawn_run: Path, place: Path
) -> None:
    with pytest.raises(UsageError, match="rate"):
        export(drawn_run, place, warn_rate=warn, reject_rate=reject)
    assert_nothing_left(place)


def test_a_kit_that_stands_there_is_replaced_only_when_told_so(
    drawn_run: Path, drawn_kit: tuple[Path, Manifest], place: Path
) -> None:
    shutil.copytree(drawn_kit[0], place)
    before = everything(place)
    with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
        export(drawn_run, place, warn_rate=0.4)
    assert everything(place) == before

    export(drawn_run, place, warn_rate=0.4, overwrite=True)
    with Kit.open(place) as kit:
        assert kit.manifest.calibration.warn_rate == 0.4
    assert list(place.parent.iterdir()) == [place]
    # The rest is as before: the same run gives the same model, bank and index.
    same = {"model.onnx", "bank.npy", "bank.hnsw", "normals.json"}
    assert {name: digest for name, digest in everything(place).items() if name in same} == {
        name: digest for name, digest in before.items() if name in same
    }


def test_overwrite_does_not_replace_what_is_no_kit(drawn_run: Path, tmp_path: Path, place: Path) -> None:
    run = shutil.copytree(drawn_run, tmp_path / "run")
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (place, run, tmp_path / "file", tmp_path):
        with pytest.raises(UsageError, match="not a kit"):
            export(run, out, overwrite=True)
    assert (place / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert everything(run) == everything(drawn_run)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems hold text alone")
def test_images_with_names_of_any_bytes_make_a_kit(
    drawn_parts: Path, train_on: Callable, tmp_path: Path, place: Path
) -> None:
    folder = tmp_path / "odd"
    names = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", "return\r.png", 'quo"te,.png', "日本.png"]
    folder.mkdir()
    for i, name in enumerate(names):
        shutil.copy(drawn_parts / f"part_{i:02d}.png", folder / name)
    export(train_on(folder, steps=0), place)
    detector = Detector.load(place)
    assert len(detector.normals) == 4
    assert set(detector.normals) < set(names)
    assert detector.score_file(folder / names[0]).nearest_images


def test_genuine_weights_and_real_papers_from_images_to_verdicts(
    real_weights: Path, real_papers: Path, tmp_path: Path, place: Path
) -> None:
    run = tmp_path / "run"
    train(
        real_papers / "good",
        run,
        TrainingOptions(backbone="mobilenet_v2", weights=real_weights, image_size=64, steps=0, accelerator="cpu"),
    )
    # Nine or ten images are held out, and each limit is the score of one of them: a proof that counted its
    # rounding as a change of verdict would stop here.
    manifest = export(run, place)
    assert manifest.parity is not None
    assert manifest.parity.max_score_difference < 1e-5
    detector = Detector.load(place)
    bad = [detector.score_file(path).score for path in sorted((real_papers / "defect").iterdir())[::3]]
    good = manifest.calibration.scores
    assert roc_auc_score([0] * len(good) + [1] * len(bad), good + bad) > 0.8
