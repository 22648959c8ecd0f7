"""The folder of the studio: its projects, and their trainings. All state is in files.

STUDIO/
    PROJECT/
        project.json        which images, and which part of them
        ignore-mask.png     what is not inspected
        images/             dropped images: normal/, test/good/, test/<defect type>/
        check/              the job that checks the images
        trainings/1/        a training: training.json, job/, run/, kit/, evaluation/, labels.json
    .comparisons/1/         a comparison of two kits: job/
    .removed/               what is being deleted
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from msc_edge.errors import UsageError, writing
from msc_edge.files import written_whole
from msc_edge.preprocessing import Region
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.studio.image_folders import check_image_folder
from msc_edge.studio.jobs import Job
from msc_edge.studio.mask_check import check_stored_mask
from msc_edge.studio.stored import Stored, read_stored, write_stored
from msc_edge.studio.training import MASK, PLAN, Detail, Training, TrainingPlan
from msc_edge.train.dataset import normal_folder

PROJECT = "project.json"
_LOCK = ".studio-lock"
_NAME = re.compile(r"\w[\w .\-]{0,59}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names of devices on Windows


class ProjectSettings(Stored):
    """The images of a project, and what of them is inspected."""

    normal: str | None = None
    """Folder of normal images; None: dropped images."""
    test: str | None = None
    """Folder of labelled images, with good/ and defect types; None: dropped images, if there are any."""
    region: Region | None = None
    """None: the whole image."""


@dataclass(frozen=True)
class Project:
    """One project: the images of one kind of part."""

    folder: Path

    @property
    def name(self) -> str:
        """Its name, which is that of its folder."""
        return self.folder.name

    @property
    def settings(self) -> ProjectSettings:
        """Its settings. KitError if the file is damaged."""
        return read_stored(self.folder / PROJECT, ProjectSettings)

    def change(self, **changes: object) -> None:
        """Store other settings."""
        changed = ProjectSettings.model_validate(self.settings.model_dump() | changes)
        write_stored(self.folder / PROJECT, changed)

    @property
    def dropped(self) -> Path:
        """The folder of dropped images."""
        return self.folder / "images"

    @property
    def normal(self) -> Path | None:
        """The folder of normal images; None where no images were chosen."""
        if chosen := self.settings.normal:
            return Path(chosen)
        folder = self.dropped / "normal"
        return folder if folder.is_dir() else None

    @property
    def test(self) -> Path | None:
        """The folder of labelled images; None where no images were chosen."""
        if chosen := self.settings.test:
            return Path(chosen)
        folder = self.dropped / "test"
        return folder if folder.is_dir() else None

    @property
    def mask(self) -> Path:
        """The file of the ignore mask; it exists if there is one."""
        return self.folder / MASK

    @property
    def check(self) -> Job:
        """The check of the images."""
        return Job(self.folder / "check")

    def check_folders(self) -> None:
        """UsageError for a chosen folder that is refused now: chosen by an older version, or moved since."""
        for chosen in (self.settings.normal, self.settings.test):
            if chosen:
                check_image_folder(Path(chosen), self.folder.parent)

    def trainings(self) -> list[Training]:
        """All trainings, the newest first."""
        return [Training(folder) for folder in _numbered(self.folder / "trainings")]

    def training(self, number: int) -> Training | None:
        """One training; None if there is no such number."""
        return next((each for each in self.trainings() if each.number == number), None)

    def new_training(self, *, detail: Detail, steps: int | None) -> Training:
        """A training with the images and settings of now.

        UsageError without normal images, and see `check_folders` and `check_mask`; SourceError where their folder has
        gone, and for a folder of labelled images with another layout: all before the training, not after it.
        """
        if self.normal is None:
            raise UsageError("no normal images are chosen; choose a folder, or drop images, on the page Images")
        self.check_folders()
        normal_folder(self.normal)
        if self.test is not None:
            labelled_dataset(self.test)
        check_stored_mask(self.mask, self.settings.region, detail=detail)
        folder = _next(self.folder / "trainings")
        plan = TrainingPlan(
            normal=str(self.normal),
            test=self.test and str(self.test),
            region=self.settings.region,
            ignore_mask=self.mask.is_file(),
            detail=detail,
            steps=steps,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if plan.ignore_mask:
            with written_whole(folder / MASK) as partial:
                partial.write_bytes(self.mask.read_bytes())
        write_stored(folder / PLAN, plan)
        return Training(folder)


@dataclass(frozen=True)
class Comparison:
    """A comparison of two kits on the same images."""

    folder: Path

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return int(self.folder.name)

    @property
    def job(self) -> Job:
        """The work."""
        return Job(self.folder / "job")

    @property
    def kits(self) -> tuple[Path, Path]:
        """The two kits."""
        request = self.job.request
        return Path(request["first"]), Path(request["second"])

    @property
    def trainings(self) -> tuple[Training, Training]:
        """The trainings of the two kits."""
        first, second = (Training(kit.parent) for kit in self.kits)
        return first, second

    @property
    def names(self) -> tuple[str, str]:
        """The trainings of the two kits, as on their pages."""
        first, second = (training.title for training in self.trainings)
        return first, second


@dataclass(frozen=True)
class Workspace:
    """The folder of the studio."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The workspace in a folder, which is created. UsageError if it is a file."""
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: is a file; name a folder for the studio's projects")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return cls(folder.resolve())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other studios out: two would start and stop each other's work. UsageError if there is one."""
        lock = FileLock(self.folder / _LOCK, timeout=0)
        with writing(self.folder):
            try:
                lock.acquire()
            except Timeout as error:
                raise UsageError(
                    f"{self.folder}: another studio is running there; open its address in the browser, stop it, or "
                    "name another folder"
                ) from error
        try:
            yield
        finally:
            lock.release()

    def projects(self) -> list[Project]:
        """All projects, by name."""
        return [Project(path.parent) for path in sorted(self.folder.glob(f"*/{PROJECT}"))]

    def project(self, name: str) -> Project | None:
        """The project of this name."""
        return next((project for project in self.projects() if project.name == name), None)

    def create(self, name: str) -> Project:
        """A new project. UsageError for a name that is taken or cannot be the name of a folder."""
        name = name.strip()
        if not name:
            raise UsageError("the project has no name; type one, such as that of the part")
        if not _NAME.fullmatch(name) or name.endswith(".") or _RESERVED.fullmatch(name):
            raise UsageError(
                f"the name {name} cannot be used; use at most 60 letters, digits, spaces and -_., begin with "
                "a letter or a digit, and avoid names of devices on Windows, such as CON"
            )
        if any(path.name.lower() == name.lower() for path in self.folder.iterdir()):
            raise UsageError(f"there is a project {name} already; choose another name")
        with writing(self.folder):
            (self.folder / name).mkdir()
        write_stored(self.folder / name / PROJECT, ProjectSettings())
        return Project(self.folder / name)

    def comparisons(self) -> list[Comparison]:
        """All comparisons, the newest first."""
        return [Comparison(folder) for folder in _numbered(self.folder / ".comparisons")]

    def new_comparison(self) -> Comparison:
        """An empty comparison."""
        return Comparison(_next(self.folder / ".comparisons"))

    def jobs(self) -> Iterator[Job]:
        """All work that was ever started."""
        for project in self.projects():
            yield project.check
            yield from (training.job for training in project.trainings())
        yield from (comparison.job for comparison in self.comparisons())


def _numbered(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return sorted(found, key=lambda path: -int(path.name))


def _next(folder: Path) -> Path:
    newest = _numbered(folder)
    made = folder / str(int(newest[0].name) + 1 if newest else 1)
    with writing(made):
        made.mkdir(parents=True)
    return made
