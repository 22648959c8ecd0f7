"""The normal images: found, copies left out, and a part held out for calibration."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Literal

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.files import kind_of, sha256_of
from msc_edge.image_files import find_images
from msc_edge.progress import Report, silent

Role = Literal["bank", "calibration", "copy", "unreadable"]

FEWEST = 3  # two for the score, one held out
BY_FOLDER = "folder"  # of --group-by: the folder of an image is its group
_BLOCKS_HELD_OUT = 10


@dataclass(frozen=True)
class NormalImage:
    """One image of the normal set and what it is used for."""

    path: str
    """Relative to the folder of the normal set, with forward slashes."""
    sha256: str
    role: Role


def normal_folder(named: str | Path) -> Path:
    """The folder that holds the normal images: `named`, or its `train/good` in the MVTec-AD / anomalib layout.

    Raises SourceError where `good` lies beside other folders, which would be trained on as if they were good.
    """
    if not str(named):  # as a Path it would be the current folder
        raise SourceError("--normal: an empty path was given, perhaps from a variable that is not set; name a folder")
    given = Path(named)
    kind, reason = kind_of(given)
    if kind != "folder":
        raise SourceError(f"--normal {given}: {reason or 'it is not a folder'}; check the path")
    for layout in (Path("train", "good"), Path("train", "normal")):
        if _is_folder(given / layout):
            return given / layout
    try:
        # As find_images passes over what is hidden.
        inside = [path.name for path in given.iterdir() if not path.name.startswith(".") and _is_folder(path)]
    except OSError as error:
        raise SourceError(f"--normal {given}: cannot be listed: {error.strerror}; check the permissions") from error
    for good in ("good", "normal"):
        others = sorted(name for name in inside if name != good)
        if good in inside and others:
            raise SourceError(
                f"--normal {given}: holds '{good}' beside {', '.join(others)}, and all of them would be taken for good "
                f"parts; pass --normal {given / good}"
            )
    return given


def _is_folder(path: Path) -> bool:
    return kind_of(path)[0] == "folder"


def find_normals(folder: Path, *, report: Report = silent) -> list[NormalImage]:
    """Find the images below `folder`, sorted; all get the role `bank`, but the later of exact copies `copy`."""
    paths = find_images([folder]).paths
    seen: set[str] = set()
    images: list[NormalImage] = []
    for done, path in enumerate(paths, start=1):
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}; check the permissions") from error
        role: Role = "copy" if digest in seen else "bank"
        seen.add(digest)
        images.append(NormalImage(path.relative_to(folder).as_posix(), digest, role))
        report("looking for copies", done, len(paths))
    return images


def hold_out(images: Sequence[NormalImage], *, holdout: float, group_by: str | None = None) -> list[NormalImage]:
    """Give a share `holdout` of the usable images the role `calibration`, spread evenly over the order.

    Images of one part must not be on both sides of the split, or the held-out ones are not as new to the bank as
    tomorrow's parts. NearestRows in the order of the files are often of one part, so blocks of them are held out; with
    `group_by` (see `groups_of`) whole groups are, until the share is nearest to `holdout`. Raises SourceError with
    too few images, UsageError for groups that cannot be split.
    """
    usable = [i for i, image in enumerate(images) if image.role in ("bank", "calibration")]
    if len(usable) < FEWEST:
        raise SourceError(
            f"of {len(images)} images found, {len(usable)} can be read and are no copies of others; "
            f"at least {FEWEST} are needed, and a few hundred are a good start"
        )
    wanted = min(len(usable) - 2, max(1, round(holdout * len(usable))))
    if group_by is None:
        chosen = blocks_held_out(len(usable), wanted)
    else:
        chosen = _groups(groups_of([images[i].path for i in usable], group_by), wanted, group_by)
    held = {usable[place] for place in chosen}
    return [
        NormalImage(image.path, image.sha256, ("calibration" if i in held else "bank"))
        if image.role in ("bank", "calibration")
        else image
        for i, image in enumerate(images)
    ]


def groups_of(paths: Sequence[str], group_by: str) -> list[str]:
    """The group of each path: its folder under `folder`, else what the one group of the pattern `group_by` matches.

    The pattern is a regular expression of Python, searched for anywhere in the path, which is relative to the normal
    folder and has forward slashes: `part_([0-9]+)_` puts part_07_a.png and part_07_b.png together. UsageError when it
    is no such pattern, or matches nothing in one of the paths.
    """
    if group_by == BY_FOLDER:
        return [PurePosixPath(path).parent.as_posix() for path in paths]
    pattern = group_pattern(group_by)
    found = [match and match.group(1) for match in map(pattern.search, paths)]
    if without := [path for path, group in zip(paths, found, strict=True) if group is None]:
        raise UsageError(
            f"--group-by {group_by}: matches nothing in {len(without)} of {len(paths)} paths, the first of them "
            f"{without[0]}; widen the pattern"
        )
    return [group for group in found if group is not None]


def group_pattern(group_by: str) -> re.Pattern[str]:
    """A pattern of --group-by, compiled. UsageError when it is none, or has not exactly one group."""
    try:
        pattern = re.compile(group_by)
        group_by.encode()  # it will stand in run.json
    except (re.error, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise UsageError(f"--group-by {group_by}: not a regular expression ({error}); correct it") from error
    if pattern.groups != 1:
        raise UsageError(
            f"--group-by {group_by}: has {pattern.groups} groups in parentheses, where one is expected; put in "
            "parentheses what images of one part have in common, such as 'part_([0-9]+)', or pass: --group-by folder"
        )
    return pattern


def blocks_held_out(count: int, wanted: int) -> set[int]:
    """`wanted` of `count` places, in blocks spread over the order."""
    blocks = min(_BLOCKS_HELD_OUT, wanted)
    chosen: set[int] = set()
    for block in range(blocks):
        size = wanted * (block + 1) // blocks - wanted * block // blocks
        # Each block stands in the middle of its part of the order.
        start, end = count * block // blocks, count * (block + 1) // blocks
        first = start + (end - start - size) // 2
        chosen.update(range(first, first + size))
    return chosen


def _groups(groups: Sequence[str], wanted: int, group_by: str) -> set[int]:
    """About `wanted` of the places, in whole groups."""
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    if len(places) == 1:
        raise UsageError(
            f"--group-by {group_by}: all {len(groups)} images are of one group, '{groups[0]}', so none can be held "
            "out; choose a finer pattern, or leave --group-by out"
        )
    in_order = list(places.values())
    chosen: set[int] = set()
    for number in _spread(len(in_order)):
        group = in_order[number]
        # Nearer to the wanted share with this group than without it; two images always stay in the bank.
        nearer = abs(len(chosen) + len(group) - wanted) < abs(len(chosen) - wanted)
        if nearer and len(groups) - len(chosen) - len(group) >= 2:
            chosen.update(group)
    if not chosen:
        smallest = min(map(len, in_order))
        raise UsageError(
            f"--group-by {group_by}: {wanted} of {len(groups)} images are to be held out, and the smallest of the "
            f"{len(in_order)} groups has {smallest}; pass --holdout {math.ceil(100 * smallest / len(groups)) / 100:g}, "
            "or choose a finer pattern"
        )
    return chosen


def _spread(count: int) -> list[int]:
    """0 to count - 1, each once, so that any first few of them are spread over the whole.

    Digits in base two, reversed (van der Corput 1935).
    """
    bits = max(1, (count - 1).bit_length())
    return list(dict.fromkeys(int(f"{i:0{bits}b}"[::-1], 2) * count >> bits for i in range(1 << bits)))


def fingerprint(images: Sequence[NormalImage]) -> str:
    """SHA-256 over the sorted lines `sha256  path`: equal for equal data, wherever it lies."""
    lines = sorted(f"{image.sha256}  {image.path}\n" for image in images)
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def write_image_table(path: Path, images: Sequence[NormalImage]) -> None:
    """Write the table of images as CSV."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        # Quoted throughout: Python 3.11 leaves a carriage return in a name unquoted, and then cannot read it.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(("path", "sha256", "role"))
        writer.writerows((image.path, image.sha256, image.role) for image in images)


def read_image_table(path: Path) -> list[NormalImage]:
    """Read what `write_image_table` wrote."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != {"path", "sha256", "role"}:
        raise KitError(f"{path}: not a table of images; train again")
    return [NormalImage(row["path"], row["sha256"], row["role"]) for row in rows]  # pyright: ignore[reportArgumentType]
