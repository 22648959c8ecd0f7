import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from msc_edge.train.losses.contrastive import contrastive_loss


@pytest.mark.parametrize(("batch", "dim", "temperature"), [(1, 3, 0.25), (2, 2, 1.0), (5, 8, 0.25), (16, 64, 0.07)])
def test_the_loss_equals_the_formula_in_loops(
    batch: int, dim: int, temperature: float, unit_rows: Callable, nt_xent: Callable
) -> None:
    first, second = unit_rows(1, batch, dim), unit_rows(2, batch, dim)
    expected = nt_xent(first.tolist(), second.tolist(), temperature)
    assert float(contrastive_loss(first, second, temperature=temperature)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_loss_of_a_single_point_is_the_log_of_the_number_of_other_views(batch: int, unit_rows: Callable) -> None:
    same = unit_rows(0, 1, 16).expand(batch, -1)
    assert float(contrastive_loss(same, same)) == pytest.approx(math.log(2 * batch - 1), abs=1e-12)


def test_the_loss_of_two_orthogonal_pairs() -> None:
    # Each view: similarity 1 to its pair and 0 to the two others, so  -4 + log(e^4 + 2)  at temperature 1/4.
    pairs = torch.eye(2, dtype=torch.float64)
    assert float(contrastive_loss(pairs, pairs, temperature=0.25)) == pytest.approx(0.035976299748193, abs=1e-12)


def test_the_loss_of_opposite_views_of_two_orthogonal_images() -> None:
    # Similarity -1 to its pair and 0 to the two others:  4 + log(e^-4 + 2).
    pairs = torch.eye(2, dtype=torch.float64)
    expected = 4 + math.log(math.exp(-4) + 2)
    assert float(contrastive_loss(pairs, -pairs, temperature=0.25)) == pytest.approx(expected, abs=1e-12)


def test_the_loss_of_one_image_is_zero(unit_rows: Callable) -> None:
    assert float(contrastive_loss(unit_rows(0, 1, 8), unit_rows(1, 1, 8))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_invariant_to_a_rotation(seed: int, unit_rows: Callable, rotation: Callable) -> None:
    first, second, turn = unit_rows(seed, 9, 12), unit_rows(seed + 50, 9, 12), rotation(seed, 12)
    before = float(contrastive_loss(first, second))
    assert float(contrastive_loss(first @ turn, second @ turn)) == pytest.approx(before, abs=1e-12)


def test_the_loss_does_not_depend_on_the_order_of_images_and_views(unit_rows: Callable) -> None:
    first, second, order = unit_rows(1, 9, 12), unit_rows(2, 9, 12), torch.tensor([3, 0, 8, 1, 7, 2, 6, 4, 5])
    before = float(contrastive_loss(first, second))
    assert float(contrastive_loss(first[order], second[order])) == pytest.approx(before, abs=1e-12)
    assert float(contrastive_loss(second, first)) == pytest.approx(before, abs=1e-12)


def test_matching_views_have_a_smaller_loss_than_mismatched_ones(unit_rows: Callable) -> None:
    first = unit_rows(1, 9, 12)
    second = F.normalize(first + 0.1 * unit_rows(2, 9, 12), dim=1)
    assert float(contrastive_loss(first, second)) < float(contrastive_loss(first, second.roll(1, dims=0)))


def test_gradient_is_the_derivative_with_respect_to_both_views(unit_rows: Callable) -> None:
    views = (unit_rows(1, 4, 5).requires_grad_(), unit_rows(2, 4, 5).requires_grad_())
    assert torch.autograd.gradcheck(contrastive_loss, views)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_smaller_dtypes_are_near_float64(dtype: torch.dtype, tolerance: float, unit_rows: Callable) -> None:
    first, second = unit_rows(1, 32, 128), unit_rows(2, 32, 128)
    loss = contrastive_loss(first.to(dtype), second.to(dtype))
    assert float(loss) == pytest.approx(float(contrastive_loss(first, second)), abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_low_temperature_does_not_overflow(dtype: torch.dtype) -> None:
    pairs = torch.eye(4, dtype=dtype)  # exp(1 / 0.005) exceeds float32
    assert float(contrastive_loss(pairs, pairs, temperature=0.005)) == pytest.approx(0, abs=1e-6)
