import numpy as np
import pytest
import torch
import torch.nn.functional as F

from msc_edge.train.patches.head import PatchHead, grids_of
from msc_edge.train.patches.substitutes import PatchRows, Substitutes
from msc_edge.train.patches.taps import Tap
from msc_edge.train.patches.whitening import Whitening

TAPS = (Tap("fine", 8, 5), Tap("coarse", 16, 7))


def maps(batch: int = 2, side: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = (-(-side * 8 // tap.stride) for tap in TAPS)
    return [torch.randn(batch, tap.channels, n, n, generator=generator) for tap, n in zip(TAPS, sides, strict=True)]


def whitening(dim: int = 4) -> Whitening:
    generator = torch.Generator().manual_seed(1)
    return Whitening(torch.randn(dim, 12, generator=generator), torch.randn(12, generator=generator))


def head_of(bank: torch.Tensor, whitened: Whitening | None = None) -> PatchHead:
    """A head whose rows are patches of the groups 0, 1, ..."""
    return PatchHead.of(TAPS, whitened or whitening(), PatchRows(bank, torch.arange(len(bank))))


@pytest.mark.parametrize("side", [8, 7])
def test_projecting_each_tap_equals_projecting_the_whole_patch(side: int) -> None:
    head = head_of(torch.zeros(1, 4))
    patches = torch.cat(grids_of(maps(side=side), TAPS), dim=3)
    expected = (patches - whitening().mean) @ whitening().matrix.T
    assert torch.allclose(head.embed(maps(side=side)), expected, atol=1e-6)


def test_distances_are_those_to_the_nearest_row() -> None:
    bank = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    head = head_of(bank)
    distances = head(maps())
    patches = head.embed(maps()).double().numpy()
    assert distances.shape == (2, 3, 3)
    for index in np.ndindex(2, 3, 3):
        nearest = min(np.linalg.norm(patches[index] - row) for row in bank.double().numpy())
        assert float(distances[index]) == pytest.approx(nearest, abs=1e-5)


def test_a_patch_of_the_bank_has_the_smallest_distance() -> None:
    embedded = head_of(torch.zeros(1, 4)).embed(maps())
    head = head_of(embedded[1, 2, 1][None])
    assert float(head(maps())[1, 2, 1]) == pytest.approx(0.0173 * float(embedded[1, 2, 1].norm()), rel=0.1)


def test_a_patch_is_the_mean_around_it_in_each_tap_at_unit_length() -> None:
    fine, coarse = maps()
    fine_grid, coarse_grid = grids_of([fine, coarse], TAPS)
    assert fine_grid.shape[:3] == coarse_grid.shape[:3] == (2, 3, 3)
    # The first row and column lie in the margin. Position (i, j) of the coarse map is (2 i, 2 j) of the fine one.
    assert torch.allclose(fine_grid[0, 0, 1], F.normalize(fine[0, :, 1:4, 3:6].mean(dim=(1, 2)), dim=0), atol=1e-6)
    # In the coarse map the patch itself has half of the weight.
    around = coarse[0, :, :3, 1:].mean(dim=(1, 2)) + coarse[0, :, 1, 2]
    assert torch.allclose(coarse_grid[0, 0, 1], F.normalize(around, dim=0), atol=1e-6)
    # The border has fewer neighbours, not zeros.
    around = coarse[0, :, 2:, 2:].mean(dim=(1, 2)) + coarse[0, :, 3, 3]
    assert torch.allclose(coarse_grid[0, 2, 2], F.normalize(around, dim=0), atol=1e-6)


def test_the_order_of_a_sum_changes_no_distance_noticeably() -> None:
    """Or torch and the runtime would disagree on patches that are in the bank, or nearly so."""
    generator = torch.Generator().manual_seed(3)
    dim, channels = 256, [tap.channels for tap in TAPS]
    matrix = torch.randn(dim, sum(channels), generator=generator) / 16
    head = head_of(torch.zeros(1, dim), Whitening(matrix, torch.zeros(sum(channels))))
    patches = head.embed(maps()).flatten(0, 2)
    for apart in (0, 1e-4, 1e-3, 1e-2):
        bank = patches + apart * torch.randn(patches.shape, generator=generator) / 16
        order = torch.randperm(dim, generator=generator)
        distances = [
            head_of(bank[:, rows], Whitening(matrix[rows], torch.zeros(sum(channels))))(maps())
            for rows in (torch.arange(dim), order)
        ]
        assert float((distances[0] - distances[1]).abs().max()) < 5e-5 * float(patches.norm(dim=1).mean())


def test_an_empty_map_has_finite_distances() -> None:
    head = head_of(torch.zeros(1, 4))
    assert head([torch.zeros_like(each) for each in maps()]).isfinite().all()


def test_without_some_groups_the_bank_has_no_patches_of_them_but_substitutes() -> None:
    bank, groups = torch.randn(6, 4, generator=torch.Generator().manual_seed(4)), torch.tensor([0, 0, 1, 2, 2, 2])
    substitutes = Substitutes(torch.arange(16.0).reshape(4, 4), torch.tensor([2, 1, 1, 3]), torch.tensor([0, 0, 3, 2]))
    whole = PatchHead.of(TAPS, whitening(), PatchRows(bank, groups), substitutes)
    head = whole.without(torch.tensor([0, 2, 7]))
    assert torch.equal(head.bank, torch.cat([bank[2:3], substitutes.embeddings[[1, 3]]]))
    assert torch.equal(head.bank_groups, torch.tensor([1, 1, 3]))
    assert len(head.substitutes) == 0
    assert torch.equal(head.embed(maps()), head_of(bank).embed(maps()))
