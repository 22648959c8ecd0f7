"""The recipes of fine-tuning by name. A new one is a loss in `train/losses` and an entry here; see docs/extend.md.

Reiss & Hoshen changed their method between the versions of arXiv 2106.03844, and both are cited under the same name:

- `v1` (June 2021, the abstract's 97.5 % on CIFAR-10): centre of unit length; mean-shifted loss + angular loss.
- `v2` (November 2022): raw mean as centre; mean-shifted loss only.

`contrastive` is the baseline for both: the plain loss around the origin. Only the benchmark uses it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.train.losses.angular_center import angular_center_loss
from msc_edge.train.losses.contrastive import contrastive_loss
from msc_edge.train.losses.mean_shifted import mean_shifted_loss

Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(first, second, center, temperature): unit embeddings (B, dim) of the two views of B images, the centre (dim,) of the
normal images -> a scalar."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A loss, and what belongs to it."""

    name: str
    loss: Loss
    about: str = ""
    """What --help says of it."""
    unit_center: bool = False
    """Whether the centre is scaled to unit length."""
    paper_epochs: int = 20
    """Epochs under the preset `paper`."""
    is_baseline: bool = False
    """Whether only the benchmark uses it. Without checkpoint selection unless it is asked for."""

    def center_of(self, embeddings: Tensor) -> Tensor:
        """The centre, (dim,), of the normal images: unaugmented unit embeddings (n, dim) under the initial network."""
        mean = embeddings.mean(dim=0)
        return F.normalize(mean, dim=0) if self.unit_center else mean


def _v1(first: Tensor, second: Tensor, center: Tensor, temperature: float) -> Tensor:
    return _v2(first, second, center, temperature) + angular_center_loss(first, second, center)


def _v2(first: Tensor, second: Tensor, center: Tensor, temperature: float) -> Tensor:
    return mean_shifted_loss(first, second, center, temperature=temperature)


def _contrastive(first: Tensor, second: Tensor, _center: Tensor, temperature: float) -> Tensor:
    return contrastive_loss(first, second, temperature=temperature)


RECIPES = (
    Recipe(name="contrastive", loss=_contrastive, is_baseline=True),
    Recipe(name="v1", loss=_v1, about="mean-shifted and angular centre loss", unit_center=True, paper_epochs=100),
    Recipe(name="v2", loss=_v2, about="mean-shifted loss"),
)


def describe_recipes() -> str:
    """The names of the recipes that `train` takes, with what --help says of them."""
    return "; ".join(
        f"{recipe.name}: {recipe.about}" if recipe.about else recipe.name
        for recipe in RECIPES
        if not recipe.is_baseline
    )


def recipe_named(name: str) -> Recipe:
    """The recipe with this name. Raises UsageError for an unknown one; the message lists those that exist."""
    found = next((recipe for recipe in RECIPES if recipe.name == name), None)
    if found is None:
        raise UsageError(f"recipe {name}: unknown; choose one of {', '.join(recipe.name for recipe in RECIPES)}")
    return found
