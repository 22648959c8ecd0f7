"""The network of `model.onnx` behind preprocessing: one pass gives the embedding and the patch distances."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.preprocessing import Preprocessing
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.patches.grid import PatchGrid
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.taps import TappedBackbone


class PatchNetwork(nn.Module):
    """Backbone and patch head.

    Normalised images (B, 3, h, w), with tiles each followed by its tiles -> unit embeddings (B, dim), and patch
    distances (B, rows, columns), 0 where a patch is ignored.
    """

    def __init__(self, backbone: Backbone, head: PatchHead, spec: Preprocessing) -> None:
        """`backbone` is copied: the taps of the head hook into it."""
        super().__init__()
        self.grid = PatchGrid(spec, stride=head.taps[-1].stride)
        self.tapped = TappedBackbone(copy.deepcopy(backbone), head.taps, tiles=self.grid.tiles)
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both outputs."""
        features, maps = self.tapped(images)
        return F.normalize(features, dim=1), self.grid.masked(self.grid.stitched(self.head(maps)))
