"""Folders that cannot be listed, on a real file system."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from msc_edge.runtime.stream.sources import folder_listing as module
from msc_edge.runtime.stream.sources.folder_listing import Listing, ListingWatch, list_folder


@pytest.fixture
def too_long(tmp_path: Path) -> Iterator[Path]:
    """A folder with a chain of subfolders; the paths of the deepest are too long for any system call."""
    top = tmp_path / "in"
    top.mkdir()
    descriptors = [os.open(top, os.O_RDONLY)]
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=descriptors[-1])
        descriptors.append(os.open("d" * 250, os.O_RDONLY, dir_fd=descriptors[-1]))
    yield top
    for parent in reversed(descriptors[:-1]):
        os.rmdir("d" * 250, dir_fd=parent)
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.usefixtures("bound_by_permissions")
def test_what_cannot_be_listed_is_named_and_all_else_is_listed(too_long: Path) -> None:
    top = too_long
    for name in ("locked", "blind", "open/deeper", ".hidden"):
        (top / name).mkdir(parents=True)
        (top / name / "part.png").touch()
    (top / "loop.png").symlink_to("loop.png")
    (top / "nothing.png").symlink_to("missing.png")
    (top / "link").symlink_to(top / "open")
    (top / "folder.png").mkdir()
    (top / "notes.txt").touch()
    (top / "locked").chmod(0)
    (top / "blind").chmod(0o600)  # its files can be listed, and nothing be said about them
    listing = list_folder(os.fsencode(top))
    (top / "locked").chmod(0o700)
    assert set(listing.files) == {b"open/deeper/part.png"}
    (deep,) = [path for path in listing.unlisted if path.startswith(b"dd")]
    assert {path: reason for path, reason in listing.unlisted.items() if path != deep} == {
        b"locked": "Permission denied",
        b"blind/part.png": "Permission denied",
        b"loop.png": "Too many levels of symbolic links",
    }
    assert listing.unlisted[deep] == "File name too long"
    assert listing.may_have(b"locked/part.png")
    assert not listing.may_have(b"locked 2/part.png")
    (top / "blind").chmod(0o700)


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_folder(os.fsencode(tmp_path / "missing"))


def test_each_part_is_reported_once_and_a_failure_that_comes_and_goes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    watch = ListingWatch()

    def look(**unlisted: str) -> None:
        listing = Listing(unlisted={name.encode(): reason for name, reason in unlisted.items()})
        watch.look(listing, lambda kind, message, _seconds: events.append(f"{kind}: {message}"))

    look()
    for _ in range(3):
        look(a="Input/output error")
        look()
    look(a="Input/output error", b="Permission denied")
    assert watch.reason == "a: Input/output error; b: Permission denied: cannot be listed"
    monkeypatch.setattr(module, "_RECOVERED_AFTER", 0.0)
    look()
    look()
    assert watch.reason == ""
    look(**dict.fromkeys("abcde", "Stale file handle"))
    assert [event.partition(" and")[0] for event in events] == [
        "folder_incomplete: a: Input/output error: cannot be listed; images there are not inspected",
        "folder_incomplete: b: Permission denied: cannot be listed; images there are not inspected",
        "folder_complete: all subfolders can be listed again",
        "folder_incomplete: a: Stale file handle; b: Stale file handle; c: Stale file handle;",
    ]


def test_a_share_that_is_gone_is_reported_until_it_is_mounted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is below it is an empty folder, in which nothing fails."""
    events: list[str] = []
    watch = ListingWatch()
    monkeypatch.setattr(module, "_RECOVERED_AFTER", 0.0)
    for is_mounted in (False, True, False, False, True, True):
        watch.look(Listing(is_mounted=is_mounted), lambda kind, message, _seconds: events.append(f"{kind}: {message}"))
    gone = ".: the share or disk that was mounted here is gone: cannot be listed; images there are not inspected"
    assert events == [f"folder_incomplete: {gone}", "folder_complete: all subfolders can be listed again"]
