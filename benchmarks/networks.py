"""Embedding networks with pretrained weights, for the benchmarks that compute with torch."""

from pathlib import Path

from msc_edge.preprocessing import Preprocessing, preset
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.weights import pretrained_backbone


def pretrained_network(
    backbone: str,
    weights: Path | None,
    *,
    stop_at: str | None = None,
    preprocessing: Preprocessing | None = None,
    margin: int = 0,
) -> EmbeddingNetwork:
    """A network in eval mode; without `preprocessing` for the whole frame at 224 x 224, with a margin for patches.

    `weights` is a safetensors file. Without it: the default weights of the backbone.
    """
    built, _ = pretrained_backbone(backbone, weights, stop_at=stop_at)
    mean, std = built.architecture.mean, built.architecture.std
    spec = preprocessing or preset("whole-frame", image_size=224, margin=margin, mean=mean, std=std)
    return EmbeddingNetwork(built, spec).eval()
