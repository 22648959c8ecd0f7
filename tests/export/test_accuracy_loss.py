from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.export import accuracy_loss as module
from msc_edge.export import models, pack
from msc_edge.export.accuracy_loss import STRENGTHS, Found, accuracy_loss, choose_strength, samples
from msc_edge.export.run_images import RunImages
from msc_edge.images import DecodePolicy
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.quantization import Agreement
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.interface import Backend, ModelOutput
from msc_edge.train.dataset import NormalImage
from msc_edge.train.split import Split


class Noisy:
    """A backend with noise in its outputs, as large as `share` of the differences between normal images."""

    def __init__(self, backend: Backend, share: float) -> None:
        self._backend, self._share = backend, share
        self._rng = np.random.default_rng(0)

    def run(self, image: np.ndarray) -> ModelOutput:
        output = self._backend.run(image)
        noise = self._rng.normal(0, 0.003 * self._share, output.embedding.shape)
        embedding = (output.embedding + noise).astype(np.float32)
        distances = output.patch_distances
        if distances is not None:
            distances = (distances * self._rng.uniform(1, 1 + self._share, distances.shape)).astype(np.float32)
        return ModelOutput(embedding / np.linalg.norm(embedding), distances)


def noisy(detector: Detector, share: float) -> Detector:
    return replace(detector, backend=Noisy(detector.backend, share)) if share else detector


@pytest.fixture(scope="module")
def fp32(patch_kit: Path) -> Detector:
    """The toy kit with patches: its score is made of both parts."""
    return Detector.load(patch_kit, threads=1)


@pytest.fixture(scope="module")
def held_out(toy: ModuleType, save: Callable, tmp_path_factory: pytest.TempPathFactory) -> RunImages:
    """A hundred held-out images of the toy kit."""
    folder = tmp_path_factory.mktemp("held out")
    names = tuple(f"{seed}.png" for seed in range(300, 400))
    for name in names:
        save(folder / name, toy.draw(int(name.removesuffix(".png"))))
    return images_of(folder, names)


def images_of(folder: Path, names: Iterable[str]) -> RunImages:
    images = [NormalImage(name, "", "calibration") for name in names]
    return RunImages(folder, Split.of(images, in_turn=False), DecodePolicy())


def auroc_at(detector: Detector, images: RunImages, strength: float) -> float:
    found = Found(detector)
    for sample in samples(images, detector.manifest.preprocessing, [strength], most=100, seed=0):
        found.add(sample)
    return found.auroc


class TestFaintAnomalies:
    @pytest.mark.slow
    def test_a_smaller_share_of_the_anomaly_is_harder_to_find(self, fp32: Detector, held_out: RunImages) -> None:
        aurocs = [auroc_at(fp32, held_out, strength) for strength in STRENGTHS]
        assert aurocs == sorted(aurocs, reverse=True)
        assert aurocs[0] - aurocs[-1] > 0.15

    @pytest.mark.parametrize("target", [0.65, 0.75])
    def test_the_strength_gives_fp32_the_auroc_that_is_wanted(
        self, fp32: Detector, held_out: RunImages, monkeypatch: pytest.MonkeyPatch, target: float
    ) -> None:
        monkeypatch.setattr(module, "TARGET_AUROC", target)
        strength = choose_strength(fp32, held_out, seed=0)
        assert 1 / 16 <= strength < 1
        assert auroc_at(fp32, held_out, strength) == pytest.approx(target, abs=0.08)

    def test_where_even_the_strongest_are_missed_these_are_used(
        self, fp32: Detector, held_out: RunImages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "TARGET_AUROC", 1.0)
        assert choose_strength(fp32, held_out, seed=0) == 1

    def test_a_seed_gives_the_same_images_at_every_strength(self, fp32: Detector, held_out: RunImages) -> None:
        spec = fp32.manifest.preprocessing
        one, same = (list(samples(held_out, spec, [0.5], most=4, seed=0)) for _ in range(2))
        other = list(samples(held_out, spec, [0.5], most=4, seed=1))
        both = list(samples(held_out, spec, [0.5, 0.25], most=4, seed=0))
        assert [each.strength for each in one] == [0, 0.5, 0.5, 0.5, 0.5] * 4
        for sample, again in zip(one, same, strict=True):
            np.testing.assert_array_equal(sample.image, again.image)
        for sample, again in zip(one, [each for each in both if each.strength != 0.25], strict=True):
            np.testing.assert_array_equal(sample.image, again.image)
        assert any((sample.image != again.image).any() for sample, again in zip(one, other, strict=True))

    def test_the_mask_of_an_anomaly_does_not_depend_on_its_strength(self, fp32: Detector, held_out: RunImages) -> None:
        found = list(samples(held_out, fp32.manifest.preprocessing, [1.0, 1 / 16], most=4, seed=0))
        strong, faint = ([each.mask for each in found if each.strength == strength] for strength in (1.0, 1 / 16))
        assert sum(mask is not None for mask in strong) > 4
        for one, other in zip(strong, faint, strict=True):
            np.testing.assert_array_equal(one, other)


class TestTheLoss:
    def test_a_model_loses_nothing_against_itself(self, fp32: Detector, held_out: RunImages) -> None:
        loss = accuracy_loss(fp32, fp32, held_out, seed=0)
        assert (loss.normal_images, loss.synthetic_anomalies) == (100, 400)
        assert (loss.auroc_loss, loss.au_pro_loss, loss.is_small) == (0, 0, True)

    def test_it_is_the_same_each_time(self, fp32: Detector, held_out: RunImages) -> None:
        few = images_of(held_out.folder, held_out.held_out[:20])
        one, other = (accuracy_loss(fp32, noisy(fp32, 1.0), few, seed=3) for _ in range(2))
        assert one == other

    @pytest.mark.slow
    def test_more_noise_loses_more(self, fp32: Detector, held_out: RunImages) -> None:
        found = [accuracy_loss(fp32, noisy(fp32, share), held_out, seed=0) for share in (0.0, 0.5, 1.0, 2.0)]
        losses = [each.auroc_loss for each in found]
        assert losses == sorted(losses)
        assert [each.is_small for each in found] == [True, False, False, False]
        in_maps = [each.au_pro_loss or 0 for each in found]
        assert in_maps[-1] > max(in_maps[0], 0.003)

    def test_a_kit_that_compares_whole_images_only_has_no_maps(self, toy_kit: Path, held_out: RunImages) -> None:
        detector = Detector.load(toy_kit, threads=1)
        loss = accuracy_loss(detector, detector, held_out, seed=0)
        assert (loss.au_pro_fp32, loss.au_pro, loss.au_pro_loss, loss.is_small) == (None, None, None, True)


class TestTheDefaultModel:
    """Of a kit whose int8 model is a copy of fp32, with noise in its outputs where the loss is measured."""

    @pytest.fixture
    def exported(
        self, drawn_run: Path, both_kit: tuple[Path, Manifest], place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Manifest]:
        int8 = both_kit[1].models["int8"]
        agreement = Agreement(normal_images=8, synthetic_anomalies=96, auroc_fp32=1, auroc=1, rank_correlation=1)

        def quantised(fp32: Path, path: Path, *_, **__) -> tuple[object, Agreement]:
            path.write_bytes(fp32.read_bytes())
            return int8.quantization, agreement

        def quantised_again(fp32: Path, path: Path, *_) -> object:
            return quantised(fp32, path)[0]

        class Loaded:
            @staticmethod
            def load(kit: Path, *, precision: str, backend: str) -> Detector:  # noqa: ARG004
                detector = Detector.load(kit, threads=1, precision="fp32")
                return detector if precision == "fp32" else noisy(detector, share)

        share = 0.0

        def run(noise: float, *, held_out: int, **options: str) -> Manifest:
            nonlocal share
            share = noise
            monkeypatch.setattr(models, "quantised_model", quantised)
            monkeypatch.setattr(models, "quantised_again", quantised_again)
            monkeypatch.setattr(models, "MIN_HELD_OUT", held_out)
            monkeypatch.setattr(models, "Detector", Loaded)
            return pack.export(drawn_run, place, **options)  # pyright: ignore[reportArgumentType]

        return run

    def test_int8_without_a_loss_scores(self, exported: Callable[..., Manifest]) -> None:
        manifest = exported(0.0, held_out=8)
        agreement = manifest.models["int8"].agreement
        assert agreement
        assert agreement.loss
        assert (agreement.loss.auroc_loss, manifest.default_model) == (0, "int8")

    def test_int8_with_a_loss_does_not_score(self, exported: Callable[..., Manifest]) -> None:
        manifest = exported(20.0, held_out=8)
        agreement = manifest.models["int8"].agreement
        assert agreement
        assert agreement.loss
        assert agreement.loss.auroc_loss > 0.003
        assert (manifest.precisions, manifest.default_model) == (("fp32", "int8"), "fp32")

    def test_int8_with_a_loss_scores_where_the_export_was_asked_for_it(self, exported: Callable[..., Manifest]) -> None:
        assert exported(20.0, held_out=8, precision="int8").default_model == "int8"

    def test_with_few_held_out_images_nothing_is_measured_and_fp32_scores(
        self, exported: Callable[..., Manifest]
    ) -> None:
        manifest = exported(0.0, held_out=9)
        agreement = manifest.models["int8"].agreement
        assert agreement
        assert (agreement.loss, manifest.default_model) == (None, "fp32")
