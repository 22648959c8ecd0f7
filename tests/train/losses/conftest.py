"""NT-Xent as printed in the paper, in Python floats and loops, and unit vectors as input."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

Rows = list[list[float]]


@pytest.fixture(scope="session")
def unit_rows() -> Callable[..., Tensor]:
    """Random unit rows, float64 (rows, dim)."""

    def draw(seed: int, rows: int, dim: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)

    return draw


@pytest.fixture(scope="session")
def rotation() -> Callable[[int, int], Tensor]:
    """A random rotation (or reflection) of a space, float64 (dim, dim)."""

    def draw(seed: int, dim: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q

    return draw


@pytest.fixture(scope="session")
def nt_xent() -> Callable[[Rows, Rows, float], float]:
    """Equation 1 of arXiv 2002.05709: mean over the 2B vectors of -log(exp(s_ip) / sum over j != i of exp(s_ij))."""

    def cosine(one: list[float], other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))

    def loss(first: Rows, second: Rows, temperature: float) -> float:
        views = first + second
        count = len(views)
        total = 0.0
        for i in range(count):
            pair = i + len(first) if i < len(first) else i - len(first)
            denominator = 0.0
            for j in range(count):
                if j != i:
                    denominator += math.exp(cosine(views[i], views[j]) / temperature)
            total -= math.log(math.exp(cosine(views[i], views[pair]) / temperature) / denominator)
        return total / count

    return loss
