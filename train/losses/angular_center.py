"""The angular center loss (Reiss & Hoshen, arXiv 2106.03844, first version, section 4.2)."""

from torch import Tensor


def angular_center_loss(first: Tensor, second: Tensor, center: Tensor) -> Tensor:
    """Pull both views towards the centre, on the sphere.

    The paper writes -f(x) . c. The scale here is the one of the authors' experiments: for unit vectors

        |f - c|^2 = 2 - 2 f . c,   summed over the two views, averaged over the batch.

    `first`, `second`: (B, dim), unit rows; `center`: (dim,), unit length. Returns a scalar in [0, 8].
    """
    return _mean_squared_length(first - center) + _mean_squared_length(second - center)


def _mean_squared_length(difference: Tensor) -> Tensor:
    return difference.square().sum(dim=1).mean()
