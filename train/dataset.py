"""The normal images: find them, leave out duplicates, hold out a part for calibration."""

import csv
import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.files import kind_of, sha256_of
from msc_edge.groups import numbered
from msc_edge.image_files import find_images
from msc_edge.progress import Report, silent
from msc_edge.text import csv_cell, csv_text

Role = Literal["bank", "calibration", "duplicate", "unreadable"]

MIN_IMAGES = 3  # two for the score, one held out
BY_FOLDER = "folder"  # value of --group-by: the images of one folder form a group
SIMILAR = "similar"  # images that show the same part, see `near_duplicate_files`
_HELD_OUT_BLOCKS = 10
_OLD_ROLES = {"copy": "duplicate"}  # runs of msc-edge 0.1.0
_OLD_IMAGE_TABLE = "pictures.csv"


@dataclass(frozen=True)
class NormalImage:
    """One normal image and its role in the run."""

    path: str
    """Relative to the folder of normal images, with forward slashes."""
    sha256: str
    """Of the file; empty where it cannot be read."""
    role: Role
    group: int | None = None
    """Images with the same number show the same part; None: not used, or a run of an older msc-edge."""
    pixels: str = field(default="", compare=False)
    """SHA-256 of the decoded image, see `pixel_digest`; empty where it was not decoded. Not in the image table."""


def normal_folder(normal: str | Path) -> Path:
    """The folder that holds the normal images: `normal`, or its `train/good` in the MVTec-AD / anomalib layout.

    Raises SourceError if there is no such folder, and if `good` has sibling folders: they may contain defects.
    """
    if not str(normal):  # as a Path it would be the current folder
        raise SourceError("--normal: the path is empty; check the variable it comes from, or name a folder")
    given = Path(normal)
    kind, reason = kind_of(given)
    if kind != "folder":
        raise SourceError(f"--normal {given}: {reason or 'it is not a folder'}; check the path")
    for layout in (Path("train", "good"), Path("train", "normal")):
        if _is_folder(given / layout):
            return given / layout
    try:
        # Hidden folders do not count: find_images skips them.
        inside = [path.name for path in given.iterdir() if not path.name.startswith(".") and _is_folder(path)]
    except OSError as error:
        raise SourceError(f"--normal {given}: cannot be listed: {error.strerror}; check the permissions") from error
    for good in ("good", "normal"):
        others = sorted(name for name in inside if name != good)
        if good in inside and others:
            raise SourceError(
                f"--normal {given}: contains '{good}' and also {', '.join(others)}, and all of them would be used as "
                f"normal images; pass --normal {given / good}"
            )
    return given


def _is_folder(path: Path) -> bool:
    return kind_of(path)[0] == "folder"


def find_normal_images(folder: Path, *, report: Report = silent) -> list[NormalImage]:
    """Find the images below `folder`, sorted by path. Of identical files, all but the first are duplicates.

    Files that cannot be read are included: decoding them gives the reason.
    """
    paths = find_images([folder]).paths
    seen: set[str] = set()
    images: list[NormalImage] = []
    for done, path in enumerate(paths, start=1):
        try:
            digest = sha256_of(path)
        except OSError:  # decoding it gives the reason, and marks it as unreadable
            digest = ""
        role: Role = "duplicate" if digest in seen else "bank"
        if digest:
            seen.add(digest)
        images.append(NormalImage(path.relative_to(folder).as_posix(), digest, role))
        report("finding duplicates", done, len(paths))
    return images


def hold_out(
    images: Sequence[NormalImage], *, holdout: float, groups: Sequence[int], group_by: str | None = None
) -> list[NormalImage]:
    """Assign the role `calibration` to a share `holdout` of the usable images, in whole groups.

    `groups`: the group of each usable image: `groups_of` a `group_by`, or `near_duplicate_files` for `similar`. Images
    of one part must not be on both sides of the split: the held-out images would then be more similar to the memory
    bank than the images of new parts. Consecutive files often show similar parts, so blocks of consecutive groups are
    held out, spread evenly over the order. Raises SourceError for too few images, UsageError for a `group_by` without
    any split.
    """
    usable = [i for i, image in enumerate(images) if image.role in ("bank", "calibration")]
    if len(usable) < MIN_IMAGES:
        raise SourceError(
            f"of {len(images)} images found, {len(usable)} are readable and not duplicates; "
            f"at least {MIN_IMAGES} are needed, a few hundred are recommended"
        )
    wanted = min(len(usable) - 2, max(1, round(holdout * len(usable))))
    sizes = np.bincount(groups).tolist()
    chosen = _held_out_groups(sizes, wanted)
    if not chosen and group_by in (None, SIMILAR) and min(sizes) <= len(usable) / 2:
        chosen = {sizes.index(min(sizes))}  # more than wanted, and still better than a group on both sides
    if chosen:
        held_out = {place for place, group in enumerate(groups) if group in chosen}
    elif group_by not in (None, SIMILAR):
        raise _no_split(group_by, sizes, wanted)
    else:  # all images are alike: they count as one image, and a part of them is held out all the same
        held_out = held_out_blocks(len(usable), wanted)
    assigned = {
        i: replace(images[i], role="calibration" if place in held_out else "bank", group=int(groups[place]))
        for place, i in enumerate(usable)
    }
    return [assigned.get(i, image) for i, image in enumerate(images)]


def _no_split(group_by: str, sizes: Sequence[int], wanted: int) -> UsageError:
    total, smallest = sum(sizes), min(sizes)
    if len(sizes) == 1:
        return UsageError(
            f"--group-by {group_by}: all {total} images are in one group, so none can be held out; choose a finer "
            "pattern, or omit --group-by"
        )
    return UsageError(
        f"--group-by {group_by}: {wanted} of {total} images should be held out, but the smallest of the {len(sizes)} "
        f"groups has {smallest}; pass --holdout {math.ceil(100 * smallest / total) / 100:g}, or choose a finer pattern"
    )


def groups_of(paths: Sequence[str], group_by: str | None) -> np.ndarray:
    """The number of the group of each path, int64 (n,), in the order of the first path of each.

    `group_by`: None, where each image is a group; `folder`; or a Python regular expression with one group, searched
    for anywhere in the path, which is relative to the folder of normal images and uses forward slashes:
    `part_([0-9]+)_` puts part_07_a.png and part_07_b.png into one group. Raises UsageError for an invalid pattern, and
    if it does not match one of the paths.
    """
    if group_by is None:
        return np.arange(len(paths))
    if group_by == BY_FOLDER:
        return numbered(np.array([PurePosixPath(path).parent.as_posix() for path in paths]))
    pattern = _group_pattern(group_by)
    found = [match and match.group(1) for match in map(pattern.search, paths)]
    if without := [path for path, group in zip(paths, found, strict=True) if group is None]:
        raise UsageError(
            f"--group-by {group_by}: does not match {len(without)} of {len(paths)} paths, such as {without[0]}; "
            "widen the pattern"
        )
    return numbered(np.array(found))


def _group_pattern(group_by: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(group_by)
        group_by.encode()  # run.json will contain it
    except (re.error, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise UsageError(f"--group-by {group_by}: not a valid regular expression ({error}); correct it") from error
    if pattern.groups != 1:
        raise UsageError(
            f"--group-by {group_by}: has {pattern.groups} groups in parentheses, expected 1; put in parentheses what "
            "images of one part have in common, such as 'part_([0-9]+)', or pass: --group-by folder"
        )
    return pattern


def held_out_blocks(count: int, wanted: int) -> set[int]:
    """Choose `wanted` of `count` places, in at most ten blocks that are spread evenly over the order."""
    return _held_out_groups([1] * count, wanted)


def _held_out_groups(sizes: Sequence[int], wanted: int) -> set[int]:
    """Choose groups with about `wanted` images in all; at least two images stay. `sizes`: of the groups, in order."""
    starts = [0, *accumulate(sizes)]
    total = starts[-1]
    chosen: set[int] = set()
    held = 0

    def take(group: int, due: int) -> bool:
        """Take the group if that brings the number nearer to `due`."""
        nonlocal held
        nearer = abs(held + sizes[group] - due) < abs(held - due)
        if group in chosen or not nearer or total - held - sizes[group] < 2:
            return False
        chosen.add(group)
        held += sizes[group]
        return True

    blocks = min(_HELD_OUT_BLOCKS, wanted)
    for block in range(blocks):
        due = wanted * (block + 1) // blocks
        # Each block lies in the middle of its part of the order.
        start, end = total * block // blocks, total * (block + 1) // blocks
        size = due - wanted * block // blocks
        group = bisect_left(starts, start + (end - start - size) // 2)
        while group < len(sizes) and take(group, due):
            group += 1
    for group in _spread(len(sizes)):
        take(group, wanted)
    return chosen


def _spread(count: int) -> list[int]:
    """The numbers 0 to count - 1, ordered so that any first few of them are spread over the whole range.

    They are sorted by their reversed binary digits (van der Corput 1935).
    """
    bits = max(1, (count - 1).bit_length())
    return list(dict.fromkeys(int(f"{i:0{bits}b}"[::-1], 2) * count >> bits for i in range(1 << bits)))


def fingerprint(images: Sequence[NormalImage]) -> str:
    """SHA-256 of the sorted lines `sha256  path`: equal for equal data in any location."""
    lines = sorted(f"{image.sha256}  {image.path}\n" for image in images)
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def write_image_table(path: Path, images: Sequence[NormalImage]) -> None:
    """Write the image table of a run as CSV, with the columns path, sha256, role and group."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        # Quote all fields: Python 3.11 leaves a carriage return in a name unquoted, and then cannot read it back.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(("path", "sha256", "role", "group"))
        writer.writerows((csv_cell(each.path), each.sha256, each.role, each.group) for each in images)


def read_image_table(path: Path) -> list[NormalImage]:
    """Read the image table of a run, also of one that msc-edge 0.1.0 wrote: `pictures.csv` in the same folder.

    Raises KitError if the file is not an image table.
    """
    if not path.exists() and (old := path.with_name(_OLD_IMAGE_TABLE)).exists():
        path = old
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) - {"group"} != {"path", "sha256", "role"}:
        raise KitError(f"{path}: not an image table; train again")
    return [
        NormalImage(
            csv_text(row["path"]),
            row["sha256"],
            _OLD_ROLES.get(row["role"], row["role"]),  # pyright: ignore[reportArgumentType]
            int(row["group"]) if row.get("group") else None,
        )
        for row in rows
    ]
