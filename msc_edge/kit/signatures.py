"""Signatures of a kit: whose keys vouch for its manifest, and through its hashes for every byte of the kit.

`manifest.sig` has a line for each key that has signed: the fingerprint of the key, a space, and the Ed25519 signature
(RFC 8032) of the bytes of `manifest.sha256`, in base64. A fingerprint is the SHA-256 of the 32 bytes of the public key.
Keys are PEM files: private ones PKCS#8, public ones SubjectPublicKeyInfo, as OpenSSL reads and writes them.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from msc_edge.errors import KitError, UsageError, explain_missing_extra, writing
from msc_edge.kit.layout import SIGNATURES
from msc_edge.text import many

with explain_missing_extra():
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC, PRIVATE = ".pub", ".key"
_LARGEST_KEY = 1 << 16


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, 64 hexadecimal digits."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def new_key(name: Path) -> str:
    """Write the key NAME.key, which only its owner can read, and NAME.pub. Returns the fingerprint.

    UsageError where one of the files exists: a key that is replaced is lost.
    """
    private, public = name.with_name(name.name + PRIVATE), name.with_name(name.name + PUBLIC)
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path}: exists already, and a key that is replaced is lost; choose another name")
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    with writing(private):
        name.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with writing(public):
        public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return fingerprint(key.public_key())


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key. UsageError if the file is none."""
    content = _content(path)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise UsageError(f"{path}: is encrypted; decrypt it first: openssl pkey -in {path} -out NEW.key") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a private key; make one with: msc-edge new-key NAME") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: not an Ed25519 key; make one with: msc-edge new-key NAME")
    return key


def signed(digest: bytes, signatures: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of manifest.sig with a signature by `key`. `digest`: the content of manifest.sha256.

    Signatures of other keys are kept if they are valid in form; whether they fit the manifest, their keys tell.
    """
    own = fingerprint(key.public_key())
    lines = {found: value for found, value in _parsed(signatures).items() if found != own} | {own: key.sign(digest)}
    return "".join(f"{found} {base64.b64encode(value).decode()}\n" for found, value in lines.items()).encode()


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys whose kits are accepted."""

    keys: Mapping[str, tuple[str, Ed25519PublicKey]]
    """By fingerprint: the name of the file, and the key."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a public key, or all `.pub` files of a folder. UsageError if there is none, or one is not a key."""
        files = sorted(path.glob(f"*{PUBLIC}")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path}: holds no public key (*{PUBLIC}); copy the one of msc-edge new-key there")
        keys = {}
        for file in files:
            key = _public_key(file)
            keys[fingerprint(key)] = file.name, key
        return cls(keys)

    def check(self, digest: bytes, signatures: bytes | None) -> str:
        """The name of a trusted key that has signed `digest`, the content of manifest.sha256. KitError if none has."""
        if signatures is None:
            raise KitError(f"is not signed, and only kits of {self._names} are accepted; sign it with msc-edge sign")
        found, other = _parsed(signatures), None
        for own, (name, key) in self.keys.items():
            if own in found:
                try:
                    key.verify(found[own], digest)
                except InvalidSignature:
                    other = name
                else:
                    return name
        if other:
            raise KitError(
                f"the signature of {other} is of another manifest: the kit was changed since it was signed; check who "
                "changed it, and sign it again"
            )
        raise KitError(
            f"is signed by {many(len(found), 'key')}, but not by {self._names}; do not use it, or add the public key "
            "of its signer to the trusted ones"
        )

    @property
    def _names(self) -> str:
        return ", ".join(name for name, _ in self.keys.values())


def _parsed(signatures: bytes) -> dict[str, bytes]:
    found = {}
    for line in signatures.splitlines():
        try:
            own, value = line.decode("ascii").split()
            found[own] = base64.b64decode(value, validate=True)
        except (ValueError, binascii.Error) as error:
            raise KitError(f"{SIGNATURES}: not a list of signatures; sign the kit again") from error
    return found


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(_content(path))
    except ValueError as error:
        raise UsageError(f"{path}: not a public key; copy the .pub file of msc-edge new-key again") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: not an Ed25519 key; copy the .pub file of msc-edge new-key")
    return key


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_KEY)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; check the path and the permissions") from error
