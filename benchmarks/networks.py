"""Embedding networks with pretrained weights, for the benchmarks that compute with torch."""

from pathlib import Path

from msc_edge.preprocessing import Preprocessing, preset
from msc_edge.train.backbones import build_backbone
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.weights import load_into, pretrained_weights


def pretrained_network(
    backbone: str, weights: Path | None, *, stop_at: str | None = None, preprocessing: Preprocessing | None = None
) -> EmbeddingNetwork:
    """A network in eval mode; without `preprocessing` for the whole frame at 224 x 224.

    `weights` is a safetensors file. Without it: the bundled weights of edge-small, torchvision's of other backbones.
    """
    built = build_backbone(backbone, stop_at=stop_at)
    pretrained = pretrained_weights(backbone, weights)
    load_into(built, pretrained.state, source=pretrained.origin.source)
    return EmbeddingNetwork(built, preprocessing or preset("whole-frame", image_size=224)).eval()
