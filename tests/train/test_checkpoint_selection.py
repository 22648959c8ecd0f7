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
from msc_edge.train.backbones import build_backbone
from msc_edge.train.checkpoint_selection import (
    BestCheckpoint,
    Evaluation,
    Selection,
    held_out_for_selection,
    standard_error,
)
from msc_edge.train.loading import training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.synthetic import KINDS


def answer_of(step: int, wins: np.ndarray) -> Evaluation:
    return Evaluation(step, dict.fromkeys(KINDS, wins))


def fill(backbone: nn.Module, number: float) -> None:
    backbone.load_state_dict({"weight": torch.tensor([[float(number)]])})


def weight_of(backbone: nn.Module) -> float:
    return float(backbone.state_dict()["weight"])


@pytest.fixture
def network(randomise: Callable) -> EmbeddingNetwork:
    backbone = build_backbone("resnet18", stop_at="layer1")
    randomise(backbone, 0)
    return EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()


@pytest.fixture
def copies(network: EmbeddingNetwork, toy: ModuleType) -> list[Tensor]:
    return [training_copy(toy.draw(seed), network.preprocess.spec) for seed in range(24)]


@pytest.mark.parametrize(("images", "held_out"), [(40, 4), (100, 10), (640, 64), (641, 64), (10_000, 64)])
def test_a_tenth_is_held_out_and_never_more_than_64(images: int, held_out: int) -> None:
    chosen = held_out_for_selection(images)
    assert len(chosen) == held_out
    assert chosen <= set(range(images))


def test_with_few_images_nothing_can_be_chosen() -> None:
    with pytest.raises(UsageError, match=r"--select synthetic: 39 images are too few.*at least 40.*--select last"):
        held_out_for_selection(39)


def test_an_answer_is_the_auroc_of_the_kits_own_scores(network: EmbeddingNetwork, copies: list[Tensor]) -> None:
    held_out, others = copies[:4], copies[4:]
    selection = Selection(network, held_out, others, seed=5)
    answer = selection.evaluate(7)
    assert answer.step == 7

    def embed(images: list[np.ndarray]) -> np.ndarray:
        return network.embed_all(("", image) for image in images)

    def pixels(some: list[Tensor]) -> list[np.ndarray]:
        return [copy.permute(1, 2, 0).numpy() for copy in some]

    bank = Bank(embed(pixels(others)))
    good = [bank.score(row) for row in embed(pixels(held_out))]
    aurocs = []
    for kind, images in selection._spoiled.items():
        bad = [bank.score(row) for row in embed(images)]
        aurocs.append(roc_auc_score([0] * len(good) + [1] * len(bad), good + bad))
        assert answer.auroc(kind) == pytest.approx(aurocs[-1], abs=1e-9)
    assert answer.mean_wins.mean() == pytest.approx(np.mean(aurocs), abs=1e-9)


def test_the_same_seed_asks_the_same_and_another_one_something_else(
    network: EmbeddingNetwork, copies: list[Tensor]
) -> None:
    one, same, other = (
        Selection(network, copies[:4], copies[4:], seed=seed).evaluate(0).mean_wins for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_copy_is_not_cut_again_where_training_looks_at_a_region(randomise: Callable, toy: ModuleType) -> None:
    backbone = build_backbone("resnet18", stop_at="layer1")
    randomise(backbone, 0)
    whole = toy.draw(0)
    region = Region(x=4, y=2, width=whole.shape[1] - 8, height=whole.shape[0] - 4)
    with_region = EmbeddingNetwork(backbone, preset("whole-frame", image_size=32, region=region)).eval()
    without = EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()
    copies = [training_copy(toy.draw(seed), with_region.preprocess.spec) for seed in range(12)]
    one, other = (Selection(network, copies[:3], copies[3:], seed=0).evaluate(0) for network in (with_region, without))
    np.testing.assert_array_equal(one.mean_wins, other.mean_wins)


def test_the_standard_error_is_that_of_images_drawn_anew() -> None:
    # Of a difference between two networks, whose parts by image are known: 400 times 50 images.
    random = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        copies, goods = random.normal(0.02, 0.1, 50), random.normal(0, 0.2, 50)
        difference = copies[:, None] - goods
        means.append(difference.mean())
        errors.append(standard_error(difference))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


class TestKeptStep:
    @pytest.fixture
    def backbone(self) -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def offered(self, backbone: nn.Module, *answers: np.ndarray) -> BestCheckpoint:
        """Each at a step of its own, whose number the only weight has."""
        kept = BestCheckpoint(backbone)
        for step, wins in enumerate(answers):
            fill(backbone, step)
            kept.consider(answer_of(step, wins))
        return kept

    def test_the_frozen_backbone_stays_where_nothing_does_better(self, backbone: nn.Module) -> None:
        kept = self.offered(backbone, np.full((6, 6), 0.8), np.full((6, 6), 0.7), np.full((6, 6), 0.8))
        kept.restore()
        assert (kept.step, weight_of(backbone)) == (0, 0)

    def test_what_is_better_for_all_images_is_kept(self, backbone: nn.Module) -> None:
        kept = self.offered(backbone, *(np.full((6, 6), share) for share in (0.6, 0.7, 0.9, 0.8)))
        kept.restore()
        assert (kept.step, weight_of(backbone)) == (2, 2)
        assert [candidate.kept for candidate in kept.candidates] == [True, True, True, False]

    def test_what_is_better_for_one_image_of_many_is_chance(self, backbone: nn.Module) -> None:
        frozen = np.full((6, 6), 0.5)
        lucky = frozen.copy()
        lucky[2] = 1
        kept = self.offered(backbone, frozen, lucky)
        candidate = kept.candidates[1]
        assert candidate.auroc > kept.candidates[0].auroc
        assert candidate.error == pytest.approx(standard_error(lucky - frozen))
        assert kept.step == 0

    def test_small_steps_in_one_direction_add_up(self, backbone: nn.Module) -> None:
        # Each is compared with the one that is kept, not with the one before: 0.004 are within the error, 0.008 not.
        frozen = np.full((40, 40), 0.5)
        uneven = np.resize([0.03, -0.03], (40, 1))
        assert standard_error(np.broadcast_to(uneven, (40, 40))) == pytest.approx(0.0048, abs=1e-4)
        kept = self.offered(backbone, frozen, *(frozen + uneven + 0.004 * step for step in (1, 2, 3)))
        assert [candidate.kept for candidate in kept.candidates] == [True, False, True, True]

    def test_a_checkpoint_brings_back_candidates_and_weights(self, backbone: nn.Module) -> None:
        kept = self.offered(backbone, *(np.full((6, 6), share) for share in (0.6, 0.7, 0.65)))
        again = BestCheckpoint(backbone)
        again.load_state_dict(kept.state_dict())
        assert (again.candidates, again.step) == (kept.candidates, 1)
        for one in (kept, again):
            one.consider(answer_of(3, np.full((6, 6), 0.69)))
            assert one.step == 1
        again.restore()
        assert weight_of(backbone) == 1

    def test_kept_weights_are_a_copy(self, backbone: nn.Module) -> None:
        kept = self.offered(backbone, np.full((6, 6), 0.6))
        fill(backbone, 9)
        kept.restore()
        assert weight_of(backbone) == 0
