import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msc_edge.train.distillation.losses import (
    embedding_loss,
    map_loss,
    similarity_loss,
    spread_of_embeddings,
    spread_of_map,
    spread_of_similarities,
)


def units(seed: int, rows: int = 7, dim: int = 5) -> Tensor:
    drawn = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(drawn, dim=1)


def maps(seed: int) -> Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_embedding_loss_is_two_minus_twice_the_cosine_divided_by_the_spread() -> None:
    student, teacher = units(0), units(1)
    expected = sum(
        2 - 2 * math.fsum(a * b for a, b in zip(one, other, strict=True))
        for one, other in zip(student.tolist(), teacher.tolist(), strict=True)
    )
    assert float(embedding_loss(student, teacher, spread=0.3)) == pytest.approx(expected / 7 / 0.3)


def test_the_similarity_loss_equals_a_loop_over_the_pairs() -> None:
    student, teacher = units(0, dim=5), units(1, dim=9)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    expected = sum(float(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i, j in pairs) / len(pairs)
    assert float(similarity_loss(student, teacher, spread=0.2)) == pytest.approx(expected / 0.2)


def test_the_loss_of_the_teacher_is_zero() -> None:
    same = units(2)
    assert float(embedding_loss(same, same, spread=1)) == 0
    assert float(similarity_loss(same, same, spread=1)) == 0
    assert float(map_loss(maps(0), maps(0), spread=1)) == 0


def test_the_loss_of_a_constant_output_is_one() -> None:
    teacher = units(3)
    mean = teacher.mean(dim=0).expand_as(teacher)
    assert float(embedding_loss(mean, teacher, spread=spread_of_embeddings(teacher))) == pytest.approx(1)

    cosines = (teacher @ teacher.T)[~torch.eye(7, dtype=torch.bool)]
    level = float(cosines.mean())
    # Seven vectors whose cosines all equal `level`: their Gram matrix has ones on the diagonal, else `level`.
    gram = torch.full((7, 7), level, dtype=torch.float64).fill_diagonal_(1)
    constant = torch.linalg.cholesky(gram)
    assert float(similarity_loss(constant, teacher, spread=spread_of_similarities(teacher))) == pytest.approx(1)

    features = maps(1)
    channel_means = features.mean(dim=(0, 2, 3), keepdim=True).expand_as(features)
    assert float(map_loss(channel_means, features, spread=spread_of_map(features))) == pytest.approx(1)


def test_the_similarity_loss_is_invariant_to_a_rotation_and_the_embedding_loss_is_not() -> None:
    teacher = units(4)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    assert float(similarity_loss(teacher @ rotation, teacher, spread=1)) == pytest.approx(0, abs=1e-24)
    assert float(embedding_loss(teacher @ rotation, teacher, spread=1)) > 0.1


def test_the_loss_of_a_batch_is_the_mean_over_its_halves() -> None:
    student, teacher = units(6, rows=8), units(7, rows=8)
    halves = [embedding_loss(student[part], teacher[part], spread=0.5) for part in (slice(0, 4), slice(4, 8))]
    assert float(embedding_loss(student, teacher, spread=0.5)) == pytest.approx(float(sum(halves)) / 2)
