"""Sealing a folder as a kit, and writing a kit again with another manifest."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.errors import KitError, OutputError, UsageError
from msc_edge.kit.manifest import Manifest, parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import refuse_zip, rewrite, rewrite_target, seal


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def renamed(kit: Kit) -> Manifest:
    """A manifest that differs from the kit's."""
    return kit.manifest.model_copy(update={"name": "other"})


# --- seal ------------------------------------------------------------------------------------------------------------


def test_the_manifest_lists_size_and_hash_of_every_file(small_kit: Path, content: dict[str, bytes]) -> None:
    files = json.loads((small_kit / "manifest.json").read_bytes())["files"]
    assert files == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in content.items()
    }


def test_the_digest_is_that_of_the_manifest(small_kit: Path) -> None:
    digest = hashlib.sha256((small_kit / "manifest.json").read_bytes()).hexdigest()
    assert (small_kit / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


def test_the_returned_manifest_is_the_one_on_disk(small_kit: Path, manifest: Manifest) -> None:
    sealed = seal(small_kit, manifest)
    assert parse_manifest((small_kit / "manifest.json").read_bytes()) == sealed
    assert sealed.model_copy(update={"files": {}}) == manifest


def test_sealing_again_adds_new_files_and_forgets_removed_ones(
    small_kit: Path, manifest: Manifest, assert_refused: Callable[[Path, str], None]
) -> None:
    (small_kit / "thumbnails" / "00002.jpg").write_bytes(b"new")
    (small_kit / "thumbnails" / "00000.jpg").unlink()
    assert_refused(small_kit, "00000.jpg is missing")
    files = seal(small_kit, manifest).files
    assert "thumbnails/00002.jpg" in files
    assert "thumbnails/00000.jpg" not in files
    Kit.open(small_kit).close()


def test_a_manifest_that_would_not_be_read_again_is_not_written(small_kit: Path, manifest: Manifest) -> None:
    before = everything(small_kit)
    with pytest.raises(UsageError, match=r"would have 9\.0 MB, and at most 8 MiB are read"):
        seal(small_kit, manifest.model_copy(update={"extensions": {"text": "x" * 9_000_000}}))
    assert everything(small_kit) == before


# --- where a kit may be written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kit.zip", "KIT.ZIP"])
def test_a_kit_is_not_written_under_the_name_of_a_zip(name: str, small_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--out .*{name}: a kit is written as a folder; name a folder"):
        refuse_zip(tmp_path / name)
    with pytest.raises(UsageError, match="a kit is written as a folder"):
        rewrite_target(small_kit, tmp_path / name, in_place=False)
    refuse_zip(tmp_path / "kit")


def test_a_new_name_an_empty_folder_or_the_kit_itself_is_accepted(small_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new", tmp_path / "missing" / "new", tmp_path / "empty"):
        assert rewrite_target(small_kit, out, in_place=False) == out
    assert rewrite_target(small_kit, None, in_place=True) == small_kit
    assert rewrite_target(small_kit, None, in_place=False) is None


def test_in_place_means_the_target_of_a_link(small_kit: Path) -> None:
    link = small_kit.with_name("current")
    link.symlink_to(small_kit.name)
    assert rewrite_target(link, None, in_place=True) == small_kit
    with pytest.raises(UsageError, match="is the kit itself"):
        rewrite_target(link, small_kit, in_place=False)


def test_other_targets_are_refused(small_kit: Path, tmp_path: Path, make_zip: Callable[..., Path]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for out, reason in (
        (small_kit, "is the kit itself; choose another name"),
        (small_kit / "new", "lies within the kit and would make it invalid; choose another place"),
        (taken, "exists already; choose another name"),
        (taken / "thesis.txt", "exists already; choose another name"),
    ):
        with pytest.raises(UsageError, match=f"^--out {out}: {reason}"):
            rewrite_target(small_kit, out, in_place=False)
    with pytest.raises(UsageError, match="--out and --in-place exclude each other"):
        rewrite_target(small_kit, tmp_path / "new", in_place=True)
    with pytest.raises(UsageError, match=r"a kit in a \.zip cannot be replaced in place; pass --out NEWKIT"):
        rewrite_target(make_zip(small_kit), None, in_place=True)


# --- writing a kit again ---------------------------------------------------------------------------------------------


def test_only_the_manifest_differs_in_the_new_kit(small_kit: Path, tmp_path: Path) -> None:
    before = everything(small_kit)
    with Kit.open(small_kit) as kit:
        written = rewrite(kit, renamed(kit), tmp_path / "new.kit")
    assert everything(small_kit) == before
    after = everything(tmp_path / "new.kit")
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        "manifest.json",
        "manifest.sha256",
    }
    with Kit.open(tmp_path / "new.kit") as kit:
        assert kit.manifest == written
        assert kit.identity.name == "other"


def test_in_place_replaces_the_kit_and_leaves_nothing_beside_it(small_kit: Path) -> None:
    with Kit.open(small_kit) as kit:
        rewrite(kit, renamed(kit), small_kit)
    with Kit.open(small_kit) as kit:
        assert kit.identity.name == "other"
    assert list(small_kit.parent.iterdir()) == [small_kit]


def test_in_place_through_a_link_keeps_the_link(small_kit: Path) -> None:
    link = small_kit.with_name("current")
    link.symlink_to(small_kit.name)
    with Kit.open(link) as kit:
        rewrite(kit, renamed(kit), small_kit)
    assert link.is_symlink()
    with Kit.open(link) as kit:
        assert kit.identity.name == "other"


def test_a_zipped_kit_is_written_as_a_folder(small_kit: Path, tmp_path: Path, make_zip: Callable[..., Path]) -> None:
    archive = make_zip(small_kit)
    with Kit.open(archive) as kit:
        rewrite(kit, renamed(kit), tmp_path / "new.kit")
    Kit.open(tmp_path / "new.kit").close()


def test_a_kit_that_another_process_replaced_keeps_that_content(small_kit: Path) -> None:
    """Two calibrations at the same time: the second one must not lose the first one's history."""
    with Kit.open(small_kit) as slower, Kit.open(small_kit) as faster:
        rewrite(faster, faster.manifest.model_copy(update={"name": "faster"}), small_kit)
        with pytest.raises(UsageError, match="was changed by another process in the meantime; run the command again"):
            rewrite(slower, renamed(slower), small_kit)
    with Kit.open(small_kit) as kit:
        assert kit.identity.name == "faster"
    assert list(small_kit.parent.iterdir()) == [small_kit]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_changed_since_the_kit_was_opened_is_not_sealed(
    small_kit: Path, tmp_path: Path, in_place: bool
) -> None:
    """The new manifest would call the changed bytes correct."""
    with Kit.open(small_kit) as kit:
        (small_kit / "bank.npy").write_bytes(b"changed")
        before = everything(small_kit)
        with pytest.raises(KitError, match="its files changed while they were copied; try again, and check the disk"):
            rewrite(kit, renamed(kit), small_kit if in_place else tmp_path / "new.kit")
    assert everything(small_kit) == before
    assert list(small_kit.parent.iterdir()) == [small_kit]


def test_a_kit_that_was_removed_is_an_output_error(small_kit: Path, tmp_path: Path) -> None:
    with Kit.open(small_kit) as kit:
        shutil.rmtree(small_kit)
        with pytest.raises(OutputError, match="cannot write"):
            rewrite(kit, renamed(kit), tmp_path / "new.kit")
    assert list(tmp_path.iterdir()) == []


def test_a_target_below_a_file_is_an_output_error(small_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with Kit.open(small_kit) as kit, pytest.raises(OutputError, match="cannot write"):
        rewrite(kit, renamed(kit), tmp_path / "notes.txt" / "new.kit")
