from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.bank import Bank
from msc_edge.export import agreement, int8
from msc_edge.export.agreement import passes_gates
from msc_edge.export.int8 import Int8Rejected, quantised_model
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.opening import Kit
from msc_edge.kit.quantization import Agreement, MapAgreement
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime import Detector
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_record import IMAGE_TABLE


class TestTheKit:
    def test_has_both_models_and_fp32_scores_because_few_images_are_held_out(
        self, both_kit: tuple[Path, Manifest]
    ) -> None:
        manifest = both_kit[1]
        assert manifest.precisions == ("fp32", "int8")
        assert manifest.default_model == "fp32"
        assert {"model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"} <= set(manifest.files)

    def test_bank_and_limits_of_int8_come_from_int8_embeddings(
        self, both_kit: tuple[Path, Manifest], drawn_run: Path, drawn_parts: Path
    ) -> None:
        out, manifest = both_kit
        detector = Detector.load(out, threads=1, precision="int8")
        with Kit.open(out) as opened:
            names = opened.normal_images()
            assert not np.array_equal(opened.embeddings("int8"), opened.embeddings("fp32"))
        for row in (0, len(names) - 1):
            found = detector.score_file(drawn_parts / names[row]).nearest_images[0]
            assert (found.row, found.distance) == (row, pytest.approx(0, abs=1e-6))
            rows = opened.embeddings("int8")
        held_out = [row for row, image in enumerate(read_image_table(drawn_run / IMAGE_TABLE)) if image.role != "bank"]
        scores = sorted(Bank(np.delete(rows, row, axis=0)).score(rows[row]) for row in held_out)
        assert len(scores) == 8
        assert manifest.models["int8"].calibration.scores == pytest.approx(scores, abs=1e-6)
        assert detector.limits == manifest.models["int8"].calibration.limits

    def test_int8_finds_the_anomalies_that_fp32_finds(self, both_kit: tuple[Path, Manifest], toy: ModuleType) -> None:
        detector = Detector.load(both_kit[0], threads=1, precision="int8")
        normal = [detector.score(toy.draw(seed)).score for seed in range(200, 220)]
        empty = [detector.score(toy.draw(seed, "empty")).score for seed in range(200, 220)]
        assert min(empty) > max(normal)

    def test_its_agreement_passes_the_gates(self, both_kit: tuple[Path, Manifest]) -> None:
        agreement = both_kit[1].models["int8"].agreement
        assert agreement is not None
        # Eight held-out images: four anomalies of each of the three types make at least 96.
        assert (agreement.normal_images, agreement.synthetic_anomalies) == (8, 96)
        assert passes_gates(agreement)

    def test_fp32_is_the_same_as_in_a_kit_without_int8(
        self, both_kit: tuple[Path, Manifest], drawn_kit: tuple[Path, Manifest]
    ) -> None:
        both, alone = both_kit[1], drawn_kit[1]
        for part in ("opset", "outputs", "banks", "parity"):
            assert getattr(both.models["fp32"], part) == getattr(alone.models["fp32"], part)
        assert both.models["fp32"].calibration.scores == alone.models["fp32"].calibration.scores
        assert {name: both.files[name] for name in alone.files} == alone.files

    def test_int8_embeddings_are_nearer_to_the_int8_bank_than_to_the_fp32_bank(
        self, both_kit: tuple[Path, Manifest], toy: ModuleType
    ) -> None:
        """Normal images would look anomalous against the fp32 bank: this is why int8 has its own."""
        with Kit.open(both_kit[0]) as opened:
            int8_bank, fp32_bank = Bank(opened.embeddings("int8")), Bank(opened.embeddings("fp32"))
        embed = Detector.load(both_kit[0], threads=1, precision="int8").embed
        embeddings = [embed(toy.draw(seed)) for seed in range(300, 320)]
        own, other = (np.median([bank.score(each) for each in embeddings]) for bank in (int8_bank, fp32_bank))
        assert own < other


def test_a_rejection_gives_the_gates_that_failed_and_no_others() -> None:
    measured = Agreement(normal_images=8, synthetic_anomalies=24, auroc_fp32=0.9, auroc=0.85, rank_correlation=0.995)
    assert str(Int8Rejected(measured, float_layers=2, layers=5, held_out=64)) == (
        "no int8 model: with 2 of 5 layers in float it loses 0.050 of the AUROC on synthetic anomalies (at most 0.005 "
        "allowed)"
    )
    maps = MapAgreement(rank_correlation=0.811, au_pro_fp32=0.733, au_pro=0.722)
    measured = measured.model_copy(update={"auroc": 0.9, "rank_correlation": 0.95, "maps": maps})
    assert str(Int8Rejected(measured, float_layers=2, layers=5, held_out=64)) == (
        "no int8 model: with 2 of 5 layers in float its scores correlate 0.950 with those of fp32 (0.99 required), and "
        "its maps correlate 0.811 with those of fp32 (0.95 required), and its maps lose 0.011 of AU-PRO (at most 0.01 "
        "allowed)"
    )
    assert "needs 64 held-out images to show which ones matter, not 8" in str(
        Int8Rejected(measured, float_layers=2, layers=5, held_out=8)
    )


class TestTheSearch:
    def test_without_a_passing_attempt_there_is_no_model_and_half_of_the_layers_were_tried(
        self,
        drawn_kit: tuple[Path, Manifest],
        outputs: Outputs,
        bank: Bank,
        spec: Preprocessing,
        images: RunImages,
        decodings: Counter[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(agreement, "MIN_RANK_CORRELATION", 1.1)
        monkeypatch.setattr(int8, "MIN_HELD_OUT", 8)
        model = drawn_kit[0] / MODEL_FILES["fp32"]
        rejected = quantised_model(model, tmp_path / "int8.onnx", outputs, bank, spec, images, target="x86-vnni")
        assert isinstance(rejected, Int8Rejected)
        assert (rejected.float_layers, rejected.layers) == (2, 5)
        assert list(tmp_path.iterdir()) == []
        # By fp32, in three attempts (0, 1 and 2 float layers), and once for the ranking of all five layers.
        assert {decodings[name] for name in images.held_out} == {1 + 3 + 1}
        # For rounding and activation ranges, and in three attempts. A ResNet has no linear tensors.
        assert {decodings[name] for name in images.in_bank} == {2 + 3}

    def test_with_few_held_out_images_the_layers_are_not_ranked_and_the_reason_says_what_helps(
        self,
        drawn_kit: tuple[Path, Manifest],
        outputs: Outputs,
        bank: Bank,
        spec: Preprocessing,
        images: RunImages,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(agreement, "MIN_RANK_CORRELATION", 1.1)
        monkeypatch.setattr(int8, "_by_harm", lambda *_: pytest.fail("this takes minutes"))
        model = drawn_kit[0] / MODEL_FILES["fp32"]
        rejected = quantised_model(model, tmp_path / "int8.onnx", outputs, bank, spec, images, target="x86-vnni")
        assert isinstance(rejected, Int8Rejected)
        assert rejected.float_layers == 0  # a ResNet has no stem in float
        assert "needs 64 held-out images to show which ones matter, not 8" in str(rejected)
        assert "train with more images or a higher --holdout" in str(rejected)

    def test_the_stem_is_tried_before_other_layers_are_ranked(self) -> None:
        class MobileNet:
            layers = dict.fromkeys("abcdefgh")
            stem: Sequence[str] = ["a", "b", "c"]

        rankings = []
        attempts = int8._attempts(MobileNet(), lambda: rankings.append(1) or list("hgfed"))  # pyright: ignore[reportArgumentType]
        assert [next(attempts), next(attempts), rankings] == [[], ["a", "b", "c"], []]
        assert list(attempts) == [["a", "b", "c", "h"]]  # four of eight: no more than half
        assert rankings == [1]
        assert list(int8._attempts(MobileNet(), None)) == [[], ["a", "b", "c"]]  # pyright: ignore[reportArgumentType]


def test_the_layer_that_int8_harms_most_comes_first(
    drawn_kit: tuple[Path, Manifest], toy: ModuleType, tmp_path: Path
) -> None:
    """The error is least when the most harmful layer is the one in float."""

    class Test:
        def open(self, model: Path) -> Path:
            return model

        def error(self, _: Path) -> float:
            return errors[written[-1]]

    written: list[str] = []
    quantizer = Quantizer(
        drawn_kit[0] / MODEL_FILES["fp32"], lambda: iter([toy.draw(0)]), target="x86", scratch=tmp_path
    )
    layers = list(quantizer.layers)
    errors = dict(zip(layers, [0.3, 0.5, 0.1, 0.4, 0.2], strict=True))
    quantizer.write = lambda path, float_layers=(): written.append(float_layers[-1])  # noqa: ARG005
    ranked = int8._by_harm(quantizer, Test(), tmp_path, lambda *_: None)  # pyright: ignore[reportArgumentType]
    assert ranked == [layers[place] for place in (2, 4, 0, 3, 1)]
