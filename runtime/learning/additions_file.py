"""The additions file: what a station has learned for one kit. One SQLite file beside the kit, bound to its SHA-256.

    <kit>.additions-<first 12 digits of the SHA-256>.sqlite

It has the images themselves, what each model of the kit computes from them, and who added and who undid them: nothing
is removed from it. The tables are described in docs/learning.md.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

import numpy as np

from msc_edge.drawing import thumbnail
from msc_edge.errors import OutputError, UnreadableImageError, UsageError
from msc_edge.images import DecodePolicy, decode_image
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime.additions import Addition, Additions, LearnedRows
from msc_edge.runtime.sqlite_errors import SQLITE_ERRORS, remedy_of

Kind = Literal["addition", "defect"]

_FORMAT = 1
_TIMEOUT = 5.0  # seconds to wait for another process that writes
_SCHEMA = """
CREATE TABLE kit (format INTEGER NOT NULL, sha256 TEXT NOT NULL, name TEXT NOT NULL);
CREATE TABLE image (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, time TEXT NOT NULL, by TEXT NOT NULL,
    reason TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, content BLOB NOT NULL, thumbnail BLOB NOT NULL,
    undone_time TEXT, undone_by TEXT, undone_reason TEXT
);
CREATE TABLE learned (
    image INTEGER NOT NULL REFERENCES image, model TEXT NOT NULL, embedding BLOB NOT NULL, patches BLOB NOT NULL,
    PRIMARY KEY (image, model)
);
"""


@dataclass(frozen=True)
class Change:
    """Who did something, when and why."""

    time: str
    """Local time with its offset, ISO 8601."""
    by: str
    reason: str

    @classmethod
    def now(cls, by: str, reason: str) -> "Change":
        """A change at this moment."""
        return cls(datetime.now().astimezone().isoformat(timespec="seconds"), by, reason)


@dataclass(frozen=True)
class KeptImage:
    """An image that the station keeps: one that was learned, or a confirmed defect, which guards what is learned."""

    id: int
    kind: Kind
    added: Change
    name: str
    """The file that it came from."""
    digest: str
    """SHA-256 of the content of that file, hexadecimal."""
    undone: Change | None
    """None: it counts."""


def additions_path(kit: Path, identity: KitIdentity) -> Path:
    """Where the additions of a kit are, a folder or a .zip: beside the kit itself, not beside a link to it."""
    kit = kit.resolve()
    return kit.with_name(f"{kit.name}{_ending(identity)}")


def renamed_additions(kit: Path, identity: KitIdentity) -> Path | None:
    """The additions of this kit under the name that it had before it was renamed; None where there are none."""
    path = additions_path(kit, identity)
    if path.exists():
        return None
    others = sorted(path.parent.glob(f"*{_ending(identity)}"))
    return next(
        (each for each in others if not each.with_name(each.name.removesuffix(_ending(identity))).exists()), None
    )


def _ending(identity: KitIdentity) -> str:
    return f".additions-{identity.sha256[:12]}.sqlite"


def digest_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class AdditionsFile:
    """An open additions file. Several processes may have it open. Close it, or use it as a context manager."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        """Use AdditionsFile.open."""
        self._database = database
        self.path = path

    @classmethod
    def open(cls, kit: Path, identity: KitIdentity, *, create: bool = False) -> Self:
        """Open the additions of a kit; `create` them if there are none.

        UsageError for a file that is missing, or that belongs to another kit, or that a newer msc-edge wrote;
        OutputError when it cannot be read or written.
        """
        path = additions_path(kit, identity)
        if other := renamed_additions(kit, identity):
            raise UsageError(f"{other}: is what was learned for this kit under another name; rename it to {path.name}")
        if not create and not path.exists():
            raise UsageError(f"{kit}: this station has learned nothing for it: there is no {path.name} beside it")
        if path.is_dir():
            raise UsageError(f"{path}: is a folder, and would be the file with what was learned; move it away")
        with _reported(path):
            database = sqlite3.connect(path, timeout=_TIMEOUT, isolation_level=None)
            try:
                database.execute("PRAGMA synchronous = FULL")
                database.execute("BEGIN IMMEDIATE" if create else "BEGIN")
                if create and not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        database.execute(statement)
                    database.execute("INSERT INTO kit VALUES (?, ?, ?)", (_FORMAT, identity.sha256, identity.name))
                found = database.execute("SELECT format, sha256, name FROM kit").fetchone()
                version, sha256, name = found or (0, "", "")
                database.execute("COMMIT")
            except BaseException:
                database.close()
                raise
        opened = cls(database, path)
        if version > _FORMAT or sha256 != identity.sha256:
            opened.close()
            wrong = (
                f"format {version} is of a newer msc-edge; install that one"
                if version > _FORMAT
                else f"belongs to another kit ({name!r}, SHA-256 {sha256[:12]}); move it away, or rename it back"
            )
            raise UsageError(f"{path}: {wrong}")
        return opened

    def add(
        self,
        kind: Kind,
        name: str,
        content: bytes,
        image: np.ndarray,
        rows: Mapping[Precision, LearnedRows],
        by: Change,
    ) -> KeptImage:
        """Keep an image with what the models learn from it. `image`: decoded, uint8 (height, width, 3)."""
        digest = digest_of(content)
        with self._writing() as database:
            id = database.execute(
                "INSERT INTO image (kind, time, by, reason, name, digest, content, thumbnail) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (kind, by.time, by.by, by.reason, name, digest, content, thumbnail(image)),
            ).lastrowid
            assert id is not None
            for model, learned in rows.items():
                blobs = [np.ascontiguousarray(each, "<f4").tobytes() for each in (learned.embedding, learned.patches)]
                database.execute("INSERT INTO learned VALUES (?, ?, ?, ?)", (id, model, *blobs))
        return KeptImage(id, kind, by, name, digest, None)

    def undo(self, id: int, by: Change) -> KeptImage:
        """Let an image count no more. UsageError for an id that is unknown, or undone already."""
        with self._writing() as database:
            found = next((image for image in self.images() if image.id == id), None)
            if found is None:
                raise UsageError(f"{self.path}: has no image {id}; --list shows them")
            if found.undone:
                raise UsageError(f"{self.path}: {id} was undone already, by {found.undone.by} at {found.undone.time}")
            database.execute(
                "UPDATE image SET undone_time = ?, undone_by = ?, undone_reason = ? WHERE id = ?",
                (by.time, by.by, by.reason, id),
            )
        return KeptImage(found.id, found.kind, found.added, found.name, found.digest, by)

    def images(self) -> list[KeptImage]:
        """All images, also those that were undone, the oldest first."""
        with _reported(self.path):
            rows = self._database.execute(
                "SELECT id, kind, time, by, reason, name, digest, undone_time, undone_by, undone_reason "
                "FROM image ORDER BY id"
            ).fetchall()
        return [
            KeptImage(id, kind, Change(time, by, reason), name, digest, Change(*undone) if undone[0] else None)
            for id, kind, time, by, reason, name, digest, *undone in rows
        ]

    def content(self, id: int) -> bytes:
        """The content of the file of an image."""
        with _reported(self.path):
            return self._database.execute("SELECT content FROM image WHERE id = ?", (id,)).fetchone()[0]

    def additions(self, model: Precision, *, dim: int, patch_dim: int | None) -> Additions:
        """What a model has learned. `dim`, `patch_dim`: of its embeddings; None: it compares whole images only.

        UsageError where an image was learned on a PC that could not run this model.
        """
        with _reported(self.path):
            rows = self._database.execute(
                "SELECT id, name, thumbnail, embedding, patches FROM image "
                "LEFT JOIN learned ON image = id AND model = ? "
                "WHERE kind = 'addition' AND undone_time IS NULL ORDER BY id",
                (model,),
            ).fetchall()
        if missing := [id for id, *_, patches in rows if patches is None]:
            raise UsageError(
                f"{self.path}: image {missing[0]} was learned without the model {model}; undo it and add it again on "
                "a PC that runs this model"
            )
        try:
            return Additions(
                [
                    Addition(
                        id,
                        name,
                        LearnedRows(_floats(embedding, dim)[0], _floats(patches, patch_dim or 1)),
                        decode_image(np.frombuffer(small, np.uint8)),
                    )
                    for id, name, small, embedding, patches in rows
                ]
            )
        except (ValueError, IndexError, UnreadableImageError) as error:
            raise UsageError(f"{self.path}: is damaged ({error}); move it away, or copy it again") from error

    def decoded(self, kind: Kind, policy: DecodePolicy) -> Iterator[tuple[KeptImage, np.ndarray]]:
        """The images of a kind that count, uint8 (height, width, 3)."""
        for image in self.images():
            if image.kind == kind and image.undone is None:
                yield image, decode_image(np.frombuffer(self.content(image.id), np.uint8), policy)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _reported(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def _floats(blob: bytes, columns: int) -> np.ndarray:
    """Float32 (n, columns). ValueError for other sizes, and for numbers that are not finite."""
    found = np.frombuffer(blob, "<f4").reshape(-1, columns)
    if not np.isfinite(found).all():
        raise ValueError("not all numbers are finite")
    return found


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into an OutputError."""
    try:
        yield
    except SQLITE_ERRORS as error:
        remedy = remedy_of(error, "move it away, or copy it again")
        raise OutputError(f"{path}: cannot be used ({error}); {remedy}") from error
