"""The additions file: what a station has learned for one kit. One SQLite file beside the kit, bound to its SHA-256.

    <kit>.additions-<first 12 digits of the SHA-256>.sqlite

It has the images themselves, what each model of the kit computes from them, the station limits, and who added and who
undid them: nothing is removed from it. The tables are described in docs/learning.md.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np

from msc_edge.drawing import thumbnail
from msc_edge.errors import UsageError
from msc_edge.images import DecodePolicy, decode_image
from msc_edge.kit.manifest import Precision
from msc_edge.kit.model_entry import Model
from msc_edge.kit.opening import Kit, KitIdentity
from msc_edge.runtime.additions import Addition, Additions, LearnedRows
from msc_edge.runtime.additions_database import (
    additions_path,
    connected,
    prepare_limits,
    renamed_additions,
    reported,
    undamaged,
)
from msc_edge.runtime.kept_images import Change, KeptImage, Kind
from msc_edge.runtime.station_limits import StationLimits

_LOG = logging.getLogger("msc_edge")


def digest_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class AdditionsFile:
    """An open additions file. Several processes may have it open. Close it, or use it as a context manager."""

    def __init__(self, path: Path, identity: KitIdentity) -> None:
        """Use AdditionsFile.open."""
        self.path = path
        self._identity = identity
        self._database: sqlite3.Connection | None = None  # None: there is no file yet

    @classmethod
    def open(cls, kit: Path, identity: KitIdentity, *, create: bool = False) -> Self:
        """Open the additions of a kit. With `create` there may be none: the first image that is kept creates the file.

        UsageError for a file that is missing, or that belongs to another kit, or that a newer msc-edge wrote; KitError
        for one that is damaged; OutputError when it cannot be read or written.
        """
        path = additions_path(kit, identity)
        if other := renamed_additions(kit, identity):
            raise UsageError(f"{other}: is what was learned for this kit under another name; rename it to {path.name}")
        opened = cls(path, identity)
        if opened._opened() is None and not create:
            raise UsageError(f"{kit}: this station has learned nothing for it: there is no {path.name} beside it")
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
        return replace(found, undone=by)

    def images(self) -> list[KeptImage]:
        """All images, also those that were undone, the oldest first."""
        rows = self._rows(
            "SELECT id, kind, time, by, reason, name, digest, undone_time, undone_by, undone_reason "
            "FROM image ORDER BY id"
        )
        with undamaged(self.path):
            return [
                KeptImage(
                    id, _kind(kind), _change(time, by, why), name, digest, _change(*undone) if undone[0] else None
                )
                for id, kind, time, by, why, name, digest, *undone in rows
            ]

    def content(self, id: int) -> bytes:
        """The content of the file of an image."""
        return self._rows("SELECT content FROM image WHERE id = ?", (id,))[0][0]

    def additions(self, precision: Precision, model: Model) -> Additions:
        """What a model of the kit has learned, and the station limits if they count.

        UsageError where an image was learned on a PC that could not run this model; KitError for damaged rows.
        """
        rows = self._rows(
            "SELECT id, name, digest, thumbnail, embedding, patches FROM image "
            "LEFT JOIN learned ON image = id AND model = ? "
            "WHERE kind = 'addition' AND undone_time IS NULL ORDER BY id",
            (precision,),
        )
        if missing := [id for id, *_, patches in rows if patches is None]:
            raise UsageError(
                f"{self.path}: image {missing[0]} was learned without the model {precision}; undo it and add it again "
                "on a PC that runs this model"
            )
        patch_dim = model.banks.patches.dim if model.banks.patches else 1
        with undamaged(self.path):
            learned = [
                Addition(
                    id,
                    name,
                    LearnedRows(_floats(embedding, model.dim)[0], _floats(patches, patch_dim)),
                    decode_image(np.frombuffer(small, np.uint8)),
                    digest,
                )
                for id, name, digest, small, embedding, patches in rows
            ]
            limits = self.limits()
            if limits is None:
                return Additions(learned)
            if withdrawn := limits.withdrawn(self.images()):
                return Additions(learned, withdrawn=withdrawn)
            return Additions(learned, limits.calibration(precision, model))

    def limits(self) -> StationLimits | None:
        """The latest station limits, also where their additions count no more; None: none, or they were undone."""
        row = self._latest_limits()
        if row is None:
            return None
        _, time, by, reason, learned, calibrations = row
        with undamaged(self.path):
            return StationLimits.of_texts(_change(time, by, reason), learned, calibrations)

    def set_limits(self, limits: StationLimits) -> None:
        """Let these station limits count. Earlier ones stay in the record."""
        made = limits.made
        with self._writing() as database:
            prepare_limits(database)
            database.execute(
                "INSERT INTO limits (time, by, reason, learned, calibrations) VALUES (?, ?, ?, ?, ?)",
                (made.time, made.by, made.reason, *limits.texts()),
            )

    def undo_limits(self, by: Change) -> StationLimits:
        """Let the station limits count no more: those of the kit do. UsageError where there are none."""
        with self._writing() as database:
            limits, row = self.limits(), self._latest_limits()
            if limits is None or row is None:
                raise UsageError(f"{self.path}: has no station limits; --list shows what it has")
            database.execute(
                "UPDATE limits SET undone_time = ?, undone_by = ?, undone_reason = ? WHERE id = ?",
                (by.time, by.by, by.reason, row[0]),
            )
        return limits

    def decoded(self, kind: Kind, policy: DecodePolicy) -> Iterator[tuple[KeptImage, np.ndarray]]:
        """The images of a kind that count, uint8 (height, width, 3). KitError where one cannot be decoded."""
        for image in self.images():
            if image.kind == kind and image.undone is None:
                with undamaged(self.path):
                    decoded = decode_image(np.frombuffer(self.content(image.id), np.uint8), policy)
                yield image, decoded

    def close(self) -> None:
        """Close the file."""
        if self._database:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> sqlite3.Connection | None:
        """None: there is no file yet."""
        if self._database is None and self.path.exists():
            self._database = connected(self.path, self._identity)
        return self._database

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        database = self._opened()
        if database is None:
            return []
        with reported(self.path):
            return database.execute(query, values).fetchall()

    def _latest_limits(self) -> Sequence[Any] | None:
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'limits'"):
            return None
        rows = self._rows(
            "SELECT id, time, by, reason, learned, calibrations, undone_time FROM limits ORDER BY id DESC LIMIT 1"
        )
        return rows[0][:-1] if rows and rows[0][-1] is None else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._opened() is None:
            self._database = connected(self.path, self._identity, create=True)
        database = self._database
        assert database is not None
        with reported(self.path):
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise


def station_additions(kit: Kit, precision: Precision) -> Additions:
    """What this station has learned for a model of a kit; see `AdditionsFile.open` and `AdditionsFile.additions`.

    Station limits that count no more are logged as a warning.
    """
    with AdditionsFile.open(kit.path, kit.identity) as file:
        additions = file.additions(precision, kit.model(precision))
    if additions.withdrawn:
        _LOG.warning("%s", additions.withdrawn)
    return additions


def _kind(text: str) -> Kind:
    """ValueError for another text."""
    if text not in get_args(Kind):
        raise ValueError(f"an image is of the kind {text!r}")
    return cast("Kind", text)


def _change(time: str, by: str, reason: str) -> Change:
    """ValueError or TypeError for a time that is none."""
    datetime.fromisoformat(time)
    return Change(time, by, reason)


def _floats(blob: bytes, columns: int) -> np.ndarray:
    """Float32 (n, columns). ValueError for other sizes, and for numbers that are not finite."""
    found = np.frombuffer(blob, "<f4").reshape(-1, columns)
    if not np.isfinite(found).all():
        raise ValueError("not all numbers are finite")
    return found
