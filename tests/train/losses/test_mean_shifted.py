import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from msc_edge.train.losses.contrastive import contrastive_loss
from msc_edge.train.losses.mean_shifted import mean_shift, mean_shifted_loss


@pytest.mark.parametrize(("batch", "dim", "temperature"), [(1, 3, 0.25), (2, 2, 1.0), (5, 8, 0.25), (16, 64, 0.07)])
@pytest.mark.parametrize("unit_center", [True, False])
def test_the_loss_equals_the_formula_in_loops(
    batch: int, dim: int, temperature: float, unit_center: bool, unit_rows: Callable, nt_xent: Callable
) -> None:
    first, second = unit_rows(1, batch, dim), unit_rows(2, batch, dim)
    center = unit_rows(3, 1, dim)[0] if unit_center else unit_rows(4, 7, dim).mean(dim=0)

    def shifted(rows: list[list[float]]) -> list[list[float]]:
        result = []
        for row in rows:
            difference = [f - c for f, c in zip(row, center.tolist(), strict=True)]
            length = math.sqrt(sum(d * d for d in difference))
            result.append([d / length for d in difference])
        return result

    expected = nt_xent(shifted(first.tolist()), shifted(second.tolist()), temperature)
    loss = mean_shifted_loss(first, second, center, temperature=temperature)
    assert float(loss) == pytest.approx(expected, abs=1e-10)


def test_shifted_embeddings_have_unit_length_and_point_away_from_the_centre(unit_rows: Callable) -> None:
    embeddings, center = unit_rows(1, 20, 6), unit_rows(2, 5, 6).mean(dim=0)
    shifted = mean_shift(embeddings, center)
    distance = (embeddings - center).norm(dim=1, keepdim=True)
    torch.testing.assert_close(shifted.norm(dim=1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(center + distance * shifted, embeddings)


def test_the_loss_does_not_depend_on_distances_from_the_centre(unit_rows: Callable) -> None:
    # Four images lie in four orthogonal directions from the centre, at different distances: each view has similarity
    # 1 to its pair and 0 to the six others:  log(1 + 6 e^(-1/t)).
    center = unit_rows(1, 3, 4).mean(dim=0)
    directions = torch.eye(4, dtype=torch.float64)
    first = center + torch.tensor([[0.1], [0.9], [2.0], [1e-3]], dtype=torch.float64) * directions
    second = center + torch.tensor([[1.5], [0.2], [0.01], [1.0]], dtype=torch.float64) * directions
    expected = math.log1p(6 * math.exp(-4))
    assert float(mean_shifted_loss(first, second, center, temperature=0.25)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_the_loss_of_a_single_point_is_the_log_of_the_number_of_other_views(batch: int, unit_rows: Callable) -> None:
    same, center = unit_rows(0, 1, 16).expand(batch, -1), unit_rows(1, 1, 16)[0]
    assert float(mean_shifted_loss(same, same, center)) == pytest.approx(math.log(2 * batch - 1), abs=1e-12)
    on_the_center = mean_shifted_loss(same, same, same[0])  # no direction is defined, but the loss is finite
    assert float(on_the_center) == pytest.approx(math.log(2 * batch - 1), abs=1e-12)


def test_with_the_origin_as_centre_it_is_the_contrastive_loss(unit_rows: Callable) -> None:
    first, second = unit_rows(1, 6, 10), unit_rows(2, 6, 10)
    plain = float(contrastive_loss(first, second))
    assert float(mean_shifted_loss(first, second, torch.zeros(10, dtype=torch.float64))) == pytest.approx(
        plain, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_invariant_to_a_rotation_of_embeddings_and_centre(
    seed: int, unit_rows: Callable, rotation: Callable
) -> None:
    first, second, turn = unit_rows(seed, 9, 12), unit_rows(seed + 50, 9, 12), rotation(seed, 12)
    center = unit_rows(seed + 99, 4, 12).mean(dim=0)
    before = float(mean_shifted_loss(first, second, center))
    assert float(mean_shifted_loss(first @ turn, second @ turn, center @ turn)) == pytest.approx(before, abs=1e-12)
    assert float(mean_shifted_loss(first @ turn, second @ turn, center)) != pytest.approx(before, abs=1e-6)


def test_the_loss_does_not_depend_on_the_order_of_images_and_views(unit_rows: Callable) -> None:
    first, second, center = unit_rows(1, 9, 12), unit_rows(2, 9, 12), unit_rows(3, 1, 12)[0]
    order = torch.tensor([3, 0, 8, 1, 7, 2, 6, 4, 5])
    before = float(mean_shifted_loss(first, second, center))
    assert float(mean_shifted_loss(first[order], second[order], center)) == pytest.approx(before, abs=1e-12)
    assert float(mean_shifted_loss(second, first, center)) == pytest.approx(before, abs=1e-12)


def test_gradient_is_the_derivative(unit_rows: Callable) -> None:
    views = (unit_rows(1, 4, 5).requires_grad_(), unit_rows(2, 4, 5).requires_grad_())
    center = unit_rows(3, 6, 5).mean(dim=0)
    assert torch.autograd.gradcheck(lambda first, second: mean_shifted_loss(first, second, center), views)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_smaller_dtypes_are_near_float64(dtype: torch.dtype, tolerance: float, unit_rows: Callable) -> None:
    # A tight cluster, as pretrained embeddings of one product: cosines of about 0.9.
    product = unit_rows(0, 1, 128)
    first, second = (F.normalize(3 * product + unit_rows(seed, 32, 128), dim=1) for seed in (1, 2))
    center = first.mean(dim=0)
    loss = mean_shifted_loss(first.to(dtype), second.to(dtype), center.to(dtype))
    assert float(loss) == pytest.approx(float(mean_shifted_loss(first, second, center)), abs=tolerance)
