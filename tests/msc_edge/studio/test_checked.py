from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.errors import SourceError
from msc_edge.studio.checked import Changes, CheckedImage, CheckResult, LeakedImage, twins_of
from msc_edge.train.dataset import NormalImage, Role


def image(path: str, role: Role = "bank", group: int | None = None, *, sha: str = "", pixels: str = "") -> NormalImage:
    return NormalImage(path, sha or path, role, group, pixels or path)


def result(folder: Path, *names: str, **changed) -> CheckResult:
    images = [CheckedImage(path=name, role="bank", group=at, twin=None, reason="") for at, name in enumerate(names)]
    values = {
        "normal": str(folder),
        "folder": str(folder),
        "images": images,
        "test": None,
        "labels": {},
        "test_problem": "",
        "test_unreadable": {},
        "leaked": [],
    }
    return CheckResult(**{**values, **changed})


def test_a_duplicate_names_the_image_that_is_used_instead():
    images = [
        image("a", group=0, pixels="1"),
        image("b", "duplicate", sha="b", pixels="1"),  # other bytes, the pixels of a
        image("c", "duplicate", sha="b"),  # the bytes of b, so it was not decoded
        image("d", group=1),
        image("e", "duplicate", sha="d"),
        NormalImage("f", "", "unreadable"),
        NormalImage("g", "", "unreadable"),
    ]
    assert twins_of(images) == [None, 0, 0, None, 3, None, None]


def test_images_of_one_part_name_each_other():
    images = [image("a", group=0), image("b", "calibration", 1), image("c", group=0), image("d", group=0)]
    assert twins_of(images) == [2, None, 0, 2]


def test_near_duplicates_are_shown_part_by_part(tmp_path):
    def one(name: str, group: int, twin: int | None) -> CheckedImage:
        return CheckedImage(path=name, role="bank", group=group, twin=twin, reason="")

    images = [one("a", 1, 3), one("b", 0, 2), one("c", 0, 1), one("d", 1, 0), one("e", 2, None)]
    found = result(tmp_path, images=images)
    assert found.shown("near-duplicate") == [1, 2, 0, 3]
    assert found.shown("all") == found.shown("used") == [0, 1, 2, 3, 4]
    assert found.shown("duplicate") == []
    assert (found.parts(), found.parts("bank"), found.parts("calibration")) == (3, 3, 0)


def test_what_has_changed_since_a_check(tmp_path, toy, save: Callable):
    folder = tmp_path / "parts"
    for name in ("a.png", "in/b.png"):
        save(folder / name, toy.draw(0))
    found = result(folder, "a.png", "in/b.png")
    assert Changes.since(found) == Changes(None, 0, 0)
    save(folder / "c.png", toy.draw(1))
    (folder / "in" / "b.png").unlink()
    assert Changes.since(found) == Changes(None, 1, 1)
    for name in ("a.png", "c.png"):
        (folder / name).unlink()
    assert Changes.since(found) == Changes(None, 0, 2)
    (folder / "in").rmdir()
    folder.rmdir()
    assert Changes.since(found) == Changes(str(folder), 0, 2)


@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "a/../../x.png"])
def test_a_changed_file_of_a_check_shows_no_other_files(tmp_path, path):
    leaked = LeakedImage(path=str(tmp_path / "test" / path), name="x", label="good", normal=0)
    found = result(tmp_path / "good", path, test=str(tmp_path / "test"), leaked=[leaked])
    with pytest.raises(SourceError, match="is not in"):
        found.path_of(0)
    with pytest.raises(SourceError, match="is not in"):
        found.leaked_path(0)


@pytest.mark.parametrize(("parts", "in_turn"), [(0, False), (29, False), (30, True)])
def test_all_images_can_set_the_limits_from_thirty_parts_on(tmp_path, parts, in_turn):
    assert result(tmp_path, *(f"{number}.png" for number in range(parts))).in_turn == in_turn
