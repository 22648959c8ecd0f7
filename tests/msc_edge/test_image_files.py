"""Image files on the disk: names and places under which they are found and opened."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.image_files import find_images
from msc_edge.images import read_image

# --- paths ----------------------------------------------------------------------------------------------------

IMAGE = np.random.default_rng(3).integers(0, 256, (8, 12, 3), dtype=np.uint8)
PNG = cv2.imencode(".png", IMAGE[..., ::-1])[1].tobytes()


def plant(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return paths


def found(folder: Path, *arguments: str) -> list[str]:
    """Names of the images found, relative to `folder`, in their order."""
    paths = find_images([folder / argument if argument else folder for argument in arguments]).paths
    return [path.relative_to(folder).as_posix() for path in paths]


@pytest.mark.parametrize("name", ["größe.png", "部品 3号.png", "🔩.png", "Ω'\"& %s {x}.png", "a" * 250 + ".png"])
def test_names_of_any_script_are_found_and_read(tmp_path: Path, name: str) -> None:
    plant(tmp_path, name)
    (path,) = find_images([tmp_path]).paths
    assert path.name == name
    np.testing.assert_array_equal(read_image(path), IMAGE)


def test_names_that_are_not_unicode_are_found_and_read(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\xfe part.png"
    try:
        with open(raw, "wb") as file:  # noqa: PTH123  (pathlib accepts no bytes)
            file.write(PNG)
    except OSError as error:
        pytest.skip(f"this file system refuses such names: {error}")
    (path,) = find_images([tmp_path]).paths
    assert os.fsencode(path) == raw
    np.testing.assert_array_equal(read_image(path), IMAGE)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has paths of 260 characters unless it is configured")
@pytest.mark.parametrize("part", ["d", "d" * 120], ids=["a thousand folders deep", "long names"])
def test_very_long_paths_are_found_and_read(tmp_path: Path, part: str) -> None:
    depth = min(1100, (3500 - len(str(tmp_path))) // (len(part) + 1))
    path = "/".join([str(tmp_path), *[part] * depth, "part.png"])
    folder = str(tmp_path)
    for _ in range(depth):  # os.makedirs is recursive
        folder += f"/{part}"
        os.mkdir(folder)  # noqa: PTH102
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(PNG)
    try:
        (found,) = find_images([tmp_path]).paths
        assert str(found) == path
        np.testing.assert_array_equal(read_image(found), IMAGE)
    finally:  # pytest's own clean-up is recursive
        subprocess.run(["rm", "-rf", str(tmp_path / part)], check=True)


@pytest.mark.parametrize(
    "argument", ["x" * 300, "x" * 300 + "/*.png", "/".join(["long"] * 2000), "nul\0byte.png", "nul\0*.png", ""]
)
def test_impossible_paths_are_one_source_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError):
        find_images([argument])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: path.parent.exists(), "No such file"),
        (lambda path: path.symlink_to(path.parent / "gone.png"), "No such file"),
        (lambda path: path.symlink_to(path), "[Ss]ymbolic link|Too many levels"),
    ],
    ids=["folder", "missing", "broken link", "link to itself"],
)
def test_a_path_that_cannot_be_opened_is_one_reason(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "x.jpg"
    make(path)
    with pytest.raises(UnreadableImageError, match=f"^cannot be opened: .*({reason})"):
        read_image(path)


def test_a_path_with_a_zero_byte_is_one_reason() -> None:
    with pytest.raises(UnreadableImageError, match="cannot be opened: embedded null"):
        read_image(Path("a\0b.jpg"))


@pytest.mark.usefixtures("enforced_permissions")
def test_missing_permissions_are_one_reason(tmp_path: Path) -> None:
    (path,) = plant(tmp_path, "closed/part.png")
    path.chmod(0)
    with pytest.raises(UnreadableImageError, match="cannot be opened: Permission denied"):
        read_image(path)
    path.parent.chmod(0)
    try:
        with pytest.raises(SourceError, match=r"closed: cannot be listed: Permission denied; check the permissions"):
            find_images([tmp_path])
    finally:
        path.parent.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_reported_and_not_waited_for(tmp_path: Path, in_child: Callable[..., str]) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    code = """
import os, sys
from msc_edge.errors import UnreadableImageError
from msc_edge.image_files import find_images
from msc_edge.images import read_image
os.chdir(sys.argv[1])
for argument in sys.argv[2:]:
    for path in find_images([argument]).paths:
        try:
            read_image(path)
        except UnreadableImageError as error:
            print(path, error)
"""
    lines = in_child(code, tmp_path, ".", "x.jpg", "*.jpg", "**").splitlines()
    assert lines == ["x.jpg cannot be opened: it is not a regular file; check the path"] * 4


# --- finding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "arguments", "expected"),
    [
        (["b.png", "a.png", "c/a.png"], [""], ["a.png", "b.png", "c/a.png"]),
        (["a.PNG", "b.JpEg", "c.TIFF", "d.Webp"], [""], ["a.PNG", "b.JpEg", "c.TIFF", "d.Webp"]),
        (["a.png", "b.txt", "c.mp4", "d.gif", "e", "png"], [""], ["a.png"]),
        ([".hidden.png", ".git/a.png", "b.png"], [""], ["b.png"]),
        ([".hidden.png", ".git/a.png"], [".hidden.png", ".git"], [".hidden.png", ".git/a.png"]),
        ([".hidden.png", ".git/a.png", "b.png"], ["**"], ["b.png"]),
        ([".hidden.png", "b.png"], [".*.png"], [".hidden.png"]),
        (["x.jpg/a.png"], [""], ["x.jpg/a.png"]),
        (["b/1.png", "a/1.png"], ["b", "a"], ["b/1.png", "a/1.png"]),
        (["a.png", "b.png"], ["b.png", "", "a.png", "*.png", "./a.png"], ["b.png", "a.png"]),
        (["notes.txt"], ["notes.txt"], ["notes.txt"]),
        (["a1.png", "a2.png", "b1.png"], ["a*.png"], ["a1.png", "a2.png"]),
        (["a1.png", "a2.png", "b1.png"], ["?1.png"], ["a1.png", "b1.png"]),
        (["a1.png", "a2.png", "a3.png"], ["a[13].png"], ["a1.png", "a3.png"]),
        (["a.png", "c/d/e.png", "c/f.png"], ["**/*.png"], ["a.png", "c/d/e.png", "c/f.png"]),
        (["a.png", "c/d/e.png", "c/f.png"], ["**"], ["a.png", "c/d/e.png", "c/f.png"]),
        (["x/good/1.png", "x/bad/2.png", "y/z/good/3.png"], ["**/good/*"], ["x/good/1.png", "y/z/good/3.png"]),
        (["x/good/1.png", "x/bad/2.png"], ["*/good"], []),
        (["a.png", "c/a.png"], ["*"], ["a.png"]),
        (["x/1.png", "x/deep/2.png", "w/3.png"], ["x/**/*.png", "**/**/3.png"], ["x/1.png", "x/deep/2.png", "w/3.png"]),
        (["line [1]/a.png", "line 1/b.png"], ["line [1]"], ["line [1]/a.png"]),
        (["line [1]/a.png", "line 1/b.png"], ["line [1]/*.png"], ["line [1]/a.png"]),
        (["line 1/b.png"], ["line [1]/*.png"], ["line 1/b.png"]),
        (["line [1]/a.png", "line 1/b.png"], ["line [[]1]/*.png"], ["line [1]/a.png"]),
        (["a[1].png", "a1.png"], ["a[1].png"], ["a[1].png"]),
        (["[unclosed.png"], ["[unclosed*"], ["[unclosed.png"]),
    ],
)
def test_find_images(tmp_path: Path, names: list[str], arguments: list[str], expected: list[str]) -> None:
    plant(tmp_path, *names)
    if expected:
        assert found(tmp_path, *arguments) == expected
    else:
        with pytest.raises(SourceError):
            found(tmp_path, *arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no star in a name")
def test_a_star_in_an_existing_name_matches_only_itself(tmp_path: Path) -> None:
    plant(tmp_path, "*/a.png", "b/a.png")
    assert found(tmp_path, "*/a.png") == ["*/a.png"]


@given(
    st.sets(
        st.lists(st.text("aB.é_", min_size=1, max_size=3).filter(lambda part: part[0] != "."), max_size=2).map(
            "/".join
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_every_image_in_a_folder_is_found_once_and_sorted(
    tmp_path_factory: pytest.TempPathFactory, folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for i, folder in enumerate(sorted(folders)):
        plant(root, f"{folder}/{i}.png".lstrip("/"), f"{folder}/{i}.txt".lstrip("/"))
    everything = find_images([root])
    assert list(everything.paths) == sorted(root.rglob("*.png"))
    assert len(everything.paths) == everything.other_files == len(folders)
    assert find_images([root / "**"]) == everything
    assert find_images([root / "**" / "*.png"]).paths == everything.paths


@pytest.mark.parametrize(
    ("names", "arguments", "reason"),
    [
        ([], [""], r"no images found \(0 other files\)"),
        (["a.txt", "b/c.mp4"], [""], r"no images found \(2 other files\)"),
        (["a.png"], ["missing"], r"missing: No such file or directory; check the path"),
        (["a.png"], ["*.jpg"], r"\*\.jpg: no file matches this pattern; check the path"),
        (["a.png"], ["missing/*.png"], "no file matches this pattern"),
        (["a.png"], ["a.png/*.png"], "no file matches this pattern"),
        (["a.png"], ["a.png/**"], "no file matches this pattern"),
        (["a.png"], ["a*/**"], "no file matches this pattern"),
        (["a.txt"], ["*.txt"], r"no images found \(1 other files\)"),
        (["a.png"], ["a.png", "missing.png"], "missing.png: No such file"),
    ],
)
def test_an_argument_without_images_is_named(
    tmp_path: Path, names: list[str], arguments: list[str], reason: str
) -> None:
    plant(tmp_path, *names)
    with pytest.raises(SourceError, match=reason) as refusal:
        found(tmp_path, *arguments)
    assert str(tmp_path) in str(refusal.value)
    assert refusal.value.exit_code == 3


def test_an_empty_list_of_arguments_is_an_error() -> None:
    with pytest.raises(SourceError, match="the list of paths: no images found"):
        find_images([])


def test_other_files_are_counted(tmp_path: Path) -> None:
    plant(tmp_path, "a.png", "Thumbs.db", "notes/x.txt", "notes/y.csv", ".hidden")
    assert find_images([tmp_path]).other_files == 3


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege there")
def test_with_loops_of_links_each_image_is_found_once(tmp_path: Path, in_child: Callable[..., str]) -> None:
    plant(tmp_path, "a/1.png", "b/2.png")
    for link, target in [("a/up", ".."), ("a/self", "."), ("b/a", "../a"), ("b/again", "../b"), ("b/up", "..")]:
        (tmp_path / link).symlink_to(target)
    code = """
import os, sys
from msc_edge.image_files import find_images
os.chdir(sys.argv[1])
for argument in sys.argv[2:]:
    print(*sorted(path.resolve().name for path in find_images([argument]).paths))
"""
    arguments = [".", "**", "**/*.png", "a/../**/*.png"]
    assert in_child(code, tmp_path, *arguments, timeout=30).splitlines() == ["1.png 2.png"] * len(arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege there")
def test_links_are_followed_and_dangling_links_are_listed(tmp_path: Path) -> None:
    plant(tmp_path, "elsewhere/deep/1.png")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "file.png").symlink_to(tmp_path / "elsewhere" / "deep" / "1.png")
    (folder / "dead.png").symlink_to(tmp_path / "gone.png")
    (folder / "round.png").symlink_to(folder / "round.png")
    expected = ["dead.png", "file.png", "linked/deep/1.png", "round.png"]
    assert found(folder, "") == expected
    assert found(folder, "**") == expected
    assert found(folder, "*.png") == ["dead.png", "file.png", "round.png"]


def test_a_nested_folder_that_cannot_be_listed_is_returned_itself(tmp_path: Path) -> None:
    """One path is longer than the system accepts. The other images must be found all the same."""
    (tmp_path / "a.png").write_bytes(PNG)
    here, name = os.open(tmp_path, os.O_RDONLY), "d" * 200
    for _ in range(25):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        found = find_images([tmp_path]).paths
        assert tmp_path / "a.png" in found
        (unlisted,) = set(found) - {tmp_path / "a.png"}
        with pytest.raises(UnreadableImageError):
            read_image(unlisted)
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / name)], check=True)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(SourceError, match="empty path"):
        find_images([""])
