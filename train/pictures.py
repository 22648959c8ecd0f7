"""The normal pictures: found, copies left out, and a part held out for calibration."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from msc_edge.errors import KitError, SourceError
from msc_edge.files import kind_of, sha256_of
from msc_edge.images import find_images
from msc_edge.progress import Report, silent

Role = Literal["bank", "calibration", "copy", "unreadable"]

FEWEST = 3  # two for the score, one held out
_BLOCKS_HELD_OUT = 10


@dataclass(frozen=True)
class Picture:
    """One picture of the normal set and what it is used for."""

    path: str
    """Relative to the folder of the normal set, with forward slashes."""
    sha256: str
    role: Role


def normal_folder(named: str | Path) -> Path:
    """The folder that holds the normal pictures: `named`, or its `train/good` in the MVTec-AD / anomalib layout.

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


def find_normals(folder: Path, *, report: Report = silent) -> list[Picture]:
    """Find the pictures below `folder`, sorted; all get the role `bank`, but the later of exact copies `copy`."""
    paths = find_images([folder]).paths
    seen: set[str] = set()
    pictures: list[Picture] = []
    for done, path in enumerate(paths, start=1):
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}; check the permissions") from error
        role: Role = "copy" if digest in seen else "bank"
        seen.add(digest)
        pictures.append(Picture(path.relative_to(folder).as_posix(), digest, role))
        report("looking for copies", done, len(paths))
    return pictures


def hold_out(pictures: Sequence[Picture], *, holdout: float) -> list[Picture]:
    """Give a share `holdout` of the usable pictures the role `calibration`, in blocks spread evenly over the order.

    Neighbours in the order of the files are often pictures of one part. In blocks they stay on one side of the
    split, so that the held-out ones are as new to the bank as tomorrow's parts.
    """
    usable = [i for i, picture in enumerate(pictures) if picture.role in ("bank", "calibration")]
    if len(usable) < FEWEST:
        raise SourceError(
            f"of {len(pictures)} pictures found, {len(usable)} can be read and are no copies of others; "
            f"at least {FEWEST} are needed, and a few hundred are a good start"
        )
    held = min(len(usable) - 2, max(1, round(holdout * len(usable))))
    blocks = min(_BLOCKS_HELD_OUT, held)
    chosen: set[int] = set()
    for block in range(blocks):
        size = held * (block + 1) // blocks - held * block // blocks
        # Each block stands in the middle of its part of the order.
        start, end = len(usable) * block // blocks, len(usable) * (block + 1) // blocks
        first = start + (end - start - size) // 2
        chosen.update(usable[first : first + size])
    return [
        Picture(picture.path, picture.sha256, ("calibration" if i in chosen else "bank"))
        if picture.role in ("bank", "calibration")
        else picture
        for i, picture in enumerate(pictures)
    ]


def fingerprint(pictures: Sequence[Picture]) -> str:
    """SHA-256 over the sorted lines `sha256  path`: equal for equal data, wherever it lies."""
    lines = sorted(f"{picture.sha256}  {picture.path}\n" for picture in pictures)
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def write_pictures(path: Path, pictures: Sequence[Picture]) -> None:
    """Write the table of pictures as CSV."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        # Quoted throughout: Python 3.11 leaves a carriage return in a name unquoted, and then cannot read it.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(("path", "sha256", "role"))
        writer.writerows((picture.path, picture.sha256, picture.role) for picture in pictures)


def read_pictures(path: Path) -> list[Picture]:
    """Read what `write_pictures` wrote."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    if rows and set(rows[0]) != {"path", "sha256", "role"}:
        raise KitError(f"{path}: not a table of pictures; train again")
    return [Picture(row["path"], row["sha256"], row["role"]) for row in rows]  # pyright: ignore[reportArgumentType]
