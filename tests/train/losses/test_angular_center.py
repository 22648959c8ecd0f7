import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from msc_edge.train.losses.angular_center import angular_center_loss


@pytest.mark.parametrize(("batch", "dim"), [(1, 3), (2, 2), (5, 8), (64, 32)])
def test_the_loss_equals_the_formula_in_loops(batch: int, dim: int, unit_rows: Callable) -> None:
    first, second, center = unit_rows(1, batch, dim), unit_rows(2, batch, dim), unit_rows(3, 1, dim)[0]
    expected = 0.0
    for view in (first.tolist(), second.tolist()):
        for row in view:
            expected += sum((f - c) ** 2 for f, c in zip(row, center.tolist(), strict=True)) / batch
    assert float(angular_center_loss(first, second, center)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_four_minus_twice_the_summed_mean_cosines(seed: int, unit_rows: Callable) -> None:
    first, second, center = unit_rows(seed, 9, 12), unit_rows(seed + 50, 9, 12), unit_rows(seed + 99, 1, 12)[0]
    cosines = F.cosine_similarity(first, center[None]).mean() + F.cosine_similarity(second, center[None]).mean()
    assert float(angular_center_loss(first, second, center)) == pytest.approx(float(4 - 2 * cosines), abs=1e-12)


@pytest.mark.parametrize(("angle", "expected"), [(0, 0), (math.pi / 3, 2), (math.pi / 2, 4), (math.pi, 8)])
def test_the_loss_grows_with_the_angle_to_the_centre(angle: float, expected: float) -> None:
    center = torch.tensor([1.0, 0.0], dtype=torch.float64)
    views = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64).expand(3, -1)
    assert float(angular_center_loss(views, views, center)) == pytest.approx(expected, abs=1e-12)


def test_the_loss_is_invariant_to_a_rotation_of_embeddings_and_centre(unit_rows: Callable, rotation: Callable) -> None:
    first, second, center, turn = unit_rows(1, 9, 12), unit_rows(2, 9, 12), unit_rows(3, 1, 12)[0], rotation(4, 12)
    before = float(angular_center_loss(first, second, center))
    assert float(angular_center_loss(first @ turn, second @ turn, center @ turn)) == pytest.approx(before, abs=1e-12)


def test_the_loss_does_not_depend_on_the_pairing_of_views(unit_rows: Callable) -> None:
    first, second, center = unit_rows(1, 9, 12), unit_rows(2, 9, 12), unit_rows(3, 1, 12)[0]
    before = float(angular_center_loss(first, second, center))
    assert float(angular_center_loss(first.flip(0), second, center)) == pytest.approx(before, abs=1e-12)
    assert float(angular_center_loss(second, first, center)) == pytest.approx(before, abs=1e-12)


def test_a_gradient_step_moves_views_to_the_centre(unit_rows: Callable) -> None:
    center = unit_rows(3, 1, 12)[0]
    views = unit_rows(1, 9, 12).requires_grad_()
    angular_center_loss(views, unit_rows(2, 9, 12), center).backward()
    assert views.grad is not None
    moved = F.normalize(views.detach() - views.grad, dim=1)
    assert (moved @ center > views.detach() @ center).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_smaller_dtypes_are_near_float64(dtype: torch.dtype, tolerance: float, unit_rows: Callable) -> None:
    first, second, center = unit_rows(1, 32, 128), unit_rows(2, 32, 128), unit_rows(3, 1, 128)[0]
    loss = angular_center_loss(first.to(dtype), second.to(dtype), center.to(dtype))
    assert float(loss) == pytest.approx(float(angular_center_loss(first, second, center)), abs=tolerance)
