"""The mean-shifted contrastive loss (Reiss & Hoshen, arXiv 2106.03844, section 4.1).

Plain contrastive fine-tuning spreads embeddings over the sphere around the origin, and so away from the tight
cluster that a pretrained network gives the normal images: it destroys what made them separable. Measured around
the cluster's own centre c, the same loss spreads the *directions from c* and leaves the cluster together.
"""

import torch.nn.functional as F
from torch import Tensor

from msc_edge.train.losses.contrastive import contrastive_loss


def mean_shift(embeddings: Tensor, center: Tensor) -> Tensor:
    """theta(x) = (f(x) - c) / |f(x) - c|: the direction in which an image differs from the normal centre.

    `embeddings`: (B, dim), unit rows; `center`: (dim,), the mean embedding of the normals, raw or of unit length.
    Returns (B, dim), unit rows.
    """
    return F.normalize(embeddings - center, dim=1)


def mean_shifted_loss(first: Tensor, second: Tensor, center: Tensor, *, temperature: float = 0.25) -> Tensor:
    """NT-Xent over the mean-shifted embeddings of two views, each (B, dim) with unit rows. Returns a scalar."""
    return contrastive_loss(mean_shift(first, center), mean_shift(second, center), temperature=temperature)
