"""NT-Xent, the contrastive loss of SimCLR (Chen et al., arXiv 2002.05709, section 2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(first: Tensor, second: Tensor, *, temperature: float = 0.25) -> Tensor:
    """Pull the two views of each image together and push all other views apart.

    For the 2B unit vectors z of both views, with s_ij = z_i . z_j / temperature and p(i) the other view of i:

        L = mean over i of  -s_{i p(i)} + log sum_{j != i} exp(s_ij)

    `first`, `second`: (B, dim), unit rows, row i of both from the same image. Returns a scalar.
    """
    batch = len(first)
    z = torch.cat([first, second])
    similarity = z @ z.T / temperature
    itself = torch.eye(2 * batch, dtype=torch.bool, device=z.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    positive = torch.arange(2 * batch, device=z.device).roll(batch)
    return F.cross_entropy(similarity, positive)
