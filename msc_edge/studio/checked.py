"""What a check of the images found: the use of each image, images that show the same, and what has changed since."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from msc_edge.bank import K
from msc_edge.errors import SourceError
from msc_edge.files import kind_of
from msc_edge.held_out import can_be_held_out_in_turn
from msc_edge.image_files import find_images
from msc_edge.studio.jobs import Job
from msc_edge.studio.stored import Stored
from msc_edge.train.dataset import NormalImage, Role

KINDS = ("all", "used", "held out", "near-duplicate", "duplicate", "unreadable")
_ROLES: Mapping[Role, str] = {
    "bank": "used",
    "calibration": "held out",
    "duplicate": "duplicate",
    "unreadable": "unreadable",
}


class CheckedImage(Stored):
    """One normal image."""

    path: str
    """Relative to the folder of the check."""
    role: Role
    group: int | None
    twin: int | None
    """The place of another image: of a duplicate the one that is used instead, else one that shows the same part."""
    reason: str
    """Why it cannot be read."""

    @property
    def kind(self) -> str:
        """Its use, in words."""
        return _ROLES[self.role]


class LeakedImage(Stored):
    """One labelled image that is also a normal image."""

    path: str
    name: str
    label: str
    normal: int
    """The place of the normal image."""


class CheckResult(Stored):
    """All that a check found."""

    normal: str
    """The folder of normal images, as it was chosen."""
    folder: str
    """The folder that the paths are relative to."""
    images: list[CheckedImage]
    test: str | None
    labels: dict[str, int]
    test_problem: str
    """Why the folder of labelled images cannot be used."""
    test_unreadable: dict[str, str]
    """Names and reasons of labelled images that cannot be read."""
    leaked: list[LeakedImage]

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """The result of a check; None unless it is done, by this version of msc-edge."""
        try:
            return job.result_as(cls)
        except ValidationError:  # the page offers to check the images
            return None

    @property
    def usable(self) -> list[int]:
        """The places of the images that training would use."""
        return [place for place, image in enumerate(self.images) if image.group is not None]

    def path_of(self, place: int) -> Path:
        """The file of a normal image. SourceError if it lies elsewhere, by a changed file of the check."""
        return _inside(Path(self.folder) / self.images[place].path, Path(self.folder))

    def leaked_path(self, number: int) -> Path:
        """The file of a labelled image that is also a normal image. SourceError likewise."""
        return _inside(Path(self.leaked[number].path), Path(self.test or self.folder))

    def shown(self, kind: str) -> list[int]:
        """The places of the images of a kind, one of KINDS; those of one part follow each other."""
        places = range(len(self.images))
        if kind == "near-duplicate":
            alike = [place for place in self.usable if self.images[place].twin is not None]
            return sorted(alike, key=lambda place: (self.images[place].group, place))
        return [place for place in places if kind in ("all", self.images[place].kind)]

    def parts(self, role: Role | None = None) -> int:
        """How many parts the images show, or those of one role."""
        return len({self.images[place].group for place in self.usable if role in (None, self.images[place].role)})

    @property
    def in_turn(self) -> bool:
        """Whether all images set the limits if training keeps the pretrained network: each is then held out in turn."""
        groups = [group for place in self.usable if (group := self.images[place].group) is not None]
        return bool(groups) and can_be_held_out_in_turn(groups, k=K, patches=True)

    @property
    def group_sizes(self) -> Counter[int | None]:
        """How many images show each part."""
        return Counter(self.images[place].group for place in self.usable)


@dataclass(frozen=True)
class Changes:
    """What has changed since a check."""

    gone: str | None
    """The folder of normal images, if it is no longer there."""
    added: int
    removed: int
    """Normal images."""

    @classmethod
    def since(cls, result: CheckResult) -> Self:
        """Compare the files of now with those of a check; their content is not compared."""
        folder = Path(result.folder)
        if kind_of(folder)[0] != "folder":
            return cls(result.folder, 0, len(result.images))
        try:
            now = {path.relative_to(folder).as_posix() for path in find_images([folder]).paths}
        except SourceError:  # no images are left
            now = set()
        then = {image.path for image in result.images}
        return cls(None, len(now - then), len(then - now))


def twins_of(images: Sequence[NormalImage]) -> list[int | None]:
    """For each image the place of its twin, see `CheckedImage.twin`: the image before it in its group, or after it."""
    used: dict[tuple[str, str], int] = {}
    groups: dict[int, list[int]] = {}
    for place, image in enumerate(images):
        if image.group is not None:
            groups.setdefault(image.group, []).append(place)
        for content in _contents(image):
            used.setdefault(content, place)
    twins: list[int | None] = [None] * len(images)
    for place, image in enumerate(images):
        if image.role == "duplicate":
            twins[place] = _original(place, images, used)
    for group in groups.values():
        for before, after in itertools.pairwise(group):
            twins[after] = before
        if len(group) > 1:
            twins[group[0]] = group[1]
    return twins


def _contents(image: NormalImage) -> list[tuple[str, str]]:
    return [(name, digest) for name in ("sha256", "pixels") if (digest := getattr(image, name))]


def _original(place: int, images: Sequence[NormalImage], used: Mapping[tuple[str, str], int]) -> int | None:
    """The first image of the same bytes or pixels; that one may be a copy by its pixels itself."""
    first = min((used[content] for content in _contents(images[place])), default=place)
    if first == place:
        return None
    return first if images[first].role != "duplicate" else _original(first, images, used)


def _inside(path: Path, folder: Path) -> Path:
    if not path.is_relative_to(folder) or ".." in path.relative_to(folder).parts:
        raise SourceError(f"{path}: is not in {folder}; check the images again")
    return path
