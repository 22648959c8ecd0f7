"""The options of `train`, and those of its fine-tuning, which the benchmark has too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msc_edge.errors import UsageError
from msc_edge.preprocessing import PresetName, Region, Tiles
from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.dataset import SIMILAR
from msc_edge.train.devices import Accelerator, DtypeOption
from msc_edge.train.patches.fit import ROWS

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


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FineTuningOptions):
    """The options of `train`."""

    backbone: str = EDGE_SMALL
    weights: Path | None = None
    """A file with pretrained weights; None: the default weights of the backbone."""
    stop_at: str | None = None
    """The last stage of the backbone to keep; None: all."""
    recipe: str = "v2"
    image_size: int = 224
    region: Region | None = None
    """The region of interest; None: the whole image."""
    tiles: Tiles | None = None
    """Tiles of the patches; None: the patches are those of the whole view."""
    ignore_mask: Path | None = None
    """An image of the size of the training images, white where they are not inspected."""
    bit_depth: Literal[8, 10, 12, 14, 16] = 8
    reduced_jpeg: bool = False
    """Decode large JPEG files at 1/2, 1/4 or 1/8 of their size, at least twice the input size of the network."""
    holdout: float = 0.2
    """Share of the images that are held out of training; they set the limits, unless all are held out in turn."""
    group_by: str | None = SIMILAR
    """Which images must be held out together: `similar`, those that show the same part by their embeddings, names and
    times, see `near_duplicate_files`; `folder`, or a pattern with one group, see `groups_of`; None: each by itself."""
    scores: ScoreKind | None = None
    """What the score of a kit is made of; None: both, and with the preset `paper` the image score."""
    patch_rows: int = ROWS
    """Rows of the patch bank."""
    seed: int = 0
    devices: int = 1
    checkpoint_every: int = 20


def check_learning_rate(rate: float | None) -> None:
    """Raise UsageError for a learning rate that no optimizer can use. None stands for the default."""
    if rate is not None and not 0 < rate <= _MAX_LEARNING_RATE:
        raise UsageError(f"--learning-rate {rate}: expected a number above 0 and at most {_MAX_LEARNING_RATE:g}")
