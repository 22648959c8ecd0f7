"""The options of fine-tuning, for `train` and for the benchmark."""

from dataclasses import dataclass
from typing import Literal

from msc_edge.errors import UsageError
from msc_edge.preprocessing import PresetName
from msc_edge.train.devices import Accelerator, DtypeOption

Select = Literal["last", "synthetic"]
TRAIN_ALL = "none"  # value of --freeze-to: all stages train

_MAX_LEARNING_RATE = 1000.0  # far above any rate that trains a network, and far below the limits of float32


@dataclass(frozen=True, kw_only=True)
class FineTuningOptions:
    """The options of fine-tuning. None means: the value of the preset, see `msc_edge.train.settings.fine_tuning`."""

    preset: PresetName = "whole-frame"
    steps: int | None = None
    """Optimizer steps; 0 keeps the backbone frozen."""
    batch: int = 64
    """Images per step, over all devices."""
    learning_rate: float | None = None
    frozen_up_to: str | None = None
    """The last stage that does not train; `none` trains all stages."""
    select: Select | None = None
    """Which step's weights the result has: the last, or the best by `msc_edge.train.checkpoint_selection`."""
    accelerator: Accelerator = "auto"
    dtype: DtypeOption = "auto"
    """Dtype of the training steps; `auto` is bf16 if the device computes in it natively, else fp32."""


def check_learning_rate(rate: float | None) -> None:
    """Raise UsageError for a learning rate that no optimizer can use. None stands for the default."""
    if rate is not None and not 0 < rate <= _MAX_LEARNING_RATE:
        raise UsageError(f"--learning-rate {rate}: expected a number above 0 and at most {_MAX_LEARNING_RATE:g}")
