"""Writing kits: the manifest with the hashes of all files, and copies of a kit with another manifest."""

import logging
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from msc_edge.errors import KitError, UsageError, writing
from msc_edge.files import folder_written_whole, kind_of, sha256_of, written_whole
from msc_edge.kit.container import digest_line
from msc_edge.kit.layout import BESIDE_THE_FILES, MANIFEST, MANIFEST_DIGEST, MAX_MANIFEST_BYTES
from msc_edge.kit.manifest import FileEntry, Manifest
from msc_edge.kit.opening import Kit
from msc_edge.text import size

_LOG = logging.getLogger("msc_edge")


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json, with the hashes of all files in `folder`, and manifest.sha256."""
    files = {
        path.relative_to(folder).as_posix(): FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in BESIDE_THE_FILES
    }
    return write_manifest(folder, manifest.model_copy(update={"files": files}))


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json and manifest.sha256 of a kit whose files have not changed since `seal`.

    UsageError for a manifest that is too large to be read again.
    """
    text = manifest.to_json().encode()
    if len(text) > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"{MANIFEST} would have {size(len(text))}, and at most {MAX_MANIFEST_BYTES >> 20} MiB are read; use fewer "
            "images, or export without thumbnails"
        )
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_DIGEST).write_bytes(digest_line(text))
    return manifest


def refuse_zip(out: Path) -> None:
    """UsageError where `out` is named like a .zip: kits are written as folders."""
    if out.suffix.lower() == ".zip":
        raise UsageError(f"--out {out}: a kit is written as a folder; name a folder, and zip it afterwards")


def write_zip(kit: Path, out: Path) -> None:
    """Write the folder of a kit as a .zip that contains this folder, whole or not at all. OutputError from the disk."""
    with written_whole(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(kit.rglob("*")):
            if path.is_file():
                archive.write(path, PurePosixPath(kit.name, *path.relative_to(kit).parts).as_posix())


def rewrite_target(kit: Path, out: Path | None, *, in_place: bool) -> Path | None:
    """Where `rewrite` writes: the new folder `out`, the kit itself with `in_place`, or None where neither is given.

    Call it before the work: it raises UsageError for a place that cannot be used.
    """
    if out is not None and in_place:
        raise UsageError("--out and --in-place exclude each other; pass one of them")
    if in_place:
        if kit.is_file():
            raise UsageError(f"{kit}: a kit in a .zip cannot be replaced in place; pass --out NEWKIT, and zip that")
        return kit.resolve()  # not a link to it
    if out is None:
        return None
    refuse_zip(out)
    if out.resolve() == kit.resolve():
        raise UsageError(f"--out {out}: is the kit itself; choose another name")
    if out.resolve().is_relative_to(kit.resolve()):
        raise UsageError(f"--out {out}: lies within the kit and would make it invalid; choose another place")
    kind, _ = kind_of(out)
    with writing(out):
        is_taken = kind == "file" or (kind == "folder" and any(out.iterdir()))
    if is_taken:
        raise UsageError(f"--out {out}: exists already; choose another name")
    return out


def rewrite(kit: Kit, manifest: Manifest, target: Path) -> Manifest:
    """Write an open kit to `target` with another manifest; all other files are copied byte by byte.

    `target` may be the kit itself (see `rewrite_target`). Raises UsageError when the kit was changed since it was
    opened, KitError when its files change while they are copied, OutputError from the disk. Signatures of the kit are
    not copied: they are of another manifest.
    """
    in_place = target == kit.path.resolve()
    with folder_written_whole(target, replace=in_place) as folder:
        for name in manifest.files:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(kit.file(name), folder / name)
        sealed = seal(folder, manifest)
        if sealed.files != manifest.files:
            raise KitError(f"{kit.path}: its files changed while they were copied; try again, and check the disk")
        if in_place and sha256_of(kit.file(MANIFEST)) != kit.identity.sha256:
            # Another process replaced the kit: writing now would lose its calibration history.
            raise UsageError(f"{kit.path}: was changed by another process in the meantime; run the command again")
    if kit.signatures is not None:
        _LOG.warning("%s: the signatures of %s are of its old manifest and were not copied; sign it", target, kit.path)
    return sealed
