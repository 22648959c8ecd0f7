"""A kit on disk: a folder, or the same folder in one .zip, whose every byte is checked before it is used.

`manifest.json` holds the SHA-256 of every other file, and `manifest.sha256` that of manifest.json, in the format of
`sha256sum -c`.
"""

import glob
import json
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from msc_edge.errors import KitError, OutputError, UsageError
from msc_edge.files import ASIDE, sha256_of
from msc_edge.kit.container import Verified, digest_line, verify_folder, verify_zip
from msc_edge.kit.layout import BANKS, MANIFEST, MANIFEST_DIGEST, NORMALS
from msc_edge.kit.manifest import FileEntry, Manifest, Precision

# Less than this is read at once, and does not care what becomes of the file afterwards.
_MAPPED_FROM = 64 << 20
_ROWS_AT_ONCE = 4096


class Kit:
    """A verified kit. Its files lie in `root` until `close`, or until the object is gone."""

    def __init__(
        self, root: Path, verified: "Verified", name: str, *, extracted: tempfile.TemporaryDirectory | None
    ) -> None:
        """Use Kit.open."""
        self.root = root
        self.manifest, self.sha256 = verified
        """The manifest, and its SHA-256, which tells kits apart; manifest.sha256 has it too."""
        self.name = name
        self._extracted = extracted

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Verify every file of a kit and give access to it. KitError names what is wrong, and what to do."""
        path = Path(path)
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise KitError(f"{path}: there is no kit here ({reason}); {_what_to_do(path)}") from error
        if stat.S_ISDIR(mode):
            try:
                with _named(path):
                    verified = verify_folder(path)
            except OSError as error:  # no permission, or a failing disk
                where = error.filename or path
                raise KitError(
                    f"{where}: cannot be read: {error.strerror}; check the permissions and the disk"
                ) from error
            return cls(path, verified, str(path), extracted=None)
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
                "free some space there, or unpack the kit yourself and give the folder"
            ) from error
        return cls(Path(extracted.name), verified, str(path), extracted=extracted)

    def close(self) -> None:
        """Remove what was unpacked from a .zip; nothing to do for a folder."""
        if self._extracted is not None:
            self._extracted.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, name: str) -> Path:
        """Where a file of the kit lies."""
        return self.root / name

    def embeddings(self, precision: Precision = "fp32") -> np.ndarray:
        """`bank.npy`, or `bank.int8.npy`: float32 (count, dim), unit rows. A large one is mapped, not read."""
        info, name = self.manifest.bank_of(precision), BANKS[precision]
        path = self.path(name)
        try:
            if self._extracted is None and path.stat().st_size >= _MAPPED_FROM:
                bank = np.lib.format.open_memmap(path, mode="r")
            else:
                with path.open("rb") as file:
                    bank = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:
            raise KitError(f"{name}: not an array that numpy reads ({error}); export the kit again") from error
        if bank.dtype != np.float32 or bank.shape != (info.count, info.dim):
            raise KitError(
                f"{name}: holds {bank.dtype} {bank.shape}, and {MANIFEST} says float32 "
                f"({info.count}, {info.dim}); export the kit again"
            )
        if not _rows_are_unit(bank):
            raise KitError(f"{name}: not all rows have unit length; export the kit again")
        return np.ascontiguousarray(bank)

    def normals(self) -> list[str]:
        """The image behind each row of the bank, as its path in the folder that was trained on."""
        try:
            names = json.loads(self.path(NORMALS).read_bytes())
        except (ValueError, RecursionError, OSError) as error:
            raise KitError(f"{NORMALS}: cannot be read as JSON ({error}); export the kit again") from error
        if not isinstance(names, list) or len(names) != self.manifest.bank.count:
            raise KitError(f"{NORMALS}: expected a list of {self.manifest.bank.count} names; export the kit again")
        return [str(name) for name in names]


def _rows_are_unit(bank: np.ndarray) -> bool:
    blocks = (bank[row : row + _ROWS_AT_ONCE] for row in range(0, len(bank), _ROWS_AT_ONCE))
    return all(np.allclose(np.linalg.norm(block, axis=1), 1, atol=1e-4) for block in blocks)  # false for NaN too


def refuse_zip(out: Path) -> None:
    """UsageError where a kit is to be written into what its name says is a .zip."""
    if out.suffix.lower() == ".zip":
        raise UsageError(f"--out {out}: a kit is written as a folder; name one, and zip that")


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json, with the hashes of all files that lie in `folder`, and manifest.sha256 beside it."""
    files = {
        path.relative_to(folder).as_posix(): FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, MANIFEST_DIGEST)
    }
    sealed = manifest.model_copy(update={"files": files})
    text = sealed.to_json().encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_DIGEST).write_bytes(digest_line(text))
    return sealed


@contextmanager
def _named(kit: Path) -> Iterator[None]:
    """Say in an error which kit it is about."""
    try:
        yield
    except KitError as error:
        if str(error).startswith(str(kit)):
            raise
        raise KitError(f"{kit}: {error}") from error


def _what_to_do(path: Path) -> str:
    try:
        aside = sorted(path.parent.glob(f".{glob.escape(path.name[:40])}.*{ASIDE}"))
    except (OSError, ValueError):
        aside = []
    return f"a replacement was broken off: give {aside[-1]} its name back, {path.name}" if aside else "check the path"
