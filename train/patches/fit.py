"""Fit a patch head on the normal images of the memory bank, and compute patch distances and scores."""

from collections.abc import Callable, Iterable, Iterator

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
from msc_edge.train.patches.taps import TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of

ROWS = 4000
DIM = 256

MAP_SETTINGS = MapSettings(smoothing=0.5, least_area=16)

Images = Iterable[tuple[str, np.ndarray]]
"""Pairs of name and decoded image, uint8 (height, width, 3)."""


@torch.no_grad()
def fit_patch_head(network: EmbeddingNetwork, images: Callable[[], Images], *, rows: int = ROWS) -> PatchHead:
    """Fit whitening and patch bank of `rows` rows on normal images, for the network's current weights.

    `images` is called twice, for the whitening and for the bank, and must yield the same images each time: neither
    images nor patches are kept. Memory holds a batch of images and at most 268 MB of patch embeddings. Equal images
    give an equal head. Raises UsageError if the backbone has no suitable feature maps, SourceError if all patches are
    equal.
    """
    taps = find_taps(network.backbone)
    grid = PatchGrid(network.preprocess.spec, stride=taps[-1].stride).to(network.preprocess.mean.device)
    tapped = TappedBackbone(folded(network.backbone), taps, tiles=grid.tiles)

    def maps() -> Iterator[list[Tensor]]:
        return (tapped(pixels)[1] for pixels in network.batches(images(), tiles=True))

    with exact_matrix_products():
        statistics = StreamingCovariance(sum(tap.channels for tap in taps), network.preprocess.mean.device)
        for each in maps():
            statistics.add(grid.patches(torch.cat(grids_of(each, taps), dim=3)))
        whitening = whitening_of(*statistics.moments(), DIM)
        embedding = PatchHead.of(
            taps, whitening, bank=torch.zeros(1, len(whitening.matrix), device=whitening.matrix.device)
        )
        coreset = Coreset(rows)
        for each in maps():
            coreset.add(grid.patches(embedding.embed(each)))
        return PatchHead.of(taps, whitening, coreset.select())


@torch.no_grad()
def outputs(network: EmbeddingNetwork, head: PatchHead, images: Images) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each image, in order, in one pass: the embedding, float32 (dim,), and patch distances, (rows, columns)."""
    both = PatchNetwork(folded(network.backbone), head, network.preprocess.spec).to(network.preprocess.mean.device)
    for pixels in network.batches(images, tiles=True):
        with exact_matrix_products():
            embeddings, distances = both(pixels)
        yield from zip(embeddings.cpu().numpy(), distances.cpu().numpy(), strict=True)


def patch_scores(network: EmbeddingNetwork, head: PatchHead, images: Images, settings: MapSettings) -> np.ndarray:
    """The patch score of each image, float64 (n,): the largest value of its anomaly map."""
    found = outputs(network, head, images)
    return np.array([patch_score(distances, smoothing=settings.smoothing) for _, distances in found])
