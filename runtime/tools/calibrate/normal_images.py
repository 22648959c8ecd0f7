"""NormalImageScores good images from the line: found, scored, and those left out that would spoil a calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import SourceError
from msc_edge.files import kind_of
from msc_edge.images import find_images
from msc_edge.parallel import ordered_map
from msc_edge.progress import Report, silent
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.batch import Row, score_file_with_result
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.result import NearestImage, Result


@dataclass(frozen=True)
class NormalImageScores:
    """What came of the fresh images; verdicts and p-values are by the limits that the kit has had."""

    scored: list[Row]
    unreadable: list[Row]
    copies: list[Row]
    """Exact copies of others among them, pixel by pixel: the same part must not count twice."""
    in_bank: list[Row]
    """Images that the kit has learnt from: their scores are near 0 whatever the line does."""

    @property
    def left_out(self) -> str:
        """How many are left out and why, in words; empty when none is."""
        reasons = (
            (self.unreadable, "cannot be read"),
            (self.copies, "exact copies of others"),
            (self.in_bank, "in the kit's bank"),
        )
        return ", ".join(f"{len(rows)} {reason}" for rows, reason in reasons if rows)


def find_normal_images(folder: Path) -> list[Path]:
    """The images below a folder of good ones. SourceError where `good` lies beside other folders."""
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
                    f"--normal {folder}: '{good}' lies beside {', '.join(others)}, and all of them would be taken for "
                    f"good parts; pass --normal {place / good}"
                )
    return list(found)


def score_normal_images(
    detector: Detector, paths: Sequence[Path], *, threads: int | None = None, report: Report = silent
) -> NormalImageScores:
    """Score them, several at once. Load the detector with `threads=1`, see score_files."""
    fresh = NormalImageScores([], [], [], [])
    seen: set[tuple[NearestImage, ...]] = set()

    def score(path: Path) -> tuple[Row, Result | None]:
        return score_file_with_result(detector, path)

    for done, (row, result) in enumerate(ordered_map(score, paths, workers=threads or usable_cores()), 1):
        report("scoring", done, len(paths))
        if result is None:
            fresh.unreadable.append(row)
        elif (
            result.nearest_images in seen
        ):  # no two images are as far from their nearest_images, to the last of 16 digits
            fresh.copies.append(row)
        elif result.is_in_bank:
            fresh.in_bank.append(row)
        else:
            fresh.scored.append(row)
        if result is not None:
            seen.add(result.nearest_images)
    return fresh
