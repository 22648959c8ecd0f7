"""The losses of distillation: for the teacher's embeddings, or their similarities, and for its feature maps.

Each loss is divided by the teacher's own spread: 1 is the loss of a constant output, 0 that of the teacher, and the sum
of several needs no weights. A spread is measured once, on the held-out images, and stays constant, so that the loss of
a batch is a mean over its images, in any division among devices.
"""

import torch
from torch import Tensor


def spread_of_embeddings(embeddings: Tensor) -> float:
    """Mean squared distance of unit embeddings (n, dim) from their mean."""
    return float((embeddings - embeddings.mean(dim=0)).square().sum(dim=1).mean())


def embedding_loss(student: Tensor, teacher: Tensor, *, spread: float) -> Tensor:
    """Mean squared distance of unit embeddings (B, dim), divided by `spread`: 2 (1 - cos) / spread."""
    return (student - teacher).square().sum(dim=1).mean() / spread


def spread_of_similarities(embeddings: Tensor) -> float:
    """Variance of the cosines between different unit embeddings (n, dim)."""
    return float(_off_diagonal(embeddings @ embeddings.T).var(correction=0))


def similarity_loss(student: Tensor, teacher: Tensor, *, spread: float) -> Tensor:
    """Mean squared difference of the cosines within a batch, divided by `spread`; for different dimensions.

    Similarity-preserving distillation (Tung & Mori, arXiv 1907.09682), here with cosines.
    """
    return (_off_diagonal(student @ student.T) - _off_diagonal(teacher @ teacher.T)).square().mean() / spread


def spread_of_map(features: Tensor) -> float:
    """Variance of a feature map (n, channels, h, w) within its channels, averaged over the channels."""
    return float(features.var(dim=(0, 2, 3), correction=0).mean())


def map_loss(student: Tensor, teacher: Tensor, *, spread: float) -> Tensor:
    """Mean squared difference of feature maps (B, channels, h, w), divided by `spread` (FitNets, arXiv 1412.6550)."""
    return (student - teacher).square().mean() / spread


def _off_diagonal(square: Tensor) -> Tensor:
    return square[~torch.eye(len(square), dtype=torch.bool, device=square.device)]
