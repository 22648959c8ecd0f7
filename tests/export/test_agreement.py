from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.bank import Bank
from msc_edge.export import agreement
from msc_edge.export.agreement import AgreementTest, anomaly_of, changed_input, passes_gates
from msc_edge.export.run_images import RunImages
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.quantization import Agreement, MapAgreement
from msc_edge.preprocessing import Preprocessing, Region, preset
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.synthetic import KINDS


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

    @pytest.mark.parametrize(
        ("rank_correlation", "au_pro", "passes"),
        [(0.95, 0.7, True), (0.9499, 0.7, False), (1.0, 0.69, True), (1.0, 0.6899, False), (0.95, 0.8, True)],
    )
    def test_maps_have_gates_of_their_own(self, rank_correlation: float, au_pro: float, passes: bool) -> None:
        maps = MapAgreement(rank_correlation=rank_correlation, au_pro_fp32=0.7, au_pro=au_pro)
        measured = Agreement(
            normal_images=8, synthetic_anomalies=24, auroc_fp32=0.9, auroc=0.9, rank_correlation=1.0, maps=maps
        )
        assert passes_gates(measured) is passes


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
        monkeypatch.setattr(agreement, "_SENSITIVITY_IMAGES", 3)
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
        monkeypatch.setattr(agreement, "_SENSITIVITY_IMAGES", most_images)
        monkeypatch.setattr(agreement, "_SENSITIVITY_BYTES", most_bytes)  # an image has 9216 bytes and twelve anomalies
        fp32, quantised = (agreement_test.open(both_kit[0] / MODEL_FILES[name]) for name in ("fp32", "int8"))
        assert agreement_test.error(fp32) == 0  # the images that fp32 embedded at first, anomalies included
        kept = agreement_test._sensitivity
        everything = list(agreement_test._groups(agreement_test._held_out))
        assert len(kept) == groups < len(everything) == 8
        for group, same in zip(kept, everything, strict=False):
            np.testing.assert_array_equal([each.image for each in group], [each.image for each in same])
        ours, theirs = (
            np.stack([each.embedding for each in agreement_test.outputs_of(model)[: groups * 13]])
            for model in (fp32, quantised)
        )
        # What is the same for all images does not count.
        share = (theirs - ours).var(axis=0).sum() / ours.var(axis=0).sum()
        assert agreement_test.error(quantised) == pytest.approx(share, rel=1e-4)

    def test_fp32_agrees_with_itself(self, agreement_test: AgreementTest, drawn_kit: tuple[Path, Manifest]) -> None:
        found = agreement_test.agreement(agreement_test.open(drawn_kit[0] / MODEL_FILES["fp32"]))
        assert found.rank_correlation == pytest.approx(1, abs=1e-4)
        assert found.auroc == pytest.approx(found.auroc_fp32, abs=1e-3)
        assert found.maps is None

    def test_an_anomaly_changes_the_region_of_interest_only(self, toy: ModuleType) -> None:
        image = toy.draw(0)
        before = image.copy()
        region = Region(x=5, y=4, width=21, height=17)
        inside = np.s_[4:21, 5:26]
        for make in KINDS.values():
            changed = anomaly_of(image, make, np.random.default_rng(0), region)
            assert (changed[inside] != image[inside]).any()
            changed[inside] = image[inside]
            np.testing.assert_array_equal(changed, before)
            np.testing.assert_array_equal(image, before)


class TestMaps:
    def test_fp32_agrees_with_itself(self, maps_test: AgreementTest, trained_patch_kit: tuple[Path, Manifest]) -> None:
        maps = maps_test.agreement(maps_test.open(trained_patch_kit[0] / MODEL_FILES["fp32"])).maps
        assert maps is not None
        assert maps.rank_correlation == pytest.approx(1, abs=1e-4)
        assert maps.au_pro == pytest.approx(maps.au_pro_fp32, abs=1e-3)
        assert maps.au_pro > 0.15  # that of a constant map

    def test_maps_in_another_order_are_found(
        self, maps_test: AgreementTest, trained_patch_kit: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A model whose embeddings agree and whose maps do not."""
        flipped = maps_test.open(trained_patch_kit[0] / MODEL_FILES["fp32"])
        run = flipped.run

        def mirrored(image: np.ndarray) -> ModelOutput:
            output = run(image)
            assert output.patch_distances is not None
            return ModelOutput(output.embedding, np.ascontiguousarray(output.patch_distances[::-1, ::-1]))

        monkeypatch.setattr(flipped, "run", mirrored)
        found = maps_test.agreement(flipped)
        assert found.rank_correlation == pytest.approx(1, abs=1e-4)
        assert found.maps is not None
        assert found.maps.rank_correlation < 0.95
        assert found.maps.au_pro < found.maps.au_pro_fp32 - 0.05
        assert not passes_gates(found)

    @pytest.mark.parametrize("region", [None, Region(x=100, y=40, width=200, height=160)])
    def test_the_mask_is_where_the_input_of_the_network_changes(self, region: Region | None) -> None:
        """Compared with the preprocessed images themselves."""
        spec = preset("whole-frame", image_size=64, region=region)
        before = np.random.default_rng(0).integers(0, 200, (240, 320, 3), np.uint8)
        after = before.copy()
        after[100:130, 150:210] += 50
        top, left, height, width = (40, 100, 160, 200) if region else (0, 0, 240, 320)
        expected = np.zeros((64, 64), bool)
        rows = slice(round((100 - top) / height * 64), round((130 - top) / height * 64))
        expected[rows, round((150 - left) / width * 64) : round((210 - left) / width * 64)] = True
        found = changed_input(before, after, spec)
        assert (found & expected).sum() / (found | expected).sum() > 0.75
