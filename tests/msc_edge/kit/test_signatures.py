"""Only kits that a trusted key has signed are opened, where that is asked for. OpenSSL is the second implementation."""

import base64
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.kit.opening import Kit
from msc_edge.kit.signatures import new_key
from msc_edge.kit.signing import sign
from msc_edge.kit.writing import rewrite

MakeZip = Callable[..., Path]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Two pairs of keys, `line` and `other`."""
    folder = tmp_path / "keys of the line"
    for name in ("line", "other"):
        new_key(folder / name)
    return folder


@pytest.fixture
def signed_kit(small_kit: Path, keys: Path) -> Path:
    """A kit that `line` has signed."""
    sign(small_kit, keys / "line.key")
    return small_kit


def test_a_signed_kit_opens_for_its_key_and_for_a_folder_of_keys(
    signed_kit: Path, keys: Path, make_zip: MakeZip
) -> None:
    for kit in (signed_kit, make_zip(signed_kit), make_zip(signed_kit, prefix="part.kit/")):
        for trusted in (keys / "line.pub", keys):
            with Kit.open(kit, trusted_key=trusted) as opened:
                assert opened.signer == "line.pub"
        with Kit.open(kit) as opened:
            assert opened.signer is None


def test_signing_changes_no_other_byte(small_kit: Path, keys: Path) -> None:
    before = {path.relative_to(small_kit): path.read_bytes() for path in small_kit.rglob("*") if path.is_file()}
    with Kit.open(small_kit) as opened:
        identity = opened.identity
    sign(small_kit, keys / "line.key")
    after = {path.relative_to(small_kit): path.read_bytes() for path in small_kit.rglob("*") if path.is_file()}
    assert after.pop(Path("manifest.sig"))
    assert after == before
    with Kit.open(small_kit) as opened:
        assert opened.identity == identity


def test_a_kit_of_another_key_and_one_without_a_signature_are_refused(
    small_kit: Path, keys: Path, make_zip: MakeZip
) -> None:
    with pytest.raises(KitError, match=r"is not signed, and only kits of other\.pub are accepted; sign it"):
        Kit.open(small_kit, trusted_key=keys / "other.pub")
    sign(small_kit, keys / "line.key")
    for kit in (small_kit, make_zip(small_kit)):
        with pytest.raises(KitError, match=r"is signed by 1 key, but not by other\.pub"):
            Kit.open(kit, trusted_key=keys / "other.pub")


def test_both_keys_of_a_rotation_are_accepted(signed_kit: Path, keys: Path) -> None:
    sign(signed_kit, keys / "other.key")
    sign(signed_kit, keys / "line.key")
    assert len((signed_kit / "manifest.sig").read_text().splitlines()) == 2
    for name in ("line.pub", "other.pub"):
        with Kit.open(signed_kit, trusted_key=keys / name) as opened:
            assert opened.signer == name


def test_a_signature_of_another_manifest_is_refused(signed_kit: Path, keys: Path) -> None:
    changed = signed_kit.parent / "changed.kit"
    with Kit.open(signed_kit) as opened:
        rewrite(opened, opened.manifest.model_copy(update={"name": "another"}), changed)
    (changed / "manifest.sig").write_bytes((signed_kit / "manifest.sig").read_bytes())
    with pytest.raises(KitError, match=r"the signature of line\.pub is of another manifest"):
        Kit.open(changed, trusted_key=keys)
    sign(changed, keys / "other.key")
    with Kit.open(changed, trusted_key=keys) as opened:
        assert opened.signer == "other.pub", "one valid signature is enough"


@pytest.mark.parametrize("lines", [b"no", b"a b c\n", b"\xff\n", b"0123 not base64!\n"])
def test_a_damaged_list_of_signatures_is_refused(signed_kit: Path, keys: Path, lines: bytes) -> None:
    (signed_kit / "manifest.sig").write_bytes(lines)
    with pytest.raises(KitError, match=r"manifest\.sig: not a list of signatures; sign the kit again"):
        Kit.open(signed_kit, trusted_key=keys)
    Kit.open(signed_kit).close()


def test_a_changed_kit_loses_its_signature_with_a_warning(
    signed_kit: Path, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = signed_kit.parent / "new.kit"
    with Kit.open(signed_kit) as opened:
        rewrite(opened, opened.manifest.model_copy(update={"extensions": {"line": 3}}), target)
    assert not (target / "manifest.sig").exists()
    assert "are of its old manifest and were not copied; sign it" in caplog.text
    with pytest.raises(KitError, match="is not signed"):
        Kit.open(target, trusted_key=keys)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_accepts_the_keys_and_the_signature(signed_kit: Path, keys: Path, tmp_path: Path) -> None:
    signature, digest = tmp_path / "signature", signed_kit / "manifest.sha256"
    signature.write_bytes(base64.b64decode((signed_kit / "manifest.sig").read_text().split()[1]))
    check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys / "line.pub"), "-rawin"]
    check += ["-sigfile", str(signature), "-in", str(digest)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    digest.write_bytes(digest.read_bytes().replace(b"  ", b" *"))
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0

    own = tmp_path / "openssl.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", own], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", own, "-pubout", "-out", own.with_suffix(".pub")], check=True)
    digest.write_bytes(digest.read_bytes().replace(b" *", b"  "))
    sign(signed_kit, own)
    Kit.open(signed_kit, trusted_key=own.with_suffix(".pub")).close()


def test_a_private_key_is_for_its_owner_only_and_never_replaced(keys: Path) -> None:
    assert stat.S_IMODE((keys / "line.key").stat().st_mode) == 0o600
    before = (keys / "line.key").read_bytes()
    for name in ("line.key", "line.pub"):
        (keys / "line.pub").unlink(missing_ok=True)
        with pytest.raises(UsageError, match=f"{name[:4]}.*exists already"):
            new_key(keys / "line")
    assert (keys / "line.key").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("line.pub", "not a private key"),
        ("none", "cannot be read: No such file"),
        ("rsa.key", "not an Ed25519 key"),
        ("encrypted.key", "is encrypted; decrypt it first"),
    ],
)
def test_a_key_that_cannot_sign_is_refused(small_kit: Path, keys: Path, key: str, reason: str) -> None:
    if key in ("rsa.key", "encrypted.key"):
        kind = ["-algorithm", "rsa"] if key == "rsa.key" else ["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"]
        subprocess.run(["openssl", "genpkey", *kind, "-out", keys / key], check=True, capture_output=True)
    with pytest.raises(UsageError, match=reason):
        sign(small_kit, keys / key)
    assert not (small_kit / "manifest.sig").exists()


def test_trusted_keys_that_cannot_be_used_are_refused(signed_kit: Path, keys: Path, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    for trusted, reason in (
        (empty, "holds no public key"),
        (keys / "line.key", "not a public key"),
        (keys / "none.pub", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=reason):
            Kit.open(signed_kit, trusted_key=trusted)


def test_a_kit_in_a_zip_is_signed_as_a_folder(small_kit: Path, keys: Path, make_zip: MakeZip) -> None:
    with pytest.raises(UsageError, match=r"in a \.zip cannot be signed; unpack it"):
        sign(make_zip(small_kit), keys / "line.key")
