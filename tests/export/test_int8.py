from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.bank import Bank
from msc_edge.export import int8, run_images
from msc_edge.export.int8 import AgreementTest, Int8Rejected, passes_gates, quantised_model
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Agreement, Outputs
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Preprocessing, Region
from msc_edge.runtime import Detector
from msc_edge.train import loading, synthetic
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_record import BANK, IMAGE_TABLE, read_record


@pytest.fixture
def images(drawn_run: Path) -> RunImages:
    return RunImages.find(read_record(drawn_run), read_image_table(drawn_run / IMAGE_TABLE))


@pytest.fixture(scope="module")
def bank(drawn_run: Path) -> Bank:
    return Bank(np.load(drawn_run / BANK))


@pytest.fixture(scope="module")
def outputs(drawn_kit: tuple[Path, Manifest]) -> Outputs:
    return drawn_kit[1].models["fp32"].outputs


@pytest.fixture(scope="module")
def spec(drawn_run: Path) -> Preprocessing:
    return read_record(drawn_run).preprocessing


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was decoded, by name."""
    counts: Counter[str] = Counter()
    decoded = loading.decoded

    def counted(folder: Path, names: Sequence[str], *rest, **options) -> Iterator[tuple[str, np.ndarray]]:
        for name, image in decoded(folder, names, *rest, **options):
            counts[name] += 1
            yield name, image

    monkeypatch.setattr(run_images, "decoded", counted)
    return counts


class TestTheKit:
    def test_has_both_models_and_the_faster_one_scores_by_default(self, both_kit: tuple[Path, Manifest]) -> None:
        manifest = both_kit[1]
        assert manifest.precisions == ("fp32", "int8")
        assert manifest.default_model == "auto"
        assert {"model.int8.onnx", "bank.int8.npy", "bank.int8.hnsw"} <= set(manifest.files)

    def test_bank_and_limits_of_int8_come_from_int8_embeddings(
        self, both_kit: tuple[Path, Manifest], drawn_parts: Path
    ) -> None:
        out, manifest = both_kit
        detector = Detector.load(out, threads=1, precision="int8")
        with Kit.open(out) as opened:
            names = opened.normal_images()
            assert not np.array_equal(opened.embeddings("int8"), opened.embeddings("fp32"))
        for row in (0, len(names) - 1):
            found = detector.score_file(drawn_parts / names[row]).nearest_images[0]
            assert (found.row, found.distance) == (row, pytest.approx(0, abs=1e-6))
        held_out = sorted({path.name for path in drawn_parts.iterdir()} - set(names))
        scores = sorted(detector.score_file(drawn_parts / name).score for name in held_out)
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


class TestTheGates:
    @pytest.mark.parametrize(
        ("auroc", "rank_correlation", "passes"),
        [(0.9, 0.99, True), (0.895, 1.0, True), (0.8949, 1.0, False), (0.9, 0.9899, False), (0.95, 0.99, True)],
    )
    def test_rank_correlation_and_auroc_must_both_be_high_enough(
        self, auroc: float, rank_correlation: float, passes: bool
    ) -> None:
        agreement = Agreement(
            normal_images=8, synthetic_anomalies=24, auroc_fp32=0.9, auroc=auroc, rank_correlation=rank_correlation
        )
        assert passes_gates(agreement) is passes

    def test_a_rejection_gives_the_measured_and_the_required_figures(self) -> None:
        agreement = Agreement(
            normal_images=8, synthetic_anomalies=24, auroc_fp32=0.9, auroc=0.85, rank_correlation=0.95
        )
        text = str(Int8Rejected(agreement, float_layers=2, layers=5))
        for part in ("no int8 model", "2 of 5", "0.950", "0.99", "0.850", "0.900", "0.005"):
            assert part in text


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
        monkeypatch.setattr(int8, "MIN_RANK_CORRELATION", 1.1)
        model = drawn_kit[0] / MODEL_FILES["fp32"]
        rejected = quantised_model(model, tmp_path / "int8.onnx", outputs, bank, spec, images, target="x86-vnni")
        assert isinstance(rejected, Int8Rejected)
        assert (rejected.float_layers, rejected.layers) == (2, 5)
        assert list(tmp_path.iterdir()) == []
        # By fp32, in three attempts (0, 1 and 2 float layers), and once for the ranking of all five layers.
        assert {decodings[name] for name in images.held_out} == {1 + 3 + 1}
        # For the activation ranges and in three attempts.
        assert {decodings[name] for name in images.in_bank} == {1 + 3}

    def test_the_stem_is_tried_before_other_layers_are_ranked(self) -> None:
        class MobileNet:
            layers = dict.fromkeys("abcdefgh")
            stem: Sequence[str] = ["a", "b", "c"]

        rankings = []
        attempts = int8._attempts(MobileNet(), lambda: rankings.append(1) or list("hgfed"))  # pyright: ignore[reportArgumentType]
        assert [next(attempts), next(attempts), rankings] == [[], ["a", "b", "c"], []]
        assert list(attempts) == [["a", "b", "c", "h"]]  # four of eight: no more than half
        assert rankings == [1]


class TestAgreementTest:
    @pytest.fixture
    def agreement_test(
        self, drawn_kit: tuple[Path, Manifest], outputs: Outputs, bank: Bank, spec: Preprocessing, images: RunImages
    ) -> AgreementTest:
        return AgreementTest(drawn_kit[0] / MODEL_FILES["fp32"], outputs, bank, spec, images)

    def test_error_decodes_its_images_once_for_all_layers(
        self,
        agreement_test: AgreementTest,
        both_kit: tuple[Path, Manifest],
        images: RunImages,
        decodings: Counter[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(int8, "_SENSITIVITY_IMAGES", 3)
        for precision in ("int8", "fp32", "int8"):
            agreement_test.error(agreement_test.open(both_kit[0] / MODEL_FILES[precision]))
        assert decodings == dict.fromkeys(images.held_out[:3], 1)

    @pytest.mark.parametrize(("most_images", "most_bytes", "groups"), [(3, 1 << 30, 3), (3, 3 * 9216 * 13 - 1, 2)])
    def test_error_compares_the_first_groups_of_all_images(
        self,
        agreement_test: AgreementTest,
        both_kit: tuple[Path, Manifest],
        monkeypatch: pytest.MonkeyPatch,
        most_images: int,
        most_bytes: int,
        groups: int,
    ) -> None:
        monkeypatch.setattr(int8, "_SENSITIVITY_IMAGES", most_images)
        monkeypatch.setattr(int8, "_SENSITIVITY_BYTES", most_bytes)  # an image has 9216 bytes and twelve anomalies
        fp32, quantised = (agreement_test.open(both_kit[0] / MODEL_FILES[name]) for name in ("fp32", "int8"))
        assert agreement_test.error(fp32) == 0  # the images that fp32 embedded at first, anomalies included
        kept = agreement_test._sensitivity
        everything = list(agreement_test._groups(agreement_test._held_out))
        assert len(kept) == groups < len(everything) == 8
        np.testing.assert_array_equal(kept, everything[:groups])
        rows = slice(0, groups * 13)
        difference = agreement_test.embeddings(quantised)[rows] - agreement_test.embeddings(fp32)[rows]
        # The variance of the difference: what is the same for all images does not count.
        assert agreement_test.error(quantised) == pytest.approx(difference.var(axis=0).sum(), rel=1e-4)

    def test_fp32_agrees_with_itself(self, agreement_test: AgreementTest, drawn_kit: tuple[Path, Manifest]) -> None:
        agreement = agreement_test.agreement(agreement_test.open(drawn_kit[0] / MODEL_FILES["fp32"]))
        assert agreement.rank_correlation == pytest.approx(1, abs=1e-4)
        assert agreement.auroc == pytest.approx(agreement.auroc_fp32, abs=1e-3)

    def test_an_anomaly_changes_the_region_of_interest_only(self, toy: ModuleType) -> None:
        image = toy.draw(0)
        before = image.copy()
        region = Region(x=5, y=4, width=21, height=17)
        inside = np.s_[4:21, 5:26]
        for make in synthetic.KINDS.values():
            changed = int8._anomaly(image, make, np.random.default_rng(0), region)
            assert (changed[inside] != image[inside]).any()
            changed[inside] = image[inside]
            np.testing.assert_array_equal(changed, before)
            np.testing.assert_array_equal(image, before)


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
