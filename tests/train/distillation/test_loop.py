import math

import pytest
import torch
import torch.nn.functional as F

from msc_edge.train.distillation.loop import rank_correlation


def test_a_monotonic_change_of_the_cosines_has_rank_correlation_one() -> None:
    angles = torch.tensor([0.0, 0.11, 0.29, 0.62, 1.3], dtype=torch.float64)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    wider = torch.stack([(2 * angles).cos(), (2 * angles).sin()], dim=1)
    assert rank_correlation(rows, wider) == pytest.approx(1)


def test_unrelated_embeddings_have_a_small_rank_correlation() -> None:
    rows = F.normalize(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    assert abs(rank_correlation(rows, rows.roll(1, 0))) < 0.5


def test_equal_embeddings_have_no_rank_correlation() -> None:
    equal = torch.ones(5, 1)
    assert math.isnan(rank_correlation(equal, equal))


def test_equal_cosines_get_their_mean_rank() -> None:
    # Two groups in one network, and one image apart in the other: most cosines are equal.
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    one, other = torch.stack([east, east, north, north]), torch.stack([east, north, north, north])
    assert rank_correlation(one, other) == pytest.approx(0)
