"""The mean-shifted contrastive loss (Reiss & Hoshen, arXiv 2106.03844, section 4.1).

A pretrained network maps the normal images to a tight cluster. Plain contrastive fine-tuning spreads the embeddings
over the sphere around the origin: the cluster dissolves, and anomalies are no longer separable from it. Relative to
the centre c of the cluster, the same loss spreads the *directions from c* and keeps the cluster together.
"""

import torch.nn.functional as F
from torch import Tensor

from msc_edge.train.losses.contrastive import contrastive_loss


def mean_shift(embeddings: Tensor, center: Tensor) -> Tensor:
    """theta(x) = (f(x) - c) / |f(x) - c|: the direction from the centre of the normal images to an image.

    `embeddings`: (B, dim), unit rows; `center`: (dim,), the mean embedding of the normal images, raw or of unit length.
    Returns (B, dim), unit rows.
    """
    return F.normalize(embeddings - center, dim=1)


def mean_shifted_loss(first: Tensor, second: Tensor, center: Tensor, *, temperature: float = 0.25) -> Tensor:
    """NT-Xent over the mean-shifted embeddings of two views, each (B, dim) with unit rows. Returns a scalar."""
    return contrastive_loss(mean_shift(first, center), mean_shift(second, center), temperature=temperature)
