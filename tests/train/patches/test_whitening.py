import numpy as np
import pytest
import torch

from msc_edge.errors import SourceError
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of


def patches(count: int = 4000, channels: int = 6) -> torch.Tensor:
    """Correlated patches with a mean that is large beside their variation."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(channels, channels)) * np.array([3, 2, 1, 0.5, 0.2, 0.1])
    return torch.from_numpy((1000 + rng.normal(size=(count, channels)) @ mixing.T).astype(np.float32))


def moments_of(rows: torch.Tensor, piece: int) -> tuple[torch.Tensor, torch.Tensor]:
    statistics = StreamingCovariance(rows.shape[1], torch.device("cpu"))
    for part in rows.split(piece):
        statistics.add(part)
    return statistics.moments()


@pytest.mark.parametrize("piece", [1, 333, 4000])
def test_moments_of_pieces_are_those_of_all_patches(piece: int) -> None:
    rows = patches()
    mean, covariance = moments_of(rows, piece)
    exact = rows.double().numpy()
    assert mean.numpy() == pytest.approx(exact.mean(axis=0), rel=1e-9)
    assert covariance.numpy() == pytest.approx(np.cov(exact.T, bias=True), rel=1e-5, abs=1e-5)


def test_whitened_patches_have_equal_uncorrelated_variance() -> None:
    rows = patches()
    whitening = whitening_of(*moments_of(rows, 500), 6, shrinkage=0)
    whitened = (rows.double() - whitening.mean.double()) @ whitening.matrix.double().T
    # 1 / dim for each of dim directions: a squared norm of 1 on average.
    assert np.cov(whitened.numpy().T, bias=True) == pytest.approx(np.eye(6) / 6, abs=1e-3)
    assert whitened.mean(dim=0).numpy() == pytest.approx(np.zeros(6), abs=1e-3)


def test_the_directions_of_largest_variance_are_kept() -> None:
    rows = patches()
    mean, covariance = moments_of(rows, 500)
    values, vectors = np.linalg.eigh(covariance.numpy())
    matrix = whitening_of(mean, covariance, 2, shrinkage=0).matrix.double().numpy()
    for row, (value, vector) in zip(matrix, [(values[-1], vectors[:, -1]), (values[-2], vectors[:, -2])], strict=True):
        assert abs(row @ vector) == pytest.approx(1 / np.sqrt(2 * value), rel=1e-4)


def test_shrinkage_bounds_the_directions_without_variance() -> None:
    flat = patches().clone()
    flat[:, 0] = 1000.0
    whitening = whitening_of(*moments_of(flat, 500), 6)
    assert whitening.matrix.isfinite().all()
    level = float(torch.linalg.eigvalsh(moments_of(flat, 500)[1]).mean())
    assert float(whitening.matrix.norm(dim=1).max()) <= 1.001 / np.sqrt(6 * 0.01 * level)


def test_equal_patches_are_an_error() -> None:
    with pytest.raises(SourceError, match="all patches of the normal images are equal"):
        whitening_of(*moments_of(torch.ones(100, 4), 10), 4)
