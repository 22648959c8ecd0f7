"""The folder or .zip that holds a kit, and the check of every byte in it.

The check runs before any parser: hnswlib crashes the process on a damaged index, and native code parses ONNX files.
A hash proves that a kit is unchanged. It does not prove who wrote it: see `signatures`.
"""

import hashlib
import io
import stat
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Protocol

from msc_edge.errors import KitError, OutputError
from msc_edge.kit.layout import BESIDE_THE_FILES, MANIFEST, MANIFEST_DIGEST, MAX_MANIFEST_BYTES, SIGNATURES, THUMBNAILS
from msc_edge.kit.manifest import FileEntry, Manifest, read_manifest
from msc_edge.kit.roles import check_files
from msc_edge.text import size

_CHUNK = 1 << 20
# In a zip: a manifest of 8 MiB lists 60,000 files, and macOS adds one to each.
_MOST_MEMBERS = 1 << 17
# Of the files in a zip: all of them may have 16 MiB, and more where the zip is larger than half a MiB.
_UNPACKED_AT_LEAST, _LARGEST_RATIO = 16 << 20, 32
# Files that operating systems add to folders.
_SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_MOST_SIGNATURES = 1 << 16  # bytes: of 400 keys
_COPY_AGAIN = "copy the kit again"


class _Container(Protocol):
    def names(self) -> set[str]: ...
    def open(self, name: str) -> IO[bytes]: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str]:
        # Dangling links, pipes and devices count as missing.
        return {path.relative_to(self._root).as_posix() for path in self._root.rglob("*") if path.is_file()}

    def open(self, name: str) -> IO[bytes]:
        return (self._root / name).open("rb")


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        if (found := len(archive.infolist())) > _MOST_MEMBERS:
            raise KitError(f"the zip holds {found} files, which no kit does; do not use it")
        members = [member for member in archive.infolist() if not member.is_dir()]
        # A zip holds either the kit's folder or the contents of that folder.
        own = [member.filename for member in members if not _is_system_file(member.filename)]
        tops = {name.partition("/")[0] for name in own}
        nested = len(tops) == 1 and all("/" in name for name in own) and tops != {THUMBNAILS}
        prefix = f"{tops.pop()}/" if nested else ""
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            parts = PurePosixPath(member.filename).parts
            if ".." in parts or member.filename.startswith("/") or "\\" in member.filename or ":" in member.filename:
                raise KitError(f"the zip holds {member.filename!r}, a path outside the kit; do not use it")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise KitError(f"the zip holds a link, {member.filename!r}; do not use it")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise KitError(f"the zip holds {member.filename!r} in another method than deflate; zip the kit again")
            name = member.filename.removeprefix(prefix)
            if name in self._members:
                raise KitError(f"the zip holds {name!r} twice; {_COPY_AGAIN}")
            self._members[name] = member

    def names(self) -> set[str]:
        return set(self._members)

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(self._members[name])


class Verified(NamedTuple):
    """A manifest that every file of the kit matches."""

    manifest: Manifest
    sha256: str
    """Of manifest.json."""
    format_version: int
    """Of manifest.json as it is stored; `manifest` has the current format."""
    digest: bytes
    """The content of manifest.sha256, which signatures are of."""
    signatures: bytes | None
    """The content of manifest.sig; None where there is none."""


def verify_folder(path: Path) -> Verified:
    """Check every file of a kit folder. KitError names a file that differs, OSError comes from the disk."""
    return _verify(_Folder(path), path, copy_to=None)


def verify_zip(path: Path, copy_to: Path) -> Verified:
    """Unpack a zipped kit into `copy_to` and check every file while it is unpacked. Errors as for verify_folder."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise KitError(f"{path}: cannot be read: {error.strerror}; check the permissions") from error
    try:
        with file, zipfile.ZipFile(file) as archive:
            return _verify(_Zip(archive), path, copy_to=copy_to)
    except (KitError, OutputError, MemoryError):
        raise
    except OSError as error:
        if error.errno:  # from writing the copy, not from the archive
            raise
        raise KitError(f"{path}: damaged zip ({error}); {_COPY_AGAIN}") from error
    except Exception as error:  # zipfile raises many undocumented exceptions for damaged archives
        raise KitError(f"{path}: not a zip, or a damaged one ({error}); {_COPY_AGAIN}") from error


def read_file(path: Path, name: str, entry: FileEntry) -> bytes:
    """The bytes of one file of a kit, a folder or a .zip, which was verified before.

    KitError when the file differs from its entry in the manifest, or cannot be read any more.
    """
    content = io.BytesIO()
    try:
        if path.is_dir():
            with _Folder(path).open(name) as file:
                _check_file(name, entry, file, content)
        else:
            with zipfile.ZipFile(path) as archive, _Zip(archive).open(name) as file:
                _check_file(name, entry, file, content)
    except KitError as error:
        raise KitError(f"{path}: the kit has changed since it was opened: {error}") from error
    except Exception as error:  # zipfile raises many undocumented exceptions for damaged archives
        raise KitError(f"{path}: {name} cannot be read any more ({error}); {_COPY_AGAIN}") from error
    return content.getvalue()


def _verify(container: _Container, path: Path, *, copy_to: Path | None) -> Verified:
    """Check the manifest against its digest, then every file against the manifest."""
    names = container.names()
    for name in (MANIFEST, MANIFEST_DIGEST):
        if name not in names:
            if "run.json" in names:
                raise KitError("this is a training run; export a kit from it: msc-edge export RUN --out KIT")
            raise KitError(f"{name} is missing: not a kit, or an incomplete one; {_COPY_AGAIN}")
    with container.open(MANIFEST) as file:
        text = file.read(MAX_MANIFEST_BYTES + 1)
    if len(text) > MAX_MANIFEST_BYTES:
        raise KitError(f"{MANIFEST}: larger than {MAX_MANIFEST_BYTES >> 20} MiB, which no kit needs; do not use it")
    with container.open(MANIFEST_DIGEST) as file:
        if file.read(1024) != digest_line(text):
            raise KitError(f"{MANIFEST}: SHA-256 differs from {MANIFEST_DIGEST}; {_COPY_AGAIN}")
    manifest, version = read_manifest(text, name=path.resolve().name.removesuffix(".zip").removesuffix(".kit"))
    _check_names(manifest, names)
    check_files(manifest)
    if copy_to is not None:
        _check_total(manifest, path.stat().st_size)
    for name, entry in manifest.files.items():
        with container.open(name) as file, _copy(name, copy_to) as copy:
            _check_file(name, entry, file, copy)
    signatures = None
    if SIGNATURES in names:
        with container.open(SIGNATURES) as file:
            signatures = file.read(_MOST_SIGNATURES)
    return Verified(manifest, hashlib.sha256(text).hexdigest(), version, digest_line(text), signatures)


def _check_names(manifest: Manifest, names: set[str]) -> None:
    listed = set(manifest.files)
    required = {manifest.normal_images.file, *(name for model in manifest.models.values() for name in model.files)}
    if unlisted := required - listed:
        raise KitError(f"{MANIFEST}: does not list {', '.join(sorted(unlisted))}; export the kit again")
    if missing := listed - names:
        first = min(missing)
        raise KitError(f"{first} is missing ({len(missing)} of {len(listed)} files); {_COPY_AGAIN}")
    extra = {name for name in names - listed if not _is_system_file(name)}
    if extra := extra - BESIDE_THE_FILES:
        raise KitError(f"{min(extra)} is not listed in {MANIFEST}; remove it, or {_COPY_AGAIN}")


def _check_total(manifest: Manifest, zipped: int) -> None:
    """KitError for a zip that unpacks to far more than embeddings and weights, which hardly compress, can."""
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > _UNPACKED_AT_LEAST + _LARGEST_RATIO * zipped:
        raise KitError(f"its {size(zipped)} unpack to {size(total)}, which no kit does; do not use it")


def _check_file(name: str, entry: FileEntry, file: IO[bytes], copy: IO[bytes] | None) -> None:
    digest, size = hashlib.sha256(), 0
    # Stop at the stated size: a small zip can unpack to far more.
    while size <= entry.bytes and (chunk := file.read(_CHUNK)):
        digest.update(chunk)
        size += len(chunk)
        if copy:
            copy.write(chunk)
    if size != entry.bytes:
        found = "more" if size > entry.bytes else f"{size}"
        raise KitError(f"{name}: {found} bytes, but {MANIFEST} states {entry.bytes}; {_COPY_AGAIN}")
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
    """The content of manifest.sha256 for the content of manifest.json."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _is_system_file(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _SYSTEM_FILES or path.name.startswith("._") or path.parts[:1] == ("__MACOSX",)
