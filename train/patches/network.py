"""The network of `model.onnx` behind preprocessing: one pass gives all outputs."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.preprocessing import Preprocessing
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.patches.grid import PatchGrid
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.taps import TappedBackbone


class PatchNetwork(nn.Module):
    """Backbone and patch head.

    Normalised images (B, 3, h, w), with tiles each followed by its tiles -> unit embeddings (B, dim), patch distances
    (B, rows, columns), 0 where a patch is ignored, and whitened patch embeddings (B, rows, columns, patch dim).
    """

    def __init__(self, backbone: Backbone, head: PatchHead, spec: Preprocessing) -> None:
        """`backbone` is copied: the taps of the head hook into it."""
        super().__init__()
        self.grid = PatchGrid(spec, stride=head.taps[-1].stride)
        self.tapped = TappedBackbone(copy.deepcopy(backbone), head.taps, tiles=self.grid.tiles)
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute all outputs."""
        features, maps = self.tapped(images)
        patches = self.grid.stitched(self.head.embed(maps))
        return F.normalize(features, dim=1), self._distances(self.head, patches), patches

    def in_turn(self, images: Tensor, left_out: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The first two, where each image is compared with a patch bank without one group; `left_out`: of each."""
        features, maps = self.tapped(images)
        each = zip(left_out, self.grid.stitched(self.head.embed(maps)).split(1), strict=True)
        distances = [self._distances(self.head.without(torch.tensor([group])), patches) for group, patches in each]
        return F.normalize(features, dim=1), torch.cat(distances)

    def _distances(self, head: PatchHead, patches: Tensor) -> Tensor:
        return self.grid.masked(head.distances(patches))
