"""The options of `distil`."""

from dataclasses import dataclass
from pathlib import Path

from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.devices import Accelerator, DtypeOption


@dataclass(frozen=True, kw_only=True)
class DistilOptions:
    """The options of `distil`. The teacher is either a run or a backbone with weights."""

    teacher_run: Path | None = None
    teacher_backbone: str | None = None
    teacher_weights: Path | None = None
    """A file with weights; None: the default weights of the backbone."""
    teacher_stop_at: str | None = None
    student: str = EDGE_SMALL
    student_weights: Path | None = None
    """A file with the initial weights; None: see `msc_edge.train.distillation.networks.build_student`."""
    steps: int = 2000
    batch: int = 64
    """Crops per step, over all devices; even for each device."""
    learning_rate: float | None = None
    """None: 2e-4, or 1e-3 from scratch."""
    image_size: int | None = None
    """Side of the square input in pixels; None: that of the run, or 224."""
    half: bool = False
    """Write the student as float16."""
    seed: int = 0
    accelerator: Accelerator = "auto"
    devices: int = 1
    dtype: DtypeOption = "auto"
    measure_every: int = 100
    """Steps between rows of metrics.csv, and between checkpoints."""
