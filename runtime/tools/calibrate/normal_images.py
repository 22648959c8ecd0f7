"""The normal images of a recalibration: found, scored, and checked for images that would distort the limits."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from msc_edge.errors import SourceError
from msc_edge.files import kind_of
from msc_edge.groups import near_duplicate_files, near_duplicates
from msc_edge.image_files import find_images
from msc_edge.progress import Report, silent
from msc_edge.runtime.additions import Additions
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import NearestImage


@dataclass(frozen=True)
class ScoredNormalImages:
    """Normal images scored with the present limits: those to calibrate with, and those left out."""

    scored: list[ImageResult] = field(default_factory=list)
    unreadable: list[ImageResult] = field(default_factory=list)
    copies: list[ImageResult] = field(default_factory=list)
    """Pixel-exact copies of others among them: one part must not count twice."""
    in_bank: list[ImageResult] = field(default_factory=list)
    """Images of the kit's memory bank: their scores stay near 0 when the line changes."""
    learned: list[ImageResult] = field(default_factory=list)
    """Images that the station has learned, or that show the part of one: they are no sample of the line."""

    @property
    def patch_scores(self) -> list[float]:
        """The patch scores of the same images; empty where the kit compares whole images only."""
        return [
            image.result.patch_score for image in self.scored if image.result and image.result.patch_score is not None
        ]

    @property
    def scores(self) -> list[float]:
        """The scores to calibrate with."""
        return [image.result.score for image in self.scored if image.result is not None]

    @cached_property
    def groups(self) -> list[int]:
        """The group of each of them: images that show the same part, see `near_duplicate_files`."""
        found = (image.result.embedding for image in self.scored if image.result)
        embeddings = [embedding for embedding in found if embedding is not None]
        names = [Path(image.path).as_posix() for image in self.scored]
        return near_duplicate_files(np.stack(embeddings), Path(), names).tolist()

    @property
    def left_out(self) -> str:
        """How many images are left out and why; empty where none is."""
        reasons = (
            (self.unreadable, "unreadable"),
            (self.copies, "exact copies of others"),
            (self.in_bank, "in the kit's memory bank"),
            (self.learned, "learned, or of the part of a learned one"),
        )
        return ", ".join(f"{len(images)} {reason}" for images, reason in reasons if images)


def find_normal_images(folder: Path) -> list[Path]:
    """The images below a folder of normal images. SourceError where `good` lies beside other folders."""
    kind, reason = kind_of(folder)
    if kind != "folder":
        raise SourceError(f"--normal {folder}: {reason or 'it is not a folder'}; check the path")
    found = find_images([folder]).paths
    for place in (folder, folder / "test", folder / "train"):
        inside = {path.relative_to(place).parts[0] for path in found if path.is_relative_to(place)}
        for good in ("good", "normal"):
            others = sorted(name for name in inside - {good} if kind_of(place / name)[0] == "folder")
            if good in inside and others:
                raise SourceError(
                    f"--normal {folder}: '{good}' lies beside {', '.join(others)}, and all of them would count as "
                    f"normal; pass --normal {place / good}"
                )
    return list(found)


def score_normal_images(
    detector: Detector, paths: Sequence[Path], *, threads: int | None = None, report: Report = silent
) -> ScoredNormalImages:
    """Score the images, several at once. Load the detector with `threads=1`, see `score_images`."""
    found = ScoredNormalImages()
    seen: set[tuple[NearestImage, ...]] = set()
    with closing(score_images(detector, paths, threads=threads)) as results:
        for number, image in enumerate(results, start=1):
            report("scoring", number, len(paths))
            if image.result is None:
                found.unreadable.append(image)
                continue
            # Two different images never have the same distances to their nearest images in all 16 digits.
            if image.result.nearest_images in seen:
                found.copies.append(image)
            elif image.result.is_in_bank:
                of_kit = image.result.nearest_images[0].row < detector.manifest.normal_images.count
                (found.in_bank if of_kit else found.learned).append(image)
            else:
                found.scored.append(image)
            seen.add(image.result.nearest_images)
    if detector.additions:
        _leave_out_learned_parts(found, detector.additions)
    return found


def _leave_out_learned_parts(found: ScoredNormalImages, additions: Additions) -> None:
    """Leave out images that show the same part as a learned one; see `near_duplicates`."""
    embeddings = [image.result.embedding for image in found.scored if image.result]
    own = [each for each in embeddings if each is not None]
    if not own:
        return
    groups = near_duplicates(np.concatenate([np.stack(own), additions.embeddings]))
    same = np.isin(groups[: len(own)], groups[len(own) :])
    found.learned.extend(image for image, is_same in zip(found.scored, same, strict=True) if is_same)
    found.scored[:] = [image for image, is_same in zip(found.scored, same, strict=True) if not is_same]
