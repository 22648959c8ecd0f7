from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest
import torch

from msc_edge.anomaly_map import smoothed
from msc_edge.errors import SourceError
from msc_edge.preprocessing import preset
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import MAP_SETTINGS, fit_patch_head, outputs, outputs_in_turn, patch_scores
from msc_edge.train.patches.head import PatchHead, state_of_bank
from msc_edge.train.patches.network import PatchNetwork
from msc_edge.train.patches.substitutes import PatchRows, Substitutes
from msc_edge.train.weights import pretrained_backbone

GROUPS = tuple(range(6))


@pytest.fixture(scope="module")
def network() -> EmbeddingNetwork:
    """Not to be changed."""
    backbone, _ = pretrained_backbone("edge-small", None, stop_at=None)
    return EmbeddingNetwork(backbone, preset("whole-frame", image_size=96, margin=8)).eval()


def images(count: int = 6) -> Iterator[tuple[str, np.ndarray]]:
    """Noise on two shades, as a texture with two kinds of patches."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.normal(100, 20, (96, 96, 3))
        image[:, 48:] += 60
        yield f"{number}.png", image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def head(network: EmbeddingNetwork) -> PatchHead:
    return fit_patch_head(network, images, rows=40, groups=GROUPS)


@torch.no_grad()
def test_whitened_patches_of_the_normal_images_have_unit_variance(network: EmbeddingNetwork, head: PatchHead) -> None:
    pixels = torch.cat([network.prepare(each) for _, each in images()])
    maps = PatchNetwork(network.backbone, head, network.preprocess.spec).tapped(pixels)[1]
    patches = head.embed(maps).flatten(0, 2)
    assert patches.shape[1] == min(256, sum(tap.channels for tap in head.taps))
    assert patches.mean(dim=0).abs().max() < 0.01
    # A squared norm of 1, less what shrinkage takes from the small directions.
    assert 0.5 < float(patches.square().sum(dim=1).mean()) < 1.001


def test_a_patch_unlike_all_others_is_the_most_distant(network: EmbeddingNetwork, head: PatchHead) -> None:
    _, image = next(images())
    defective = image.copy()
    defective[60:80, 10:30] = (250, 0, 0)
    normal, changed = (distances for _, distances in outputs(network, head, [("a", image), ("b", defective)]))
    assert normal.shape == changed.shape == (6, 6)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert (abs(16 * row + 8 - 70) <= 16, abs(16 * column + 8 - 20) <= 16) == (True, True)
    assert changed.max() > 1.5 * normal.max()


@pytest.mark.parametrize("row", [0, 40, 84])
@pytest.mark.parametrize("column", [0, 40, 84])
def test_a_defect_is_found_where_it_is_at_every_border(
    network: EmbeddingNetwork, head: PatchHead, row: int, column: int
) -> None:
    _, image = next(images())
    defective = image.copy()
    defective[row : row + 12, column : column + 12] = (250, 0, 0)
    normal, changed = (distances for _, distances in outputs(network, head, [("a", image), ("b", defective)]))
    found = np.unravel_index((changed - normal).argmax(), changed.shape)
    assert np.abs(16 * np.array(found) + 8 - (row + 6, column + 6)).max() <= 24  # the 3x3 mean blurs
    assert changed.max() > 1.3 * normal.max()


def test_scores_are_the_largest_values_of_the_maps(network: EmbeddingNetwork, head: PatchHead) -> None:
    distances = [each for _, each in outputs(network, head, images(3))]
    expected = [smoothed(each, smoothing=MAP_SETTINGS.smoothing).max() for each in distances]
    assert patch_scores(outputs(network, head, images(3)), MAP_SETTINGS) == pytest.approx(expected)


def test_each_row_of_the_bank_is_a_patch_of_its_image(network: EmbeddingNetwork, head: PatchHead) -> None:
    for number, image in enumerate(images()):
        rows = PatchRows(*(each[head.bank_groups == number] for each in (head.bank, head.bank_groups)))
        own = PatchHead(head.taps, dim=head.bank.shape[1], rows=len(rows.groups))
        own.load_state_dict(head.state_dict() | state_of_bank(rows, Substitutes.none_of(rows)))
        ((_, distances),) = outputs(network, own.eval(), [image])
        assert (distances < 0.05 * np.median(distances)).sum() >= len(own.bank) > 0


def test_held_out_in_turn_an_image_is_compared_with_the_images_of_other_groups(
    network: EmbeddingNetwork,
) -> None:
    head = fit_patch_head(network, images, rows=40, groups=(groups := [4, 0, 4, 1, 1, 2]))
    assert len(head.substitutes) > 0
    found = list(outputs_in_turn(network, head, images(), groups))
    for image, group, (embedding, distances) in zip(images(), groups, found, strict=True):
        ((expected, patches),) = outputs(network, head.without(torch.tensor([group])), [image])
        assert embedding == pytest.approx(expected, abs=1e-6)
        assert distances == pytest.approx(patches, abs=1e-4)
    last = list(images())[4:]
    some = outputs_in_turn(network, head, last, groups[4:])
    assert all((own[1] == pytest.approx(each[1], abs=1e-4)) for own, each in zip(some, found[4:], strict=True))
    with_itself = [distances for _, distances in outputs(network, head, images())]
    assert all(own.mean() > patches.mean() for (_, own), patches in zip(found, with_itself, strict=True))


def test_the_same_images_give_the_same_head(network: EmbeddingNetwork, head: PatchHead) -> None:
    again = fit_patch_head(network, images, rows=40, groups=GROUPS).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in head.state_dict().items())


@pytest.mark.usefixtures("head")
def test_fitting_leaves_the_network_as_it_was(network: EmbeddingNetwork) -> None:
    assert not any(module._forward_hooks for module in network.modules())


def test_images_without_any_variation_are_refused(network: EmbeddingNetwork) -> None:
    flat = np.full((96, 96, 3), 90, np.uint8)
    network = deepcopy(network)
    with torch.no_grad():
        for module in network.backbone.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.zero_()
    with pytest.raises(SourceError, match="all patches of the normal images are equal"):
        fit_patch_head(network, lambda: iter([("a", flat), ("b", flat)]), rows=4)
