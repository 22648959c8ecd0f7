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
from msc_edge.export import models, pack
from msc_edge.export.int8 import Int8Rejected
from msc_edge.export.onnx_model import export_onnx
from msc_edge.images import read_image
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.quantization import Agreement, Quantization
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.train.dataset import read_image_table
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import TrainingOptions
from msc_edge.train.run_folder import RECORD
from msc_edge.train.run_record import BANK, CALIBRATION, IMAGE_TABLE, read_record
from msc_edge.train.training import train

# int8 has its own tests, and takes longer.
export = partial(pack.export, precision="fp32")


def torch_score(network: EmbeddingNetwork, run: Path, image: np.ndarray) -> float:
    with torch.no_grad():
        embedding = network(torch.from_numpy(image)[None])[0].numpy()
    return Bank(np.load(run / BANK)).score(embedding)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_nothing_left(out: Path) -> None:
    """Neither the kit nor anything beside it."""
    assert not out.exists()
    assert list(out.parent.iterdir()) == []


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


def test_kit_separates_anomalous_from_normal_images(drawn_kit: tuple[Path, Manifest], toy) -> None:
    detector = Detector.load(drawn_kit[0])
    normal = [detector.score(toy.draw(seed)).score for seed in range(200, 230)]
    empty = [detector.score(toy.draw(seed, "empty")).score for seed in range(200, 230)]
    assert min(empty) > max(normal)


def test_manifest_lists_every_file_with_its_size_and_hash(drawn_kit: tuple[Path, Manifest]) -> None:
    kit, manifest = drawn_kit
    found = {name: digest for name, digest in hashes(kit).items() if name not in ("manifest.json", "manifest.sha256")}
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == found
    assert all(entry.bytes == (kit / name).stat().st_size for name, entry in manifest.files.items())
    with Kit.open(kit) as opened:
        assert opened.manifest == manifest


def test_manifest_describes_the_kit_and_its_provenance(drawn_kit: tuple[Path, Manifest], drawn_run: Path) -> None:
    _, manifest = drawn_kit
    record = read_record(drawn_run)
    assert (manifest.network.backbone, manifest.network.stop_at) == ("resnet18", "layer1")
    assert manifest.preprocessing == record.preprocessing
    assert manifest.decode == record.decode
    assert (manifest.normal_images.count, manifest.default_model) == (40, "fp32")
    (fp32,) = manifest.models.values()
    assert (fp32.dim, fp32.banks.images.count, fp32.banks.images.k) == (64, 40, 2)
    assert (fp32.quantization, fp32.agreement) == (None, None)
    assert manifest.provenance.weights == record.weights
    assert manifest.provenance.data_fingerprint == record.data_fingerprint
    assert manifest.provenance.images == 40
    assert manifest.provenance.recipe["steps"] == 3
    assert (manifest.provenance.recipe["holdout"], manifest.provenance.recipe["group_by"]) == (0.2, "similar")
    assert fp32.parity is not None
    assert fp32.parity.images >= 32
    assert fp32.parity.max_score_difference <= 1e-4
    assert fp32.parity.max_embedding_difference < 1e-5


def test_bank_and_names_of_the_kit_are_those_of_the_run(drawn_kit: tuple[Path, Manifest], drawn_run: Path) -> None:
    with Kit.open(drawn_kit[0]) as kit:
        np.testing.assert_array_equal(kit.embeddings("fp32"), np.load(drawn_run / BANK))
        assert kit.normal_images() == [image.path for image in read_image_table(drawn_run / IMAGE_TABLE)]


def test_an_image_of_the_bank_is_its_own_nearest_image(drawn_kit: tuple[Path, Manifest], drawn_parts: Path) -> None:
    detector = Detector.load(drawn_kit[0])
    for name in detector.normal_images[::5]:
        nearest = detector.score_file(drawn_parts / name).nearest_images[0]
        assert nearest.path == name
        assert nearest.distance == pytest.approx(0, abs=1e-6)


def test_limits_follow_from_the_kits_own_scores_of_the_held_out_images(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path, drawn_parts: Path
) -> None:
    """Each is scored against the bank without its own row."""
    kit, manifest = drawn_kit
    detector, bank = Detector.load(kit), np.load(drawn_run / BANK)
    roles = [image.role for image in read_image_table(drawn_run / IMAGE_TABLE)]
    held_out = [row for row, role in enumerate(roles) if role == "calibration"]
    embeddings = [detector.embed(read_image(drawn_parts / detector.normal_images[row])) for row in held_out]
    others = [Bank(np.delete(bank, row, axis=0)) for row in held_out]
    scores = sorted(each.score(embedding) for each, embedding in zip(others, embeddings, strict=True))
    calibration = manifest.models["fp32"].calibration
    assert calibration.scores == pytest.approx(scores, abs=1e-6)
    np.testing.assert_allclose(scores, np.sort(np.load(drawn_run / CALIBRATION)), atol=1e-5)
    # Eight images: one normal image in nine scores higher than all of them, so 5 % and 1 % are out of reach.
    for limit in (calibration.limits.warn, calibration.limits.reject):
        assert limit.score == pytest.approx(scores[-1], abs=1e-6)
        assert limit.expected_rate == pytest.approx(1 / 9)
        assert not limit.meets_target


def test_thumbnails_are_those_of_the_bank_row_by_row(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path, drawn_parts: Path
) -> None:
    names = [image.path for image in read_image_table(drawn_run / IMAGE_TABLE)]
    thumbnails = sorted((drawn_kit[0] / "thumbnails").iterdir())
    assert [path.name for path in thumbnails] == [f"{row:05d}.jpg" for row in range(len(names))]
    for row in (0, 7, 31):
        original, small = read_image(drawn_parts / names[row]).astype(int), read_image(thumbnails[row])
        assert small.shape == original.shape  # 64x48 is below 256 already
        assert np.abs(small - original).mean() < 6


def test_three_images_that_were_moved_make_a_kit_whose_limits_miss_their_targets(
    drawn_parts: Path, train_on: Callable, tmp_path: Path, place: Path
) -> None:
    folder = tmp_path / "three"
    folder.mkdir()
    for i in range(3):
        shutil.copy(drawn_parts / f"part_{i:02d}.png", folder)
    run = train_on(folder)
    fp32 = export(run, place, normal=folder.rename(tmp_path / "moved")).models["fp32"]
    assert (fp32.banks.images.count, fp32.banks.images.search) == (3, "exact")
    assert len(fp32.calibration.scores) == 3
    for limit in (fp32.calibration.limits.warn, fp32.calibration.limits.reject):
        assert limit.expected_rate == 0.25  # three images: every fourth normal image may score above all of them
        assert not limit.meets_target
    assert fp32.parity is not None
    assert fp32.parity.images >= 32
    result = Detector.load(place).score_file(drawn_parts / "part_00.png")
    assert result.is_in_bank
    assert result.p_value == 1


def test_a_run_of_the_paper_preset_with_a_region_scores_as_torch_does(
    drawn_parts: Path, train_on: Callable, place: Path, network_of: Callable
) -> None:
    run = train_on(drawn_parts, preset="paper", region=Region(x=5, y=4, width=51, height=37))
    manifest = export(run, place, thumbnails=False)
    assert manifest.preprocessing.region == Region(x=5, y=4, width=51, height=37)
    assert not (place / "thumbnails").exists()
    image = read_image(drawn_parts / "part_09.png")
    detector = Detector.load(place)
    assert detector.score(image).score == pytest.approx(torch_score(network_of(run), run, image), abs=1e-5)
    framed = image.copy()
    framed[:4] = framed[41:] = framed[:, :5] = framed[:, 56:] = 255
    assert detector.score(framed) == detector.score(image)


def test_images_that_are_not_those_of_the_training_are_refused(
    drawn_run: Path, drawn_parts: Path, tmp_path: Path, place: Path, change_byte: Callable
) -> None:
    changed = shutil.copytree(drawn_parts, tmp_path / "changed")
    change_byte(changed / "part_17.png", 200)
    with pytest.raises(SourceError, match=r"part_17\.png: changed since the training"):
        export(drawn_run, place, normal=changed)
    assert_nothing_left(place)


def test_a_model_that_is_not_the_trained_one_is_refused_and_an_existing_kit_stays(
    drawn_run: Path,
    untuned_run: Path,
    drawn_kit: tuple[Path, Manifest],
    place: Path,
    network_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A defect of the exporter: it writes another network.
    monkeypatch.setattr(
        models, "export_onnx", lambda _, path, head: export_onnx(network_of(untuned_run), path, head=head)
    )
    shutil.copytree(drawn_kit[0], place)
    before = hashes(place)
    with pytest.raises(KitError, match=r"no kit was written: .*more than 0\.0001 apart"):
        export(drawn_run, place, overwrite=True)
    assert hashes(place) == before
    assert list(place.parent.iterdir()) == [place]


def rewritten(run: Path, name: str, array: np.ndarray) -> None:
    """Put an array of another run into a run, with its hash."""
    np.save(run / name, array)
    record = json.loads((run / RECORD).read_text())
    content = (run / name).read_bytes()
    record["files"][name] = {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    (run / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize(("name", "scale"), [(CALIBRATION, 3), (BANK, -1)])
def test_a_run_with_files_of_different_runs_is_refused(
    name: str, scale: int, drawn_run: Path, tmp_path: Path, place: Path
) -> None:
    run = shutil.copytree(drawn_run, tmp_path / "run")
    rewritten(run, name, scale * np.load(run / name))
    with pytest.raises(
        KitError, match=r"no kit was written: the warn limit .*files of the run are from different runs"
    ):
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


@pytest.mark.parametrize(("warn", "reject"), [(0.01, 0.05), (1, 0.5), (0.5, 0), (float("nan"), 0.1)])
def test_invalid_rates_are_refused_before_the_work(warn: float, reject: float, drawn_run: Path, place: Path) -> None:
    with pytest.raises(UsageError, match="rate"):
        export(drawn_run, place, warn_rate=warn, reject_rate=reject)
    assert_nothing_left(place)


def test_an_existing_kit_is_replaced_only_with_overwrite(
    drawn_run: Path, drawn_kit: tuple[Path, Manifest], place: Path
) -> None:
    shutil.copytree(drawn_kit[0], place)
    before = hashes(place)
    with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
        export(drawn_run, place, warn_rate=0.4)
    assert hashes(place) == before

    export(drawn_run, place, warn_rate=0.4, overwrite=True)
    with Kit.open(place) as kit:
        assert kit.manifest.models["fp32"].calibration.warn_rate == 0.4
    assert list(place.parent.iterdir()) == [place]
    # The same run gives the same model, bank and index.
    after = hashes(place)
    for name in ("model.onnx", "bank.npy", "bank.hnsw", "normal_images.json"):
        assert after[name] == before[name]


def test_overwrite_replaces_only_kits(drawn_run: Path, tmp_path: Path, place: Path) -> None:
    run = shutil.copytree(drawn_run, tmp_path / "run")
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (place, run, tmp_path / "file", tmp_path):
        with pytest.raises(UsageError, match="not a kit; --overwrite replaces only kits"):
            export(run, out, overwrite=True)
    assert (place / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert hashes(run) == hashes(drawn_run)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows any bytes in a file name")
def test_images_with_names_of_any_bytes_make_a_kit(
    drawn_parts: Path, train_on: Callable, tmp_path: Path, place: Path
) -> None:
    folder = tmp_path / "odd"
    names = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", "return\r.png", 'quo"te,.png', "日本.png"]
    folder.mkdir()
    for i, name in enumerate(names):
        shutil.copy(drawn_parts / f"part_{i:02d}.png", folder / name)
    export(train_on(folder), place)
    detector = Detector.load(place)
    assert set(detector.normal_images) == set(names)
    assert detector.score_file(folder / names[0]).nearest_images


class TestTheNameOfTheKit:
    @pytest.mark.parametrize("name", ["", "Flaschen ü", "-x", ".x", "a/b", "x" * 64, "new line\n"])
    def test_a_name_that_a_manifest_cannot_hold_is_refused_before_the_work(
        self, name: str, tmp_path: Path, place: Path
    ) -> None:
        with pytest.raises(UsageError, match=r"--name .*: a kit name has up to 63 .*pass for example --name [\w.-]+$"):
            export(tmp_path / "no run", place, name=name)
        assert_nothing_left(place)

    def test_by_default_it_is_the_name_of_the_folder_without_kit(self, drawn_kit: tuple[Path, Manifest]) -> None:
        assert drawn_kit[1].name == "drawn"


class TestInt8:
    @pytest.fixture
    def _rejected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agreement = Agreement(normal_images=8, synthetic_anomalies=96, auroc_fp32=0.9, auroc=0.8, rank_correlation=0.9)
        monkeypatch.setattr(models, "quantised_model", lambda *_, **__: Int8Rejected(agreement, 2, 5, held_out=8))

    @pytest.mark.usefixtures("_rejected")
    def test_a_rejected_model_leaves_fp32_alone_and_the_reason_is_reported(self, drawn_run: Path, place: Path) -> None:
        notes: list[str] = []
        manifest = pack.export(drawn_run, place, note=notes.append)
        assert (manifest.precisions, manifest.default_model) == (("fp32",), "fp32")
        assert not [name for name in manifest.files if "int8" in name]
        assert len(notes) == 1
        assert notes[0].startswith("no int8 model: with 2 of 5 layers in float")

    @pytest.mark.usefixtures("_rejected")
    def test_a_required_model_that_is_rejected_is_an_error(self, drawn_run: Path, place: Path) -> None:
        with pytest.raises(UsageError, match=r"no int8 model: .*; export with --precision fp32"):
            pack.export(drawn_run, place, precision="int8")
        assert_nothing_left(place)

    def test_a_required_model_is_the_default_model(
        self, drawn_run: Path, both_kit: tuple[Path, Manifest], place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        int8 = both_kit[1].models["int8"]

        def quantised(_: Path, path: Path, *__, **___) -> tuple[Quantization | None, Agreement | None]:
            shutil.copyfile(both_kit[0] / int8.file, path)
            return int8.quantization, int8.agreement

        monkeypatch.setattr(models, "quantised_model", quantised)  # which takes seconds
        manifest = pack.export(drawn_run, place, precision="int8", name="Line-3_v1.2")
        assert manifest.default_model == "int8"
        assert manifest.models["int8"].banks == int8.banks
        detector = Detector.load(place, threads=1)
        assert (detector.model, detector.kit.name) == ("int8", "Line-3_v1.2")


@pytest.mark.slow
def test_genuine_weights_and_real_papers_from_images_to_verdicts(
    real_weights: Path, real_papers: Path, tmp_path: Path, place: Path
) -> None:
    run = tmp_path / "run"
    train(
        real_papers / "good",
        run,
        TrainingOptions(backbone="mobilenet_v2", weights=real_weights, image_size=64, steps=0, accelerator="cpu"),
    )
    # Nine or ten images are held out, and each limit is the score of one of them: a parity check that counted its
    # rounding as a changed verdict would fail here.
    fp32 = export(run, place).models["fp32"]
    assert fp32.parity is not None
    assert fp32.parity.max_score_difference < 1e-3  # of a standard deviation
    assert fp32.parity.max_embedding_difference < 1e-5
    detector = Detector.load(place)
    normal = fp32.calibration.scores
    anomalous = [detector.score_file(path).score for path in sorted((real_papers / "defect").iterdir())[::3]]
    assert roc_auc_score([0] * len(normal) + [1] * len(anomalous), normal + anomalous) > 0.8


def test_a_rate_of_zero_is_refused_and_not_replaced_by_the_default(patch_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--region-rate 0: expected a number between 0 and 1"):
        export(patch_run, tmp_path / "kit", region_rate=0)
    assert not (tmp_path / "kit").exists()


def test_a_rate_of_regions_without_a_map_is_refused(patch_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--region-rate: the kit compares whole images only"):
        export(patch_run, tmp_path / "kit", scores="image", region_rate=0.1, precision="fp32")
    assert not (tmp_path / "kit").exists()
