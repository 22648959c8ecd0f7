import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.train.losses.contrastive import contrastive_loss
from msc_edge.train.losses.mean_shifted import mean_shifted_loss
from msc_edge.train.recipes import recipe_named


def unit_rows(seed: int, rows: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def test_the_centre_is_the_mean_in_v2_and_its_direction_in_v1() -> None:
    embeddings = unit_rows(0, 30, 12)
    mean = np.mean(embeddings.numpy(), axis=0)
    assert np.linalg.norm(mean) < 0.9
    np.testing.assert_allclose(recipe_named("v2").center_of(embeddings), mean, atol=1e-12)
    np.testing.assert_allclose(recipe_named("v1").center_of(embeddings), mean / np.linalg.norm(mean), atol=1e-12)


def test_v2_is_the_mean_shifted_loss_and_v1_adds_four_minus_twice_the_cosines() -> None:
    first, second, normal = unit_rows(1, 8, 12), unit_rows(2, 8, 12), unit_rows(3, 20, 12)
    raw, unit = recipe_named("v2").center_of(normal), recipe_named("v1").center_of(normal)
    angular = 4 - 2 * float((first @ unit).mean() + (second @ unit).mean())
    for temperature in (0.25, 1.0):
        shifted_raw = float(mean_shifted_loss(first, second, raw, temperature=temperature))
        shifted_unit = float(mean_shifted_loss(first, second, unit, temperature=temperature))
        v2 = float(recipe_named("v2").loss(first, second, raw, temperature))
        v1 = float(recipe_named("v1").loss(first, second, unit, temperature))
        assert v2 == pytest.approx(shifted_raw, abs=1e-10)
        assert v1 == pytest.approx(shifted_unit + angular, abs=1e-10)


def test_the_baseline_is_the_loss_around_the_origin_wherever_the_centre_is() -> None:
    first, second, center = unit_rows(1, 6, 8), unit_rows(2, 6, 8), unit_rows(3, 1, 8)[0]
    expected = contrastive_loss(first, second, temperature=0.3)
    assert float(recipe_named("contrastive").loss(first, second, center, 0.3)) == pytest.approx(float(expected))


def test_the_error_for_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"^recipe v3: unknown; choose one of contrastive, v1, v2$"):
        recipe_named("v3")
