import numpy as np
import pytest
import torch

from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.substitutes import PatchRows, Substitutes, SubstituteSearch, separation_of

ROUNDING = 1e-3


def drawn(images: int, patches: int, random: np.random.Generator, *, dim: int = 6) -> PatchRows:
    """Patches of images: each image has a kind of its own, as parts have, and each patch differs from it."""
    own = 0.5 * random.normal(size=(images, 1, dim)) + random.normal(size=(images, patches, dim))
    numbers = np.repeat(np.arange(images), patches)
    return PatchRows(torch.from_numpy(own.reshape(-1, dim).astype(np.float32)), torch.from_numpy(numbers))


def coreset_of(patches: PatchRows, rows: int) -> PatchRows:
    coreset = Coreset(rows)
    coreset.add(patches)
    return coreset.select()


def substitutes_of(rows: PatchRows, patches: PatchRows, *, pieces: int = 97) -> Substitutes:
    search = SubstituteSearch(rows)
    for part in zip(*(each.split(pieces) for each in patches), strict=True):
        search.add(PatchRows(*part))
    return search.found()


def nearest(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.cdist(points.double(), rows.double()).amin(dim=1)


@pytest.fixture(scope="module")
def patches() -> PatchRows:
    return drawn(20, 30, np.random.default_rng(0))


@pytest.fixture(scope="module")
def rows(patches: PatchRows) -> PatchRows:
    return coreset_of(patches, 80)


@pytest.mark.parametrize("pieces", [1, 30, 600])
def test_without_any_group_every_other_patch_has_a_row_near_it(
    patches: PatchRows, rows: PatchRows, pieces: int
) -> None:
    found, separation = substitutes_of(rows, patches, pieces=pieces), separation_of(rows.embeddings)
    for group in range(20):
        others = patches.embeddings[patches.groups != group]
        kept = rows.embeddings[rows.groups != group]
        added = found.embeddings[found.replaced == group]
        assert nearest(others, torch.cat([kept, added])).max() <= separation + ROUNDING


def test_no_substitute_is_near_a_row_or_another_one(patches: PatchRows, rows: PatchRows) -> None:
    """As k-center greedy chooses: only what is not covered."""
    found, separation = substitutes_of(rows, patches), separation_of(rows.embeddings)
    assert len(found.groups) > 20
    for group in range(20):
        kept, added = rows.embeddings[rows.groups != group], found.embeddings[found.replaced == group]
        for place, own in enumerate(added):
            others = torch.cat([kept, added[:place], added[place + 1 :]])
            assert nearest(own[None], others) > separation - ROUNDING


def test_a_substitute_is_a_patch_of_another_group(patches: PatchRows, rows: PatchRows) -> None:
    found = substitutes_of(rows, patches)
    assert not (found.groups == found.replaced).any()
    for embedding, group in zip(found.embeddings, found.groups, strict=True):
        assert (patches.embeddings[patches.groups == group] == embedding).all(dim=1).any()


def test_one_group_has_no_substitutes(patches: PatchRows) -> None:
    alone = PatchRows(patches.embeddings, torch.zeros_like(patches.groups))
    assert len(substitutes_of(coreset_of(alone, 50), alone).groups) == 0


def test_a_bank_of_one_row_is_not_empty_without_its_group(patches: PatchRows) -> None:
    only = coreset_of(patches, 1)
    found = substitutes_of(only, patches)
    assert found.replaced.tolist() == only.groups.tolist()
    assert found.groups.tolist() != only.groups.tolist()


def test_the_separation_is_the_least_distance_between_rows() -> None:
    points = torch.from_numpy(np.random.default_rng(0).uniform(size=(9000, 16)).astype(np.float32))
    points[8500] = points[100] + 0.01
    assert separation_of(points) == pytest.approx(0.04, abs=ROUNDING)
    few = points[:50].double()
    distances = (few[:, None] - few).square().sum(dim=2).sqrt() + 100 * torch.eye(50)
    assert separation_of(points[:50]) == pytest.approx(float(distances.min()), abs=ROUNDING)
    assert separation_of(points[:1]) == np.inf


def test_images_held_out_in_turn_score_as_new_images_do() -> None:
    """The share of new images above the median of the calibration images, in the mean of 12 draws."""
    random = np.random.default_rng(1)
    shares = []
    for _ in range(12):
        patches = drawn(60, 40, random)
        rows = coreset_of(patches, 240)
        found = substitutes_of(rows, patches, pieces=40)
        new = drawn(100, 40, random).embeddings.unflatten(0, (100, 40))
        scores = torch.stack([nearest(each, rows.embeddings).max() for each in new])
        kept = [rows.embeddings[rows.groups != group] for group in range(60)]
        replaced = [torch.cat([own, found.embeddings[found.replaced == group]]) for group, own in enumerate(kept)]
        of_calibration = patches.embeddings.unflatten(0, (60, 40))
        for banks in (replaced, kept):
            pairs = zip(of_calibration, banks, strict=True)
            median = torch.stack([nearest(own, bank).max() for own, bank in pairs]).median()
            shares.append(float((scores > median).double().mean()))
    with_substitutes, without = np.mean(shares[::2]), np.mean(shares[1::2])
    assert without < 0.3, "the limits would be far too high"
    assert 0.33 < with_substitutes < 0.5, "near to what is stated, and on the side of too few alarms"
