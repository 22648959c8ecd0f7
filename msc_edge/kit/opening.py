"""Opening a kit: a folder, or the same folder in one .zip, checked byte by byte before anything in it is used.

`manifest.json` holds the SHA-256 of every other file, and `manifest.sha256` that of manifest.json, in the format of
`sha256sum -c`.
"""

import json
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from msc_edge.arguments import path_argument
from msc_edge.errors import KitError, OutputError
from msc_edge.kit.container import Verified, verify_folder, verify_zip
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import Precision
from msc_edge.kit.model_entry import Model
from msc_edge.left_over import hidden_folders, recover

# A smaller bank is read at once, so a later change of the file does not matter.
_MAPPED_FROM = 64 << 20
_ROWS_AT_ONCE = 4096
_LONGEST_NAME = 4096


@dataclass(frozen=True)
class KitIdentity:
    """Which kit it is: travels with everything that the kit scores."""

    name: str
    sha256: str
    """SHA-256 of manifest.json, 64 hexadecimal digits."""


class Kit:
    """A verified kit. Its files stay in `root` until `close`, or until the object is deleted."""

    def __init__(self, root: Path, verified: Verified, path: Path, *, extracted: tempfile.TemporaryDirectory | None):
        """Use Kit.open."""
        self.root = root
        self.path = path
        """The folder or .zip that was opened."""
        self.manifest = verified.manifest
        """In the current format, whatever the format on disk."""
        self.format_version = verified.format_version
        """The format on disk."""
        self.identity = KitIdentity(self.manifest.name, verified.sha256)
        self.digest = verified.digest
        """The content of manifest.sha256."""
        self.signatures = verified.signatures
        """The content of manifest.sig, which is not checked here; None: the kit is not signed."""
        self.signer: str | None = None
        """The trusted key that has signed the kit, by the name of its file; None where none was asked for."""
        self._extracted = extracted

    @classmethod
    def open(cls, path: str | Path, *, trusted_key: str | Path | None = None) -> Self:
        """Verify every file of a kit and open it. KitError names the file, the cause and the remedy.

        `trusted_key`: a public key, or a folder of them; a kit that none of them has signed is a KitError. A missing or
        damaged key is a UsageError, and a missing extra `sign` a MissingExtraError. What processes have left that were
        killed while they wrote this kit is cleaned up first; see `recover`.
        """
        kit = cls._open(path_argument("kit", path, "'kit'"))
        if trusted_key is not None:
            from msc_edge.kit.signatures import TrustedKeys  # noqa: PLC0415  (needs the extra `sign`)

            try:
                keys = TrustedKeys.read(path_argument("trusted_key", trusted_key, "'keys'"))
                with _named(kit.path):
                    kit.signer = keys.check(kit.digest, kit.signatures)
            except BaseException:
                kit.close()
                raise
        return kit

    @classmethod
    def _open(cls, path: Path) -> Self:
        recover(path)
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise KitError(f"{path}: cannot be opened ({reason}); {_remedy(path)}") from error
        if stat.S_ISDIR(mode):
            try:
                with _named(path):
                    verified = verify_folder(path)
            except OSError as error:  # no permission, or a failing disk
                where = error.filename or path
                raise KitError(
                    f"{where}: cannot be read: {error.strerror}; check the permissions and the disk"
                ) from error
            return cls(path, verified, path, extracted=None)
        if not stat.S_ISREG(mode):  # reading a pipe or a device may never end
            raise KitError(f"{path}: neither a folder nor a .zip; check the path")
        try:
            extracted = tempfile.TemporaryDirectory(prefix="msc-edge-kit-", ignore_cleanup_errors=True)
            try:
                with _named(path):
                    verified = verify_zip(path, Path(extracted.name))
            except BaseException:
                extracted.cleanup()
                raise
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be unpacked to the temporary folder: {error.strerror or error}; "
                "free some space there, or unpack the kit and pass the folder"
            ) from error
        return cls(Path(extracted.name), verified, path, extracted=extracted)

    def close(self) -> None:
        """Remove what was unpacked from a .zip."""
        if self._extracted is not None:
            self._extracted.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def file(self, name: str) -> Path:
        """The path of a file of the kit. KitError after `close` of a kit that was unpacked from a .zip."""
        if self._extracted is not None and not self.root.is_dir():
            raise KitError(f"{self.path}: this kit was closed; open it again")
        return self.root / name

    def model(self, precision: Precision) -> Model:
        """The manifest's entry of one model. KeyError where the kit has no such model."""
        return self.manifest.models[precision]

    def embeddings(self, precision: Precision) -> np.ndarray:
        """The memory bank of one model: float32 (count, dim), unit rows. A large one is mapped, not read."""
        model = self.model(precision)
        bank = model.banks.images
        path = self.file(bank.file)
        try:
            if self._extracted is None and path.stat().st_size >= _MAPPED_FROM:
                rows = np.lib.format.open_memmap(path, mode="r")
            else:
                with path.open("rb") as file:
                    rows = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # numpy evaluates the header with Python's parser, which has errors of its own
            raise KitError(f"{bank.file}: numpy cannot read it ({error}); export the kit again") from error
        if rows.dtype != np.float32 or rows.shape != (bank.count, model.dim):
            raise KitError(
                f"{bank.file}: holds {rows.dtype} {rows.shape}, but {MANIFEST} states float32 "
                f"({bank.count}, {model.dim}); export the kit again"
            )
        if not _rows_are_unit(rows):
            raise KitError(f"{bank.file}: not all rows have unit length; export the kit again")
        return np.ascontiguousarray(rows)

    def normal_images(self) -> list[str]:
        """The normal image behind each row of the memory banks, as its path in the training folder."""
        entry = self.manifest.normal_images
        try:
            names = json.loads(self.file(entry.file).read_bytes())
        except (ValueError, RecursionError, OSError) as error:
            raise KitError(f"{entry.file}: cannot be read as JSON ({error}); export the kit again") from error
        if not isinstance(names, list) or len(names) != entry.count:
            raise KitError(f"{entry.file}: expected a list of {entry.count} names; export the kit again")
        if not all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in names):
            raise KitError(f"{entry.file}: expected names of at most {_LONGEST_NAME} characters; export the kit again")
        return names


@contextmanager
def enough_memory(kit: Path) -> Iterator[None]:
    """Turn a MemoryError while a kit is opened into a KitError: a forged kit may need any amount."""
    try:
        yield
    except MemoryError as error:
        raise KitError(
            f"{kit}: there is not enough memory to open it and to score its check image; close other programs, or, if "
            "other kits open here, do not use it"
        ) from error


def _rows_are_unit(bank: np.ndarray) -> bool:
    blocks = (bank[row : row + _ROWS_AT_ONCE] for row in range(0, len(bank), _ROWS_AT_ONCE))
    with np.errstate(all="ignore"):  # numpy would print a warning for infinity
        return all(np.allclose(np.linalg.norm(block, axis=1), 1, atol=1e-4) for block in blocks)  # false for NaN too


@contextmanager
def _named(kit: Path) -> Iterator[None]:
    """Put the path of the kit in front of an error's message."""
    try:
        yield
    except KitError as error:
        if str(error).startswith(str(kit)):
            raise
        raise KitError(f"{kit}: {error}") from error


def _remedy(path: Path) -> str:
    replaced = hidden_folders(path, ".replaced")
    return f"a replacement was interrupted: rename {replaced[-1]} to {path.name}" if replaced else "check the path"
