import numpy as np
import pytest
import torch
import torch.nn.functional as F

from msc_edge.train.patches.head import PatchHead, enlarged, pooled, stacked
from msc_edge.train.patches.taps import Tap
from msc_edge.train.patches.whitening import Whitening

TAPS = (Tap("fine", 8, 5), Tap("coarse", 16, 7))


def maps(batch: int = 2, side: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, tap.channels, *2 * [-(-side * 8 // tap.stride)], generator=generator) for tap in TAPS]


def whitening(dim: int = 4) -> Whitening:
    generator = torch.Generator().manual_seed(1)
    return Whitening(torch.randn(dim, 12, generator=generator), torch.randn(dim, generator=generator))


@pytest.mark.parametrize("side", [6, 5])
def test_projecting_each_tap_first_equals_projecting_the_stacked_patches(side: int) -> None:
    head = PatchHead.of(TAPS, whitening(), torch.zeros(1, 4))
    expected = stacked(maps(side=side), TAPS) @ whitening().matrix.T + whitening().bias
    assert torch.allclose(head.embed(maps(side=side)).flatten(0, 2), expected, atol=1e-6)


def test_distances_are_those_to_the_nearest_row() -> None:
    bank = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    head = PatchHead.of(TAPS, whitening(), bank)
    distances = head(maps())
    patches = head.embed(maps()).double().numpy()
    assert distances.shape == (2, 6, 6)
    for index in np.ndindex(2, 6, 6):
        nearest = min(np.linalg.norm(patches[index] - row) for row in bank.double().numpy())
        assert float(distances[index]) == pytest.approx(nearest, abs=1e-5)


def test_a_patch_of_the_bank_has_distance_zero() -> None:
    embedded = PatchHead.of(TAPS, whitening(), torch.zeros(1, 4)).embed(maps())
    head = PatchHead.of(TAPS, whitening(), embedded[1, 2, 3][None])
    assert float(head(maps())[1, 2, 3]) == pytest.approx(0, abs=2e-3)


def test_pooled_is_the_mean_of_the_neighbours_at_unit_length() -> None:
    feature_map = maps()[0]
    inner = feature_map[0, :, 1:4, 2:5].mean(dim=(1, 2))
    corner = feature_map[0, :, :2, :2].mean(dim=(1, 2))  # the border has fewer neighbours, not zeros
    result = pooled(feature_map)
    assert torch.allclose(result[0, 2, 3], F.normalize(inner, dim=0), atol=1e-6)
    assert torch.allclose(result[0, 0, 0], F.normalize(corner, dim=0), atol=1e-6)


def test_an_empty_map_has_finite_distances() -> None:
    head = PatchHead.of(TAPS, whitening(), torch.zeros(1, 4))
    assert head([torch.zeros_like(each) for each in maps()]).isfinite().all()


def test_a_linear_ramp_stays_linear_when_enlarged() -> None:
    # Position i of the coarse map lies at position 2 i of the fine one.
    ramp = torch.arange(5.0)[None, :, None, None].expand(1, 5, 5, 1)
    large = enlarged(ramp, 2, (9, 9))
    assert torch.equal(large[0, :, 0, 0], torch.arange(9.0) / 2)
