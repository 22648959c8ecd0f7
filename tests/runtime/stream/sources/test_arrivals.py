"""Files that come, grow, are renamed, replaced and removed between two listings of a real folder."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from msc_edge.runtime.stream.sources.arrivals import Arrivals, KnownFile, PendingFile, patience
from msc_edge.runtime.stream.sources.folder_listing import FileStatus, list_folder

SETTLE = 3600.0  # seconds: nothing is complete while a test runs


class Watched:
    """A folder that is listed step by step."""

    def __init__(self, folder: Path, toy: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.draw = toy.draw
        self.processed: dict[bytes, KnownFile] = {}
        self.arrivals = Arrivals(os.fsencode(folder), self.processed, settle=SETTLE)
        self.moment = 0.0

    def lost(self) -> dict[str, str]:
        """List the folder. The files that were lost, and how."""
        self.moment += 1
        found = self.arrivals.update(list_folder(os.fsencode(self.folder)), self.moment)
        return {os.fsdecode(each.path): each.reason.partition(" before")[0].removeprefix("it was ") for each in found}

    def image(self, suffix: str, number: int) -> bytes:
        return cv2.imencode(suffix, self.draw(number))[1].tobytes()

    def write(self, name: str, number: int) -> Path:
        path = self.folder / name
        path.write_bytes(self.image(path.suffix, number))
        return path


@pytest.fixture
def watched(tmp_path: Path, toy: Any) -> Watched:
    return Watched(tmp_path / "in", toy)


REMOVED, REPLACED = "removed or moved away", "replaced by another image"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff"])
def test_what_writers_do_with_one_image_loses_none(watched: Watched, suffix: str) -> None:
    data = watched.image(suffix, 1)
    folder = watched.folder
    with (folder / f"slow{suffix}").open("wb", buffering=0) as file:
        for start in range(0, len(data), 1 + len(data) // 4):
            file.write(data[start : start + 1 + len(data) // 4])
            assert watched.lost() == {}
        file.write(b"a trailer, as cameras append it")
        assert watched.lost() == {}
    (folder / "part.tmp").write_bytes(data)
    assert watched.lost() == {}
    (folder / "part.tmp").rename(folder / f"part{suffix}")
    assert watched.lost() == {}
    (folder / f"new.part{suffix}").write_bytes(data[: len(data) // 2])
    assert watched.lost() == {}
    with (folder / f"new.part{suffix}").open("ab") as file:
        file.write(data[len(data) // 2 :])
    (folder / f"new.part{suffix}").rename(folder / f"new{suffix}")
    assert watched.lost() == {}
    (folder / f"reserved{suffix}").touch()
    assert watched.lost() == {}
    (folder / "reserved.tmp").write_bytes(data)
    (folder / "reserved.tmp").rename(folder / f"reserved{suffix}")
    assert watched.lost() == {}
    os.utime(folder / f"reserved{suffix}", (1, 1))
    (folder / f"part{suffix}").chmod(0o600)
    assert watched.lost() == {}
    with (folder / f"copied{suffix}").open("wb", buffering=0) as file:  # as by Windows and SMB
        file.truncate(len(data))
        for part in (b"", data[: len(data) // 2], data[len(data) // 2 :]):
            file.write(part)
            assert watched.lost() == {}
    (folder / f"aborted{suffix}").touch()
    assert watched.lost() == {}
    (folder / f"aborted{suffix}").unlink()
    assert watched.lost() == {}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff"])
def test_an_image_that_is_removed_or_whose_name_another_one_takes_is_lost(watched: Watched, suffix: str) -> None:
    folder = watched.folder
    first, second = (watched.write(f"{name}{suffix}", number) for number, name in enumerate("ab"))
    assert watched.lost() == {}
    first.unlink()
    watched.write(f"c{suffix}", 3)  # most file systems give it the inode of the removed one
    assert watched.lost() == {first.name: REMOVED}
    (folder / "next.tmp").write_bytes(watched.image(suffix, 4))
    (folder / "next.tmp").rename(second)
    assert watched.lost() == {second.name: REPLACED}
    second.rename(folder.parent / "archive")
    assert watched.lost() == {second.name: REMOVED}
    (folder / f"c{suffix}").rename(second)
    assert watched.lost() == {}
    watched.write(f"d{suffix}", 5).rename(second)  # it overwrites the one that was renamed before
    assert watched.lost() == {second.name: REPLACED}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff"])
def test_an_image_that_is_overwritten_in_place_is_lost(watched: Watched, suffix: str) -> None:
    path = watched.write(f"latest{suffix}", 1)
    assert watched.lost() == {}
    inode = path.stat().st_ino
    for number in (2, 3):
        watched.write(path.name, number)
        assert path.stat().st_ino == inode
        assert watched.lost() == {path.name: REPLACED}
    with path.open("r+b") as file:  # as a writer that is slower than the listing
        file.truncate(0)
        assert watched.lost() == {path.name: REPLACED}
        for part in (watched.image(suffix, 4)[:300], watched.image(suffix, 4)[300:]):
            file.write(part)
            file.flush()
            assert watched.lost() == {}


def test_a_scored_image_that_is_touched_and_then_archived_is_not_lost(watched: Watched) -> None:
    path = watched.write("part.png", 1)
    watched.lost()
    status = watched.arrivals[b"part.png"].status
    watched.arrivals.pop(b"part.png")
    watched.processed[b"part.png"] = KnownFile(*status[:2], b"digest", *status[2:])
    path.chmod(0o600)
    assert watched.lost() == {}
    assert watched.arrivals, "its content is compared when it is complete"
    path.unlink()
    assert watched.lost() == {}
    assert not watched.arrivals


@pytest.mark.usefixtures("bound_by_permissions")
def test_nothing_is_lost_in_a_subfolder_that_cannot_be_listed(watched: Watched) -> None:
    subfolder, other = watched.folder / "shift 1", watched.folder / "shift 10"
    for folder in (subfolder, other):
        folder.mkdir()
        watched.write(f"{folder.name}/part.png", 1)
    assert watched.lost() == {}
    subfolder.chmod(0)
    (other / "part.png").unlink()
    assert watched.lost() == {"shift 10/part.png": REMOVED}
    subfolder.chmod(0o700)
    assert watched.lost() == {}
    (subfolder / "part.png").unlink()
    assert watched.lost() == {"shift 1/part.png": REMOVED}


def test_nothing_is_lost_while_a_share_is_not_mounted(disk_of: Callable[[str], Path], toy: Any) -> None:
    """As after a loss of the network: another file system, without files, is at the path of the share."""
    watched = Watched(disk_of("1m"), toy)
    path = watched.write("part.png", 1)
    assert watched.lost() == {}
    subprocess.run(["mount", "-t", "tmpfs", "msc-edge-test", str(watched.folder)], check=True)
    try:
        assert watched.lost() == {}
        assert watched.arrivals.complete(10 * SETTLE) == []
    finally:
        subprocess.run(["umount", str(watched.folder)], check=True)
    assert watched.lost() == {}
    assert watched.arrivals.complete(10 * SETTLE) == [b"part.png"]
    path.unlink()
    assert watched.lost() == {"part.png": REMOVED}


@pytest.mark.parametrize(("name", "expected"), [("a.JPG", 1), ("a.png", 1), ("a.bmp", 4), ("a.tiff", 4), ("a.pgm", 4)])
def test_a_format_without_an_end_marker_must_be_unchanged_longer(name: str, expected: int) -> None:
    assert patience(name.encode(), PendingFile(FileStatus(1, 1, 1, 1), 0.0)) == expected
    assert patience(name.encode(), PendingFile(FileStatus(1, 1, 1, 1), 0.0, failed=True)) == 10
