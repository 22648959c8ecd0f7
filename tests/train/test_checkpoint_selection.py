from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from msc_edge.bank import Bank
from msc_edge.errors import UsageError
from msc_edge.preprocessing import Region, preset
from msc_edge.scoring import ScoreKind, Scoring, Standard, calibration_scores
from msc_edge.synthetic import KINDS
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.checkpoint_selection import (
    BestCheckpoint,
    CheckpointEvaluator,
    Evaluation,
    held_out_for_selection,
    standard_error,
)
from msc_edge.train.harmless import changed_copies
from msc_edge.train.loading import training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import MAP_SETTINGS, fit_patch_head, outputs, patch_scores


def evaluation_of(step: int, wins: np.ndarray) -> Evaluation:
    return Evaluation(step, dict.fromkeys(KINDS, wins))


def set_weight(backbone: nn.Module, number: float) -> None:
    backbone.load_state_dict({"weight": torch.tensor([[float(number)]])})


def weight_of(backbone: nn.Module) -> float:
    return float(backbone.state_dict()["weight"])


@pytest.fixture(scope="module")
def network(randomise: Callable) -> EmbeddingNetwork:
    backbone = build_backbone("resnet18", stop_at="layer1")
    randomise(backbone, 0)
    return EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()


@pytest.fixture(scope="module")
def training_copies(network: EmbeddingNetwork, toy: ModuleType) -> list[Tensor]:
    return [training_copy(toy.draw(seed), network.preprocess.spec) for seed in range(24)]


@pytest.mark.parametrize(("images", "held_out"), [(40, 4), (100, 10), (640, 64), (641, 64), (10_000, 64)])
def test_a_tenth_is_held_out_and_never_more_than_64(images: int, held_out: int) -> None:
    chosen = held_out_for_selection(images)
    assert len(chosen) == held_out
    assert chosen <= set(range(images))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--select synthetic: 39 images are too few.*at least 40.*--select last"):
        held_out_for_selection(39)


def test_an_evaluation_is_the_auroc_of_the_scores_of_the_kit(
    network: EmbeddingNetwork, training_copies: list[Tensor]
) -> None:
    held_out, others = training_copies[:4], training_copies[4:]
    evaluator = CheckpointEvaluator(network, held_out, others, seed=5)
    evaluation = evaluator.evaluate(7)
    assert evaluation.step == 7

    def embed(images: list[np.ndarray]) -> np.ndarray:
        return network.embed_all(("", image) for image in images)

    def pixels(some: list[Tensor]) -> list[np.ndarray]:
        return [copy.permute(1, 2, 0).numpy() for copy in some]

    bank = Bank(embed(pixels(others)))
    normal = [bank.score(row) for row in embed(pixels(held_out))]
    aurocs = []
    for kind, images in evaluator._anomalies.items():
        anomalous = [bank.score(row) for row in embed(images)]
        aurocs.append(roc_auc_score([0] * len(normal) + [1] * len(anomalous), normal + anomalous))
        assert evaluation.auroc(kind) == pytest.approx(aurocs[-1], abs=1e-9)
    assert evaluation.mean_wins.mean() == pytest.approx(np.mean(aurocs), abs=1e-9)


@pytest.mark.parametrize("scores", ["patch", "both"])
def test_patches_are_compared_with_a_bank_of_the_candidate(
    scores: ScoreKind, randomise: Callable, toy: ModuleType
) -> None:
    backbone = build_backbone("resnet18", stop_at="layer3")
    randomise(backbone, 0)
    network = EmbeddingNetwork(backbone, preset("whole-frame", image_size=64, margin=8)).eval()
    copies = [training_copy(toy.draw(seed), network.preprocess.spec) for seed in range(16)]
    evaluator = CheckpointEvaluator(network, copies[:4], copies[4:], seed=5, scores=scores)
    evaluation = evaluator.evaluate(0)

    def named(images: list[np.ndarray]) -> list[tuple[str, np.ndarray]]:
        return [("", image) for image in images]

    normal, others = ([copy.permute(1, 2, 0).numpy() for copy in part] for part in (copies[:4], copies[4:]))
    head = fit_patch_head(network, lambda: named(others), rows=1000)
    bank = Bank(network.embed_all(named(others)))

    def parts(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        image_scores = [bank.score(row) for row in network.embed_all(named(images))]
        return np.array(image_scores), patch_scores(outputs(network, head, named(images)), MAP_SETTINGS)

    of_normal = parts(normal)
    copies_of_normal = [image for _, image in changed_copies(named(normal), may_move=True)]
    standard = Standard.of_images(*parts(copies_of_normal)).from_zero(*of_normal) if scores == "both" else None
    scoring = Scoring.fitted(scores, standard, MAP_SETTINGS)
    expected = calibration_scores(scores, *of_normal, standard, MAP_SETTINGS)
    for kind, images in evaluator._anomalies.items():
        anomalous = [scoring.score(*each) for each in zip(*parts(images), strict=True)]
        truth = [0] * len(expected) + [1] * len(anomalous)
        assert evaluation.auroc(kind) == pytest.approx(roc_auc_score(truth, [*expected, *anomalous]), abs=1e-6)
    image_only = CheckpointEvaluator(network, copies[:4], copies[4:], seed=5).evaluate(0)
    assert not np.array_equal(image_only.mean_wins, evaluation.mean_wins)


def test_the_same_seed_makes_the_same_anomalies_and_another_seed_does_not(
    network: EmbeddingNetwork, training_copies: list[Tensor]
) -> None:
    one, same, other = (
        CheckpointEvaluator(network, training_copies[:4], training_copies[4:], seed=seed).evaluate(0).mean_wins
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_region_is_not_cut_out_of_a_training_copy_again(randomise: Callable, toy: ModuleType) -> None:
    backbone = build_backbone("resnet18", stop_at="layer1")
    randomise(backbone, 0)
    whole = toy.draw(0)
    region = Region(x=4, y=2, width=whole.shape[1] - 8, height=whole.shape[0] - 4)
    with_region = EmbeddingNetwork(backbone, preset("whole-frame", image_size=32, region=region)).eval()
    without = EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()
    copies = [training_copy(toy.draw(seed), with_region.preprocess.spec) for seed in range(12)]
    one, other = (
        CheckpointEvaluator(network, copies[:3], copies[3:], seed=0).evaluate(0) for network in (with_region, without)
    )
    np.testing.assert_array_equal(one.mean_wins, other.mean_wins)


def test_the_standard_error_is_that_of_new_samples() -> None:
    # The difference of two networks has known contributions of each image. 400 samples of 50 images.
    random = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        anomalies, normal = random.normal(0.02, 0.1, 50), random.normal(0, 0.2, 50)
        difference = anomalies[:, None] - normal
        means.append(difference.mean())
        errors.append(standard_error(difference))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


class TestBestCheckpoint:
    @pytest.fixture
    def backbone(self) -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def best_of(self, backbone: nn.Module, *wins: np.ndarray) -> BestCheckpoint:
        """One candidate for each of `wins`; its only weight is its step."""
        best = BestCheckpoint(backbone)
        for step, each in enumerate(wins):
            set_weight(backbone, step)
            best.consider(evaluation_of(step, each))
        return best

    def test_the_frozen_backbone_is_selected_if_no_candidate_is_better(self, backbone: nn.Module) -> None:
        best = self.best_of(backbone, np.full((6, 6), 0.8), np.full((6, 6), 0.7), np.full((6, 6), 0.8))
        best.restore()
        assert (best.step, weight_of(backbone)) == (0, 0)

    def test_a_candidate_that_is_better_for_all_images_is_selected(self, backbone: nn.Module) -> None:
        best = self.best_of(backbone, *(np.full((6, 6), share) for share in (0.6, 0.7, 0.9, 0.8)))
        best.restore()
        assert (best.step, weight_of(backbone)) == (2, 2)
        assert [candidate.selected for candidate in best.candidates] == [True, True, True, False]

    def test_a_candidate_that_is_better_for_one_image_is_not_selected(self, backbone: nn.Module) -> None:
        frozen = np.full((6, 6), 0.5)
        lucky = frozen.copy()
        lucky[2] = 1
        best = self.best_of(backbone, frozen, lucky)
        candidate = best.candidates[1]
        assert candidate.auroc > best.candidates[0].auroc
        assert candidate.error == pytest.approx(standard_error(lucky - frozen))
        assert best.step == 0

    def test_small_improvements_add_up(self, backbone: nn.Module) -> None:
        # Each candidate is compared with the best one, not the previous one: 0.004 is within the error, 0.008 is not.
        frozen = np.full((40, 40), 0.5)
        uneven = np.resize([0.03, -0.03], (40, 1))
        assert standard_error(np.broadcast_to(uneven, (40, 40))) == pytest.approx(0.0048, abs=1e-4)
        best = self.best_of(backbone, frozen, *(frozen + uneven + 0.004 * step for step in (1, 2, 3)))
        assert [candidate.selected for candidate in best.candidates] == [True, False, True, True]

    def test_a_checkpoint_restores_candidates_and_weights(self, backbone: nn.Module) -> None:
        best = self.best_of(backbone, *(np.full((6, 6), share) for share in (0.6, 0.7, 0.65)))
        again = BestCheckpoint(backbone)
        again.load_state_dict(best.state_dict())
        assert (again.candidates, again.step) == (best.candidates, 1)
        for one in (best, again):
            one.consider(evaluation_of(3, np.full((6, 6), 0.69)))
            assert one.step == 1
        again.restore()
        assert weight_of(backbone) == 1

    def test_the_best_weights_are_a_copy(self, backbone: nn.Module) -> None:
        best = self.best_of(backbone, np.full((6, 6), 0.6))
        set_weight(backbone, 9)
        best.restore()
        assert weight_of(backbone) == 0
