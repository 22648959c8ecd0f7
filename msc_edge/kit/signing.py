"""Signing a kit in its place."""

import shutil
from pathlib import Path

from msc_edge.errors import UsageError
from msc_edge.files import folder_written_whole
from msc_edge.kit.layout import MANIFEST, MANIFEST_DIGEST, SIGNATURES
from msc_edge.kit.opening import Kit
from msc_edge.kit.signatures import fingerprint, read_private_key, signed


def sign(kit: Path, key: Path) -> str:
    """Verify a kit and sign it with a private key, whole or not at all. Returns the fingerprint of the key.

    Another process that opens the kit meanwhile finds it with or without the signature. UsageError for a key that
    cannot be used and for a kit in a .zip; KitError, OutputError.
    """
    private = read_private_key(key)
    if kit.is_file():
        raise UsageError(f"{kit}: a kit in a .zip cannot be signed; unpack it, sign the folder, and zip that")
    with Kit.open(kit) as opened, folder_written_whole(kit.resolve(), replace=True) as folder:
        for name in (*opened.manifest.files, MANIFEST, MANIFEST_DIGEST):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(opened.file(name), folder / name)
        (folder / SIGNATURES).write_bytes(signed(opened.digest, opened.signatures or b"", private))
    return fingerprint(private.public_key())
