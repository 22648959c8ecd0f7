"""The two published recipes of mean-shifted fine-tuning, and all settings of a run.

Reiss & Hoshen changed their method between the versions of arXiv 2106.03844, and both are cited under the same name:

- `v1` (June 2021, the abstract's 97.5 % on CIFAR-10): centre of unit length; mean-shifted loss + angular loss.
- `v2` (November 2022): raw mean as centre; mean-shifted loss only.

`contrastive` is the baseline for both: the plain loss around the origin. Only the benchmark uses it.
"""

from typing import Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones import Backbone, last_stage_at_stride
from msc_edge.train.checkpoint_selection import MIN_IMAGES, held_out_for_selection
from msc_edge.train.devices import Dtype, resolve_dtype
from msc_edge.train.losses.angular_center import angular_center_loss
from msc_edge.train.losses.contrastive import contrastive_loss
from msc_edge.train.losses.mean_shifted import mean_shifted_loss
from msc_edge.train.options import TRAIN_ALL, FineTuningOptions, Select

RecipeName = Literal["v1", "v2", "contrastive"]

_PAPER_LEARNING_RATE = 1e-5
_PAPER_EPOCHS: dict[RecipeName, int] = {"v1": 100, "v2": 20, "contrastive": 20}
_PAPER_FROZEN_UP_TO = {"resnet152": "layer2"}

# The product's values where the paper's do not fit: docs/decisions.md, "Default settings".
_PRODUCT_LEARNING_RATE = 3e-4
_PRODUCT_STEPS = 80
_PRODUCT_EPOCHS = 10  # at most: with more epochs, a small set of images overfits
_PRODUCT_FROZEN_STRIDE = 8  # the paper's conv1 to layer2, for any backbone


class FineTuning(BaseModel):
    """All settings of a fine-tuning run. Runs with equal settings, images and weights are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recipe: RecipeName
    steps: NonNegativeInt = Field(description="optimizer steps; 0 keeps the backbone frozen (DN2)")
    batch: PositiveInt = Field(description="images per step, over all devices; at most the number of images")
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 5e-5
    temperature: PositiveFloat = 0.25
    frozen_up_to: str | None = Field(default=None, description="last stage that does not train; null: all train")
    dtype: Dtype = Field(description="dtype of the training steps")
    seed: int
    select: Select = Field(default="last", description="the weights of the result: last step, or checkpoint selection")
    select_every: PositiveInt = Field(default=20, description="steps between the candidates of checkpoint selection")
    select_by: ScoreKind = Field(default="image", description="the score that checkpoint selection compares")


def fine_tuning(
    options: FineTuningOptions,
    *,
    backbone: Backbone,
    images: int,
    recipe: RecipeName = "v2",
    scores: ScoreKind = "image",
    seed: int = 0,
) -> FineTuning:
    """Complete the options: unset ones get the paper's values under the preset `paper`, else the product's.

    `scores`: what the score of the kit is made of. `images` is the number of images in the bank; those held out for
    checkpoint selection are among them. The product trains at most ten epochs of full batches, so fewer images than one
    batch keep the backbone frozen, unless `steps` is set: the batch then has all images. Raises UsageError for too few
    images for checkpoint selection.
    """
    steps, learning_rate, frozen_up_to = options.steps, options.learning_rate, options.frozen_up_to
    select, batch = options.select, options.batch
    if select is None:
        enough = options.preset == "whole-frame" and recipe != "contrastive" and images >= max(batch, MIN_IMAGES)
        select = "synthetic" if enough else "last"
    if select == "synthetic" and steps != 0:
        images -= len(held_out_for_selection(images))
    product_steps = min(_PRODUCT_STEPS, _PRODUCT_EPOCHS * (images // batch))
    batch = min(batch, images)
    if options.preset == "paper":
        paper_steps = _PAPER_EPOCHS[recipe] * (images // batch)
        steps = paper_steps if steps is None else steps
        learning_rate = _PAPER_LEARNING_RATE if learning_rate is None else learning_rate
        frozen_up_to = frozen_up_to or _PAPER_FROZEN_UP_TO.get(backbone.name, TRAIN_ALL)
    steps = product_steps if steps is None else steps
    if frozen_up_to is None:
        frozen_up_to = last_stage_at_stride(backbone, _PRODUCT_FROZEN_STRIDE)
    return FineTuning(
        recipe=recipe,
        steps=steps,
        batch=batch,
        learning_rate=_PRODUCT_LEARNING_RATE if learning_rate is None else learning_rate,
        frozen_up_to=None if frozen_up_to == TRAIN_ALL else frozen_up_to,
        dtype=resolve_dtype(options.accelerator, options.dtype),
        seed=seed,
        select=select if steps else "last",  # a frozen backbone is the only candidate
        select_by=scores if select == "synthetic" and steps else "image",
    )


def center_of(embeddings: Tensor, recipe: RecipeName) -> Tensor:
    """The centre c, (dim,), of the normal images: unaugmented unit embeddings (n, dim) under the initial network."""
    mean = embeddings.mean(dim=0)
    return F.normalize(mean, dim=0) if recipe == "v1" else mean


def recipe_loss(recipe: RecipeName, first: Tensor, second: Tensor, center: Tensor, *, temperature: float) -> Tensor:
    """The loss of a recipe for the unit embeddings (B, dim) of the two views of B images, a scalar."""
    if recipe == "contrastive":
        return contrastive_loss(first, second, temperature=temperature)
    loss = mean_shifted_loss(first, second, center, temperature=temperature)
    return loss + angular_center_loss(first, second, center) if recipe == "v1" else loss
