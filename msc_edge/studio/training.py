"""One training of a project: its plan, its files, and its state."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msc_edge.kit.layout import MANIFEST, kit_name
from msc_edge.preprocessing import Region, Tiles
from msc_edge.studio.jobs import Job
from msc_edge.studio.stored import Stored, read_stored
from msc_edge.train.run_folder import CURVES, RECORD, VIEWS

PLAN, MASK, LABELS = "training.json", "ignore-mask.png", "labels.json"
RUN, KIT, EVALUATION = "run", "kit", "evaluation"
Detail = Literal["fast", "fine", "tiles"]
"""fast: edge-small. fine: EfficientNet-Lite0, finer heatmaps. tiles: edge-small on tiles, for small defects."""
TILES: Mapping[Detail, Tiles | None] = {"fast": None, "fine": None, "tiles": Tiles.parse("2x2", image_size=224)}
"""What an image is cut into."""


class TrainingPlan(Stored):
    """What one training does: the settings of the project when it was started, and its own."""

    normal: str
    test: str | None
    region: Region | None
    ignore_mask: bool
    detail: Detail
    steps: int | None
    """Steps of fine-tuning; None: by the number of images."""
    created: str

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of its images."""
        return (self.normal, self.test) if self.test else (self.normal,)


@dataclass(frozen=True)
class Training:
    """One training of a project."""

    folder: Path

    @property
    def project(self) -> str:
        """The name of its project."""
        return self.folder.parents[1].name

    @property
    def number(self) -> int:
        """Its number in the project, from 1."""
        return int(self.folder.name)

    @property
    def title(self) -> str:
        """Its name on pages."""
        return f"{self.project}, training {self.number}"

    @property
    def kit_name(self) -> str:
        """The name of its kit: that of the project, as far as a kit can have it, and the number of the training."""
        letters = unicodedata.normalize("NFKD", self.project)  # an accent is a character of its own
        plain = re.sub(r"[\u0300-\u036f]", "", letters)
        return f"{kit_name(plain)[:50].rstrip('_.-')}-{self.number}"

    def file_name(self, kit: str) -> str:
        """The name of a file of its kit: project and training, unless the user has given the kit another name.

        A file may have letters that a kit cannot. The older kits of a project that has only such letters are bare
        numbers.
        """
        own = (self.kit_name, str(self.number))
        return f"{self.project}-{self.number}" if kit in own else kit

    @property
    def job(self) -> Job:
        """The work."""
        return Job(self.folder / "job")

    @property
    def plan(self) -> TrainingPlan:
        """What it does. KitError if the file is damaged."""
        return read_stored(self.folder / PLAN, TrainingPlan)

    @property
    def curves(self) -> Path | None:
        """The curves of the fine-tuning: of the whole, or of the steps so far; None before the first step."""
        found = (self.folder / RUN / CURVES, self.folder / CURVES)
        return next((path for path in found if path.is_file()), None)

    @property
    def views(self) -> Path | None:
        """Some training images with their views; None before the first step."""
        path = self.folder / RUN / VIEWS
        return path if path.is_file() else None

    @property
    def is_trained(self) -> bool:
        """Whether its run is complete: a kit can be exported from it."""
        return (self.folder / RUN / RECORD).is_file()

    @property
    def kit(self) -> Path | None:
        """The kit; None before it is exported."""
        folder = self.folder / KIT
        return folder if (folder / MANIFEST).is_file() else None

    @property
    def evaluation(self) -> Path | None:
        """The folder of the evaluation; None without labelled images."""
        folder = self.folder / EVALUATION
        return folder if folder.is_dir() else None

    @property
    def mask(self) -> Path | None:
        """The ignore mask; None: all is inspected."""
        return self.folder / MASK if self.plan.ignore_mask else None
