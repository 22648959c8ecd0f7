"""Every setting of a distillation, and its schedule."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

_WARM_UP = 100  # steps
_COOL_DOWN = 0.3  # share of the steps


class Distillation(BaseModel):
    """Every setting of a distillation. Two with equal settings, images and weights are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: PositiveInt
    batch: PositiveInt = Field(description="images a step, over all devices; even")
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 1e-4
    image_size: PositiveInt = Field(description="side of the largest crops, and of the held-out frames, in pixels")
    precision: Literal["fp32", "bf16"]
    seed: int


def learning_rate_at(step: int, settings: Distillation) -> float:
    """Rises for 100 steps, stays, and falls to 0 in a straight line over the last 30 % of the steps.

    Until the fall it does not depend on how many steps there will be: a training that is broken off can be taken up
    for more steps, or fewer (Hägele et al., arXiv 2405.18392).
    """
    falling = (settings.steps - step) / (_COOL_DOWN * settings.steps)
    return settings.learning_rate * min(1.0, (step + 1) / _WARM_UP, falling)


def begun_to_fall(step: int, settings: Distillation) -> bool:
    """Whether the steps before `step` depend on the number of steps."""
    return settings.steps - (step - 1) < _COOL_DOWN * settings.steps
