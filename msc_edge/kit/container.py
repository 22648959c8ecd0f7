"""What a kit lies in, a folder or a .zip, and the checking of every byte in it.

Checking comes before any parser: hnswlib crashes the process on a damaged index, and ONNX files are parsed by native
code. A hash proves that a kit is as it was written, not who wrote it.
"""

import hashlib
import stat
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from msc_edge.errors import KitError, OutputError
from msc_edge.kit.layout import BANKS, INDEXES, MANIFEST, MANIFEST_DIGEST, MODELS, NORMALS, THUMBNAILS
from msc_edge.kit.manifest import FileEntry, Manifest, parse_manifest

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 256 << 20
# What operating systems leave in folders by themselves.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_COPY_AGAIN = "copy the kit again"


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


Verified = tuple[Manifest, str]
"""A manifest that all files agree with, and its SHA-256."""


def verify_folder(path: Path) -> Verified:
    """Check every file of a kit that is a folder. KitError for what is not as it was written, OSError from the disk."""
    return _verify(_Folder(path), copy_to=None)


def verify_zip(path: Path, copy_to: Path) -> Verified:
    """Unpack a kit into `copy_to`, and check every file on the way. As for verify_folder."""
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


def _verify(container: _Container, *, copy_to: Path | None) -> Verified:
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
        if file.read(1024) != digest_line(text):
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


def digest_line(manifest: bytes) -> bytes:
    """The content of manifest.sha256 for that of manifest.json."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _is_litter(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _LITTER or path.name.startswith("._") or path.parts[:1] == ("__MACOSX",)
