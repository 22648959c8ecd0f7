from pathlib import Path

import pytest

from msc_edge.errors import SourceError, UsageError
from msc_edge.studio.folders import chosen_folder, chosen_labelled, chosen_normal, file_name, list_folder


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


@pytest.mark.parametrize("given", ["\0.png", "a\0b.png", "a\n.png", "\x1b[31m.png", "\ud800.png", "x" * 300 + ".png"])
def test_names_that_no_file_can_have_are_refused(given):
    with pytest.raises(UsageError, match="; rename ") as error:
        file_name(given)
    assert str(error.value).isprintable()


def test_any_other_name_can_be_written(tmp_path):
    for name in ("Bildschirmfoto\u202f1.png", "x" * 196 + ".png", "ä" * 98 + ".png", "日本.png"):
        (tmp_path / file_name(name)).touch()


def test_the_home_of_a_user_that_is_not_there_is_no_folder():
    with pytest.raises(SourceError, match="no such user of this pc"):
        chosen_folder("~no such user of this pc/x", Path("/studio"))


def test_labelled_images_without_a_folder_of_good_ones_are_refused_when_they_are_chosen(tmp_path, toy, save):
    save(tmp_path / "parts" / "dent" / "1.png", toy.draw(0))
    with pytest.raises(SourceError, match="test/good"):
        chosen_labelled(str(tmp_path / "parts"), Path("/studio"))
    save(tmp_path / "parts" / "good" / "1.png", toy.draw(1))
    assert chosen_labelled(str(tmp_path / "parts"), Path("/studio")) == tmp_path / "parts"
    with pytest.raises(SourceError, match=f"normal {tmp_path / 'parts' / 'good'}"):
        chosen_normal(str(tmp_path / "parts"), Path("/studio"))
    assert chosen_normal(str(tmp_path / "parts" / "good"), Path("/studio")) == tmp_path / "parts" / "good"


@pytest.mark.parametrize("given", ["", "a", "a.txt", ".png", "..", "../.hidden.png", "a.svg"])
def test_other_files_are_refused(given):
    with pytest.raises(UsageError, match="not an image"):
        file_name(given)
