"""A kit on disk: a folder, or the same folder in one .zip, whose every byte is checked before it is used.

`manifest.json` holds the SHA-256 of every other file, and `manifest.sha256` that of manifest.json, in the format of
`sha256sum -c`. Checking comes before any parser: hnswlib crashes the process on a damaged index, and ONNX files
are parsed by native code. A hash proves that a kit is as it was written, not who wrote it.
"""

import glob
import hashlib
import json
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, Self

import numpy as np

from msc_edge.errors import KitError, OutputError
from msc_edge.files import ASIDE, sha256_of
from msc_edge.manifest import FileEntry, Manifest, Precision, parse_manifest

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
MODEL = "model.onnx"
BANK = "bank.npy"
INDEX = "bank.hnsw"
INT8_MODEL = "model.int8.onnx"
INT8_BANK = "bank.int8.npy"
INT8_INDEX = "bank.int8.hnsw"
MODELS: dict[Precision, str] = {"fp32": MODEL, "int8": INT8_MODEL}
BANKS: dict[Precision, str] = {"fp32": BANK, "int8": INT8_BANK}
INDEXES: dict[Precision, str] = {"fp32": INDEX, "int8": INT8_INDEX}
NORMALS = "normals.json"
THUMBNAILS = "thumbnails"

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 256 << 20
# What operating systems leave in folders by themselves.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_COPY_AGAIN = "copy the kit again"


class Kit:
    """A verified kit. Its files lie in `root` until `close`, or until the object is gone."""

    def __init__(
        self, root: Path, verified: "_Verified", name: str, *, extracted: tempfile.TemporaryDirectory | None
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
                    verified = _verify(_Folder(path), copy_to=None)
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
                    verified = _verify_zip(path, Path(extracted.name))
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
        """`bank.npy`, or `bank.int8.npy`: float32 (count, dim), unit rows."""
        info, name = self.manifest.bank_of(precision), BANKS[precision]
        try:
            with self.path(name).open("rb") as file:
                bank = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:
            raise KitError(f"{name}: not an array that numpy reads ({error}); export the kit again") from error
        if bank.dtype != np.float32 or bank.shape != (info.count, info.dim):
            raise KitError(
                f"{name}: holds {bank.dtype} {bank.shape}, and {MANIFEST} says float32 "
                f"({info.count}, {info.dim}); export the kit again"
            )
        if not np.allclose(np.linalg.norm(bank, axis=1), 1, atol=1e-4):  # false for NaN too
            raise KitError(f"{name}: not all rows have unit length; export the kit again")
        return np.ascontiguousarray(bank)

    def normals(self) -> list[str]:
        """The picture behind each row of the bank, as its path in the folder that was trained on."""
        try:
            names = json.loads(self.path(NORMALS).read_bytes())
        except (ValueError, RecursionError, OSError) as error:
            raise KitError(f"{NORMALS}: cannot be read as JSON ({error}); export the kit again") from error
        if not isinstance(names, list) or len(names) != self.manifest.bank.count:
            raise KitError(f"{NORMALS}: expected a list of {self.manifest.bank.count} names; export the kit again")
        return [str(name) for name in names]


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
    (folder / MANIFEST_DIGEST).write_bytes(_digest_line(text))
    return sealed


def _digest_line(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _is_litter(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _LITTER or path.name.startswith("._") or path.parts[:1] == ("__MACOSX",)


@contextmanager
def _named(kit: Path) -> Iterator[None]:
    """Say in an error which kit it is about."""
    try:
        yield
    except KitError as error:
        if str(error).startswith(str(kit)):
            raise
        raise KitError(f"{kit}: {error}") from error


class _Container(Protocol):
    def names(self) -> set[str]: ...
    def open(self, name: str) -> IO[bytes]: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str]:
        # Links that lead nowhere, pipes and devices are as good as missing.
        return {path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file()}

    def open(self, name: str) -> IO[bytes]:
        return (self._root / name).open("rb")


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = [member for member in archive.infolist() if not member.is_dir()]
        # People zip the folder itself as well as what is in it.
        own = [member.filename for member in members if not _is_litter(member.filename)]
        tops = {name.partition("/")[0] for name in own}
        nested = len(tops) == 1 and all("/" in name for name in own) and tops != {THUMBNAILS}
        prefix = f"{tops.pop()}/" if nested else ""
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            parts = PurePosixPath(member.filename).parts
            if ".." in parts or member.filename.startswith("/") or "\\" in member.filename or ":" in member.filename:
                raise KitError(f"the zip holds {member.filename!r}, a path that leaves the kit; do not use it")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise KitError(f"the zip holds a link, {member.filename!r}; do not use it")
            name = member.filename.removeprefix(prefix)
            if name in self._members:
                raise KitError(f"the zip holds {name!r} twice; {_COPY_AGAIN}")
            self._members[name] = member

    def names(self) -> set[str]:
        return set(self._members)

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(self._members[name])


_Verified = tuple[Manifest, str]


def _verify_zip(path: Path, copy_to: Path) -> _Verified:
    try:
        file = path.open("rb")
    except OSError as error:
        raise KitError(f"{path}: cannot be read: {error.strerror}; check the permissions") from error
    try:
        with file, zipfile.ZipFile(file) as archive:
            return _verify(_Zip(archive), copy_to=copy_to)
    except (KitError, OutputError, MemoryError):
        raise
    except OSError as error:
        if error.errno:  # from the operating system, writing: not the archive's fault
            raise
        raise KitError(f"{path}: damaged zip ({error}); {_COPY_AGAIN}") from error
    except Exception as error:  # zipfile raises many kinds on damaged archives, and documents few of them
        raise KitError(f"{path}: not a zip, or a damaged one ({error}); {_COPY_AGAIN}") from error


def _verify(container: _Container, *, copy_to: Path | None) -> _Verified:
    """The manifest of a kit whose every file is as it says, and its SHA-256."""
    names = container.names()
    for name in (MANIFEST, MANIFEST_DIGEST):
        if name not in names:
            if "run.json" in names:
                raise KitError("this is a training run; make a kit of it with: msc-edge export RUN --out KIT")
            raise KitError(f"{name} is missing: this is not a kit, or not a whole one; {_COPY_AGAIN}")
    with container.open(MANIFEST) as file:
        text = file.read(_LARGEST_MANIFEST)
    with container.open(MANIFEST_DIGEST) as file:
        if file.read(1024) != _digest_line(text):
            raise KitError(f"{MANIFEST}: SHA-256 differs from {MANIFEST_DIGEST}; {_COPY_AGAIN}")
    manifest = parse_manifest(text)
    _check_names(manifest, names)
    for name, entry in manifest.files.items():
        with container.open(name) as file, _copy(name, copy_to) as copy:
            _check_file(name, entry, file, copy)
    return manifest, hashlib.sha256(text).hexdigest()


def _check_names(manifest: Manifest, names: set[str]) -> None:
    listed = set(manifest.files)
    required = {NORMALS}
    for precision in manifest.precisions:
        required |= {MODELS[precision], BANKS[precision]}
        required |= {INDEXES[precision]} if manifest.bank_of(precision).index else set()
    if unlisted := required - listed:
        raise KitError(f"{MANIFEST}: does not list {', '.join(sorted(unlisted))}; export the kit again")
    if missing := listed - names:
        first = min(missing)
        raise KitError(f"{first} is missing ({len(missing)} of {len(listed)} files are); {_COPY_AGAIN}")
    strangers = {name for name in names - listed if not _is_litter(name)}
    if strangers := strangers - {MANIFEST, MANIFEST_DIGEST}:
        raise KitError(f"{min(strangers)} is not listed in {MANIFEST}; remove it, or {_COPY_AGAIN}")


def _check_file(name: str, entry: FileEntry, file: IO[bytes], copy: IO[bytes] | None) -> None:
    digest, size = hashlib.sha256(), 0
    # Never read past the stated size: a zip can hold far more than it weighs.
    while size <= entry.bytes and (chunk := file.read(_CHUNK)):
        digest.update(chunk)
        size += len(chunk)
        if copy:
            copy.write(chunk)
    if size != entry.bytes:
        found = "more" if size > entry.bytes else f"{size}"
        raise KitError(f"{name}: {found} bytes, and {MANIFEST} says {entry.bytes}; {_COPY_AGAIN}")
    if digest.hexdigest() != entry.sha256:
        raise KitError(
            f"{name}: SHA-256 differs from {MANIFEST} "
            f"(got {digest.hexdigest()[:8]}..., expected {entry.sha256[:8]}...); {_COPY_AGAIN}"
        )


def _copy(name: str, folder: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if folder is None:
        return nullcontext()
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.open("wb")


def _what_to_do(path: Path) -> str:
    try:
        aside = sorted(path.parent.glob(f".{glob.escape(path.name[:40])}.*{ASIDE}"))
    except (OSError, ValueError):
        aside = []
    return f"a replacement was broken off: give {aside[-1]} its name back, {path.name}" if aside else "check the path"
