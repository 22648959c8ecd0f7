"""Additions: normal images that a detector has learned at the line. The kit stays as it is.

An addition is the embedding of an image, and those of its patches that are unlike the patch bank. A detector compares
with them as with its own banks, so scores can only fall.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from msc_edge.kit.model_entry import CalibrationInfo
from msc_edge.patch_rows import distances_to


@dataclass(frozen=True)
class LearnedRows:
    """What one model of a kit learns from an image."""

    embedding: np.ndarray
    """Unit length, float32 (dim,)."""
    patches: np.ndarray
    """Float32 (n, patch dim); n may be 0."""


@dataclass(frozen=True)
class Addition:
    """One normal image that was learned."""

    id: int
    """In the additions file."""
    name: str
    """The file that it was learned from."""
    rows: LearnedRows
    thumbnail: np.ndarray = field(repr=False)
    """uint8 (height, width, 3), RGB, at most 256 pixels on the longer side."""
    digest: str = ""
    """SHA-256 of the content of that file, hexadecimal."""

    @classmethod
    def candidate(cls, rows: LearnedRows) -> "Addition":
        """One that is in no file yet, to see what it would do."""
        return cls(0, "", rows, np.empty((0, 0, 3), np.uint8))


@dataclass(frozen=True)
class Additions:
    """Additions for one model, in the order in which they were learned, and the limits that count with them."""

    learned: Sequence[Addition] = ()
    calibration: CalibrationInfo | None = None
    """Of the station limits (see `StationLimits`); None: the limits are those of the kit."""
    withdrawn: str | None = None
    """Why there are station limits that do not count; None: there are none, or they count."""

    def __len__(self) -> int:
        return len(self.learned)

    @property
    def names(self) -> list[str]:
        """What results call them, one for each addition."""
        return [f"learned {each.id}: {each.name}" for each in self.learned]

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256, hexadecimal, of the digests of all images that were learned, and of the station limits; None: none.

        Two detectors with the same kit, model and `sha256` give every image the same result.
        """
        if not self.learned:
            return None
        limits = self.calibration.model_dump_json() if self.calibration else ""
        return hashlib.sha256("\n".join([*sorted(each.digest for each in self.learned), limits]).encode()).hexdigest()

    @property
    def embeddings(self) -> np.ndarray:
        """Float32 (additions, dim)."""
        return np.stack([each.rows.embedding for each in self.learned])

    @cached_property
    def patches(self) -> np.ndarray:
        """Those of all additions, float32 (n, patch dim)."""
        return np.concatenate([each.rows.patches for each in self.learned])

    def distances(self, to_bank: np.ndarray, patches: np.ndarray) -> np.ndarray:
        """Distance of each patch to the nearest row of the patch bank or of an addition, float32 (rows, columns).

        `to_bank`: patch distances, float32 (rows, columns). `patches`: their embeddings, float32 (rows, columns, dim).
        """
        if not len(self.patches):
            return to_bank
        added = distances_to(self.patches, patches.reshape(-1, patches.shape[2])).reshape(to_bank.shape)
        return np.minimum(to_bank, added)
