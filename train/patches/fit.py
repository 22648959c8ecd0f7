"""Fit a patch head on the normal images of the memory bank, and compute patch distances and scores."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from msc_edge.anomaly_map import patch_score
from msc_edge.scoring import MapSettings
from msc_edge.train.folding import folded
from msc_edge.train.network import EmbeddingNetwork, exact_matrix_products
from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.grid import PatchGrid
from msc_edge.train.patches.head import PatchHead, grids_of
from msc_edge.train.patches.network import PatchNetwork
from msc_edge.train.patches.substitutes import NO_GROUP, PatchRows, SubstituteSearch
from msc_edge.train.patches.taps import TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of

ROWS = 4000
DIM = 256

MAP_SETTINGS = MapSettings(smoothing=0.5, least_area=16)

Images = Iterable[tuple[str, np.ndarray]]
"""Pairs of name and decoded image, uint8 (height, width, 3)."""


@torch.no_grad()
def fit_patch_head(
    network: EmbeddingNetwork,
    images: Callable[[], Images],
    *,
    rows: int = ROWS,
    groups: Sequence[int] | None = None,
) -> PatchHead:
    """Fit whitening and patch bank of `rows` rows on normal images, for the network's current weights.

    `groups`: of each image, if the images are to be held out in turn; `images` is then called a third time, for the
    substitutes of the rows. Otherwise it is called twice, for the whitening and for the bank. It must yield the same
    images each time: neither images nor patches are kept. Memory holds a batch of images and at most 268 MB of patch
    embeddings. Equal images give an equal head. Raises UsageError if the backbone has no suitable feature maps,
    SourceError if all patches are equal.
    """
    taps = find_taps(network.backbone)
    grid = PatchGrid(network.preprocess.spec, stride=taps[-1].stride).to(network.preprocess.mean.device)
    tapped = TappedBackbone(folded(network.backbone), taps, tiles=grid.tiles)

    device = network.preprocess.mean.device

    def maps() -> Iterator[list[Tensor]]:
        return (tapped(pixels)[1] for pixels in network.batches(images(), tiles=True))

    with exact_matrix_products():
        statistics = StreamingCovariance(sum(tap.channels for tap in taps), device)
        for each in maps():
            statistics.add(grid.patches(torch.cat(grids_of(each, taps), dim=3)))
        whitening = whitening_of(*statistics.moments(), DIM)
        no_row = torch.zeros(1, len(whitening.matrix), device=device), torch.zeros(1, dtype=torch.int64, device=device)
        embedding = PatchHead.of(taps, whitening, PatchRows(*no_row))

        def patches() -> Iterator[PatchRows]:
            own = iter(itertools.repeat(NO_GROUP) if groups is None else groups)
            for each in maps():
                embedded = grid.patches(embedding.embed(each))
                in_batch = len(each[0]) // max(1, grid.tiles)
                numbers = torch.tensor(list(itertools.islice(own, in_batch)), device=device)
                yield PatchRows(embedded, numbers.repeat_interleave(len(embedded) // in_batch))

        coreset = Coreset(rows)
        for each in patches():
            coreset.add(each)
        bank = coreset.select()
        if groups is None or len(bank.groups) < rows:  # fewer rows are all patches: there are no substitutes
            return PatchHead.of(taps, whitening, bank)
        search = SubstituteSearch(bank)
        for each in patches():
            search.add(each)
        return PatchHead.of(taps, whitening, bank, search.found())


@torch.no_grad()
def outputs(network: EmbeddingNetwork, head: PatchHead, images: Images) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each image, in order, in one pass: the embedding, float32 (dim,), and patch distances, (rows, columns)."""
    both = PatchNetwork(folded(network.backbone), head, network.preprocess.spec).to(network.preprocess.mean.device)
    for pixels in network.batches(images, tiles=True):
        with exact_matrix_products():
            embeddings, distances, _ = both(pixels)
        yield from zip(embeddings.cpu().numpy(), distances.cpu().numpy(), strict=True)


@torch.no_grad()
def outputs_in_turn(
    network: EmbeddingNetwork, head: PatchHead, images: Images, groups: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of images that the head was fitted on, each without its own group in the bank; `groups`: of each."""
    both = PatchNetwork(folded(network.backbone), head, network.preprocess.spec).to(network.preprocess.mean.device)
    own = iter(groups)
    for pixels in network.batches(images, tiles=True):
        left_out = list(itertools.islice(own, len(pixels) // (1 + both.grid.tiles)))
        with exact_matrix_products():
            embeddings, distances = both.in_turn(pixels, left_out)
        yield from zip(embeddings.cpu().numpy(), distances.cpu().numpy(), strict=True)


def patch_scores(found: Iterable[tuple[np.ndarray, np.ndarray]], settings: MapSettings) -> np.ndarray:
    """The patch score of each image, float64 (n,): the largest value of its anomaly map. `found`: see `outputs`."""
    return np.array([patch_score(distances, smoothing=settings.smoothing) for _, distances in found])
