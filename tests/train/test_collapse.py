import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msc_edge.train.collapse import CollapseMonitor, effective_rank, mean_pairwise_cosine


def unit_rows(seed: int, rows: int, dim: int) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(("rows", "dim"), [(2, 3), (9, 4), (40, 128)])
def test_mean_pairwise_cosine_is_the_mean_over_all_pairs(rows: int, dim: int) -> None:
    embeddings = unit_rows(0, rows, dim)
    pairs = [float(embeddings[i].double() @ embeddings[j].double()) for i in range(rows) for j in range(i)]
    assert mean_pairwise_cosine(embeddings) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_mean_pairwise_cosine_of_known_shapes() -> None:
    assert mean_pairwise_cosine(torch.eye(5)) == pytest.approx(0, abs=1e-9)
    assert mean_pairwise_cosine(unit_rows(0, 1, 8).expand(6, -1)) == pytest.approx(1, abs=1e-6)
    assert mean_pairwise_cosine(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-1, abs=1e-9)
    simplex = F.normalize(torch.eye(4) - 0.25, dim=1)  # corners of a tetrahedron: -1/3 between any two
    assert mean_pairwise_cosine(simplex) == pytest.approx(-1 / 3, abs=1e-6)


@pytest.mark.parametrize(("rows", "dim"), [(3, 5), (12, 4), (40, 128)])
def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values(rows: int, dim: int) -> None:
    embeddings = unit_rows(1, rows, dim).double()
    centred = embeddings - embeddings.mean(dim=0)
    # The singular values, computed as roots of the eigenvalues of the scatter matrix.
    singular = [math.sqrt(max(0.0, value)) for value in torch.linalg.eigvalsh(centred.T @ centred).tolist()]
    shares = [value / sum(singular) for value in singular if value > 1e-7]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(embeddings.float()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_effective_rank_of_a_simplex_is_its_dimension(count: int) -> None:
    # Orthonormal rows less their mean: count - 1 equal singular values.
    assert effective_rank(torch.eye(count, 10)) == pytest.approx(count - 1, rel=1e-6)


def test_the_effective_rank_of_a_line_and_of_a_point_is_one() -> None:
    line = torch.linspace(-1, 1, 9)[:, None] * unit_rows(2, 1, 16)
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)
    assert effective_rank(unit_rows(3, 1, 16).expand(7, -1)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.ones(4, 4) / 2) == 1


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_effective_rank_is_at_most_the_rank(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(50, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
    assert rank - 1 < effective_rank(data) <= rank + 1e-3


def course(spread: float, rank: float, steps: int) -> list[tuple[float, float]]:
    return [(1 - spread, rank)] * steps


@pytest.mark.parametrize(
    ("metrics", "warnings"),
    [
        (course(0.4, 20, 30), 0),  # no change
        (course(0.4, 20, 10) + course(0.25, 14, 40), 0),  # smaller, but more than half
        (course(0.4, 20, 10) + course(0.8, 40, 40), 0),  # a wider spread is not a collapse
        (course(0.4, 20, 10) + course(0.1, 20, 40), 1),  # the spread has halved
        (course(0.4, 20, 10) + course(0.4, 5, 40), 1),  # the rank has halved
        (course(0.4, 20, 10) + course(0.0, 1, 40), 1),  # both have halved: one warning
        (course(0.4, 20, 1) + course(0.0, 1, 5), 1),  # in the first steps
        (course(0.4, 20, 1) + course(0.15, 20, 9), 0),  # two single batches: noise
        (course(0.0, 1, 9), 0),  # too few steps
        (course(0.4, 20, 10) + course(0.05, 20, 1) + course(0.4, 20, 30), 0),  # a single outlier
    ],
)
def test_a_collapse_is_reported_once_if_spread_or_rank_halves(
    metrics: list[tuple[float, float]], warnings: int
) -> None:
    monitor = CollapseMonitor()
    messages = [message for cosine, rank in metrics if (message := monitor.update(cosine, rank))]
    assert len(messages) == warnings
    assert all("collapsing" in message and "--learning-rate" in message for message in messages)
