"""What a user can choose of a fine-tuning, whatever it is for: a kit's run, or the benchmark."""

from dataclasses import dataclass

from msc_edge.preprocessing import PresetName
from msc_edge.train.backbones import Backbone
from msc_edge.train.devices import Accelerator, Precision, precision_of
from msc_edge.train.recipes import FineTuning, RecipeName, Select, fine_tuning


@dataclass(frozen=True, kw_only=True)
class FineTuningOptions:
    """None means: as the preset has it (see `fine_tuning`)."""

    preset: PresetName
    steps: int | None = None
    batch: int = 64
    learning_rate: float | None = None
    frozen_up_to: str | None = None
    select: Select | None = None
    accelerator: Accelerator = "auto"
    precision: Precision = "auto"

    def settings(self, backbone: Backbone, *, images: int, recipe: RecipeName, seed: int) -> FineTuning:
        """Every setting of a run over so many images. UsageError for choices that cannot be met."""
        return fine_tuning(
            self.preset,
            backbone=backbone,
            images=images,
            recipe=recipe,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            frozen_up_to=self.frozen_up_to,
            select=self.select,
            precision=precision_of(self.accelerator, self.precision),
            seed=seed,
        )
