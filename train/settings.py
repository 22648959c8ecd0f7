"""All settings of a fine-tuning run, completed from the options of `train` and of the benchmark."""

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.backbone import Backbone, last_stage_at_stride
from msc_edge.train.checkpoint_selection import MIN_IMAGES, held_out_for_selection
from msc_edge.train.devices import Dtype, resolve_dtype
from msc_edge.train.options import TRAIN_ALL, FineTuningOptions, Select
from msc_edge.train.recipes import recipe_named

_PAPER_LEARNING_RATE = 1e-5
_PAPER_FROZEN_UP_TO = {"resnet152": "layer2"}

# The product's values where the paper's do not fit: docs/decisions.md, "Default settings".
_PRODUCT_LEARNING_RATE = 3e-4
_PRODUCT_STEPS = 80
_PRODUCT_EPOCHS = 10  # at most: with more epochs, a small set of images overfits
_PRODUCT_FROZEN_STRIDE = 8  # the paper's conv1 to layer2, for any backbone


class FineTuning(BaseModel):
    """All settings of a fine-tuning run. Runs with equal settings, images and weights are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recipe: str
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
    recipe: str = "v2",
    scores: ScoreKind = "image",
    seed: int = 0,
    suits: bool = True,
) -> FineTuning:
    """Complete the options: unset ones get the paper's values under the preset `paper`, else the product's.

    `scores`: what the score of the kit is made of. `images` is the number of images in the bank; those held out for
    checkpoint selection are among them. The product trains at most ten epochs of full batches, so fewer images than one
    batch keep the backbone frozen, unless `steps` is set: the batch then has all images. So does `suits` = False, see
    `split.fine_tuning_suits`. Raises UsageError for too few
    images for checkpoint selection, and for an unknown recipe.
    """
    chosen = recipe_named(recipe)
    steps, learning_rate = options.steps, options.learning_rate
    select, batch = options.select, options.batch
    if select is None:
        enough = options.preset == "whole-frame" and not chosen.is_baseline and images >= max(batch, MIN_IMAGES)
        select = "synthetic" if enough else "last"
    if select == "synthetic" and steps != 0:
        images -= len(held_out_for_selection(images))
    product_steps = min(_PRODUCT_STEPS, _PRODUCT_EPOCHS * (images // batch)) if suits else 0
    batch = min(batch, images)
    if options.preset == "paper":
        paper_steps = chosen.paper_epochs * (images // batch)
        steps = paper_steps if steps is None else steps
        learning_rate = _PAPER_LEARNING_RATE if learning_rate is None else learning_rate
    steps = product_steps if steps is None else steps
    return FineTuning(
        recipe=recipe,
        steps=steps,
        batch=batch,
        learning_rate=_PRODUCT_LEARNING_RATE if learning_rate is None else learning_rate,
        frozen_up_to=last_frozen_stage(options, backbone),
        dtype=resolve_dtype(options.accelerator, options.dtype),
        seed=seed,
        select=select if steps else "last",  # a frozen backbone is the only candidate
        select_by=scores if select == "synthetic" and steps else "image",
    )


def last_frozen_stage(options: FineTuningOptions, backbone: Backbone) -> str | None:
    """The last stage that does not train; None if all do."""
    if options.frozen_up_to is not None:
        return None if options.frozen_up_to == TRAIN_ALL else options.frozen_up_to
    if options.preset == "paper":
        return _PAPER_FROZEN_UP_TO.get(backbone.name)
    return last_stage_at_stride(backbone, _PRODUCT_FROZEN_STRIDE)
