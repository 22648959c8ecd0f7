"""All settings of a distillation, and its learning-rate schedule."""

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from msc_edge.train.devices import Dtype

_WARM_UP = 100  # steps
_DECAY = 0.3  # share of the steps


class Distillation(BaseModel):
    """All settings of a distillation. Distillations with equal settings, images and weights are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: PositiveInt
    batch: PositiveInt = Field(description="images per step, over all devices; even")
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 1e-4
    image_size: PositiveInt = Field(description="side of the largest crops and of the held-out images, in pixels")
    dtype: Dtype = Field(description="dtype of the training steps")
    seed: int


def learning_rate_at(step: int, settings: Distillation) -> float:
    """The learning rate of a step: it rises for 100 steps, stays, and decays linearly to 0 over the last 30 %.

    Before the decay it does not depend on the number of steps, so an interrupted distillation can be resumed for more
    or fewer steps (Hägele et al., arXiv 2405.18392).
    """
    decay = (settings.steps - step) / (_DECAY * settings.steps)
    return settings.learning_rate * min(1.0, (step + 1) / _WARM_UP, decay)


def decay_started(step: int, settings: Distillation) -> bool:
    """Whether the steps before `step` depend on the number of steps."""
    return settings.steps - (step - 1) < _DECAY * settings.steps
