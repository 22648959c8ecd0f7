"""The scale of patch distances by place: a normal patch at a border is not farther from the bank than one inside.

At a border the network sees only a part of the surroundings of a patch, and padding instead of the rest. Where patches
of normal images differ more there than inside, most normal images have the largest value of their map at a border, and
the borders alone set the limit for the whole image (docs/decisions.md, "Borders of maps").
"""

import torch
from torch import Tensor

from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.grid import PatchGrid
from msc_edge.train.patches.head import distances_to

_PATCHES = 1 << 16  # in memory: 67 MB of 256 float32 each, or the patches of 334 images of 224 pixels
_QUANTILE = 0.95  # of the distances at a place; the mean would not say how far the rare ones are
_INSIDE = 4


class PlaceScale:
    """Collects patch embeddings of normal images in bounded memory and computes the scale of each place.

    There are nine places: four corners and four borders, one patch wide, and the inside. Half of the images are
    compared with a bank of the other half and vice versa, and the scale lowers the 95 % quantile of the distances to
    that of the inside. It raises none: in the quiet border of a plain background it would amplify noise. Images held
    out for the limits take no part, so limits stay valid however few there are.
    """

    def __init__(self, grid: PatchGrid, *, rows: int) -> None:
        """`rows` of the banks."""
        self._grid, self._rows = grid, rows
        self._images: list[Tensor] = []
        self._seen, self._every = 0, 1

    def add(self, embedded: Tensor) -> None:
        """Add stitched patch embeddings, float32 (B, rows, columns, dim). Of many images every n-th is kept."""
        for image in embedded:
            if self._seen % self._every == 0:
                self._images.append(image.clone())  # a view would keep the whole batch in memory
            self._seen += 1
            if len(self._images) * image[..., 0].numel() > _PATCHES:
                self._images, self._every = self._images[::2], 2 * self._every

    def fit(self) -> Tensor:
        """The scale of each patch, in (0, 1], float32 (rows, columns); 1 everywhere if there is only one image."""
        # Neighbours in the list may show the same part, so each half is a block.
        middle = len(self._images) // 2
        halves = self._images[:middle], self._images[middle:]
        rows, columns, _ = self._images[0].shape
        at = places(rows, columns).to(self._images[0].device)
        scale = torch.ones_like(at, dtype=torch.float32)
        if not middle:
            return scale
        distances = torch.cat([self._compared(*halves), self._compared(*halves[::-1])])
        at_patches = self._grid.kept_of(at[None, ..., None])[:, 0]
        levels = {int(place): _quantile(distances[:, at_patches == place]) for place in at_patches.unique()}
        inside = levels.get(_INSIDE, 0.0)
        for place, level in levels.items():
            if 0 < inside < level:
                scale[at == place] = inside / level
        return scale

    def _compared(self, images: list[Tensor], others: list[Tensor]) -> Tensor:
        """Distances of the patches of `images` to a bank of `others`, (images, patches that are not ignored)."""
        coreset = Coreset(self._rows)
        for image in others:
            coreset.add(self._grid.kept_of(image[None]))
        bank = coreset.select()
        return torch.stack([distances_to(bank, self._grid.kept_of(image[None])) for image in images])


def places(rows: int, columns: int) -> Tensor:
    """The place of each patch, int64 (rows, columns): 0 to 8, row by row from the upper left corner; 4 is inside."""
    down, across = (torch.tensor([0, *[1] * (count - 2), 2])[:count] for count in (rows, columns))
    return 3 * down[:, None] + across


def _quantile(distances: Tensor) -> float:
    """Of all values. `torch.quantile` refuses more than 16 million."""
    values = distances.flatten()
    return float(values.kthvalue(max(1, round(_QUANTILE * values.numel())))[0])
