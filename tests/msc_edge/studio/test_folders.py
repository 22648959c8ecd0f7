from pathlib import Path

import pytest

from msc_edge.errors import SourceError, UsageError
from msc_edge.studio.folders import chosen_folder, file_name, list_folder


def test_a_folder_is_listed_without_hidden_ones(tmp_path):
    for name in ("b", "A", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("x.png", "y.JPG", "notes.txt", ".z.png"):
        (tmp_path / name).touch()
    listing = list_folder(tmp_path)
    assert (listing.folders, listing.images, listing.parent) == (("A", "b"), 2, tmp_path.parent)
    assert list_folder(Path(tmp_path.anchor)).parent is None


@pytest.mark.parametrize("text", ["", "  ", "relative/path", "."])
def test_a_typed_path_must_be_whole(text):
    with pytest.raises(SourceError, match="whole path"):
        chosen_folder(text, Path("/studio"))


def test_a_typed_path_must_be_a_folder(tmp_path):
    (tmp_path / "file.png").touch()
    for name in ("file.png", "missing"):
        with pytest.raises(SourceError, match=name):
            chosen_folder(str(tmp_path / name), Path("/studio"))
    assert chosen_folder(f" {tmp_path} ", Path("/studio")) == tmp_path


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.png", "a.png"),
        ("../../a.png", "a.png"),
        ("C:\\x\\a.JPG", "a.JPG"),
        ("/etc/a.tif", "a.tif"),
        ("ä b.bmp", "ä b.bmp"),
    ],
)
def test_a_dropped_file_keeps_its_name_without_folders(given, name):
    assert file_name(given) == name


@pytest.mark.parametrize("given", ["", "a", "a.txt", ".png", "..", "../.hidden.png", "a.svg"])
def test_other_files_are_refused(given):
    with pytest.raises(UsageError, match="not an image"):
        file_name(given)
