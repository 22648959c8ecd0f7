"""The network of `model.onnx` behind preprocessing: one pass gives the embedding and the patch distances."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.taps import TappedBackbone


class PatchNetwork(nn.Module):
    """Backbone and patch head.

    Normalised images (B, 3, h, w) -> unit embeddings (B, dim), and patch distances (B, rows, columns).
    """

    def __init__(self, backbone: nn.Module, head: PatchHead) -> None:
        """`backbone` is copied: the taps of the head hook into it."""
        super().__init__()
        self.tapped = TappedBackbone(copy.deepcopy(backbone), head.taps)
        self.head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both outputs."""
        features, maps = self.tapped(images)
        return F.normalize(features, dim=1), self.head(maps)
