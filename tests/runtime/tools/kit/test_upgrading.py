"""`msc-edge upgrade`: an older kit in the current format."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.kit.upgrading import upgrade
from msc_edge.runtime.tools.kit.verify import verify


@pytest.fixture
def old(written_by_0_1_0: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written_by_0_1_0 / "format-1.kit", tmp_path / "old.kit")


def content(kit: Path) -> dict[str, bytes]:
    return {path.relative_to(kit).as_posix(): path.read_bytes() for path in kit.rglob("*") if path.is_file()}


def test_scores_and_files_stay_and_the_manifest_is_new(old: Path, written_by_0_1_0: Path, tmp_path: Path) -> None:
    before = content(old)
    done = upgrade(old, tmp_path / "new.kit")
    assert done
    assert (done.from_version, done.to_version) == (1, 2)
    assert content(old) == before
    after = content(tmp_path / "new.kit")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {MANIFEST, "manifest.sha256"}
    image = written_by_0_1_0 / "images" / "scratch.png"
    for precision in ("fp32", "int8"):
        one, other = (Detector.load(kit, threads=1, precision=precision) for kit in (old, tmp_path / "new.kit"))
        assert one.score_file(image).score == other.score_file(image).score
        assert one.limits == other.limits
    with Kit.open(tmp_path / "new.kit") as kit:
        assert kit.identity.sha256 == done.sha256
        assert kit.manifest.extensions["upgraded_from"]["format_version"] == 1
        verify(kit)


def test_it_is_replaced_in_its_own_place_and_a_second_time_is_nothing(old: Path) -> None:
    assert upgrade(old)
    assert json.loads((old / MANIFEST).read_text())["format_version"] == 2
    once = content(old)
    assert upgrade(old) is None
    assert content(old) == once


def test_a_zip_is_upgraded_into_a_folder_only(old: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for name, data in content(old).items():
            archive.writestr(name, data)
    with pytest.raises(UsageError, match="cannot be replaced in place"):
        upgrade(tmp_path / "old.zip")
    assert upgrade(tmp_path / "old.zip", tmp_path / "new.kit")
    Detector.load(tmp_path / "new.kit", threads=1)


def test_an_existing_folder_is_not_replaced(old: Path, toy_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists already"):
        upgrade(old, tmp_path / "taken")
    with pytest.raises(UsageError, match="has format 2 already"):
        upgrade(toy_kit, tmp_path / "copy.kit")
