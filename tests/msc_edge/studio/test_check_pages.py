"""The page of a check, from its files: what it names, and what has changed since."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.studio.checked import CheckedImage, CheckResult, LeakedImage
from msc_edge.studio.workspace import Project, Workspace
from msc_edge.train.dataset import Role


@pytest.fixture
def checked(studio, toy, save: Callable, tmp_path: Path) -> Project:
    """A project with a check: b.png is like a.png, c.png is a copy of a.png, and a labelled image is d.png."""
    good, test = tmp_path / "good", tmp_path / "test"
    for name in ("a.png", "b.png", "c.png", "d.png"):
        save(good / name, toy.draw(0))
    save(test / "good" / "x.png", toy.draw(0))
    name = f"check {abs(hash(tmp_path))}"
    studio.post("/projects", name=name)
    project = Workspace.at(studio.folder).project(name)
    assert project
    project.change(normal=str(good), test=str(test))
    rows: list[tuple[str, Role, int | None, int | None]] = [
        ("a.png", "bank", 0, 1),
        ("b.png", "bank", 0, 0),
        ("c.png", "duplicate", None, 0),
        ("d.png", "bank", 1, None),
    ]
    result = CheckResult(
        normal=str(good),
        folder=str(good),
        images=[CheckedImage(path=path, role=role, group=at, twin=twin, reason="") for path, role, at, twin in rows],
        test=str(test),
        labels={"good": 1, "dent": 1},
        test_problem="",
        test_unreadable={"dent/y.png": "not an image"},
        leaked=[LeakedImage(path=str(test / "good" / "x.png"), name="good/x.png", label="good", normal=3)],
    )
    project.check.folder.mkdir()
    (project.check.folder / "request.json").write_text('{"task": "check"}')
    project.check.finish(result.model_dump())
    return project


def shown(studio, project: Project, query: str = "") -> str:
    status, page = studio.get(f"/projects/{project.name.replace(' ', '%20')}/images{query}")
    assert status == 200
    return " ".join(page.split())


def test_twins_and_leaked_images_are_named_and_shown_side_by_side(studio, checked):
    place = f"/projects/{checked.name.replace(' ', '%20')}"
    page = shown(studio, checked, "?show=near-duplicate")
    assert "shows the same part as a.png" in page
    assert page.count('class="twins"') == 3  # two near-duplicates, and the leaked image
    assert "duplicate; the same image as a.png" in shown(studio, checked, "?show=duplicate")
    assert "1 labelled image is also among the normal images" in page
    assert "What to do:" in page
    assert f'<img src="{place}/leaked/0" alt="good/x.png, labelled good"' in page
    assert f'<img src="{place}/normal/3" alt="d.png"' in page
    assert "dent/y.png (not an image)" in page
    for path, status in (("leaked/0", 200), ("leaked/1", 404), ("normal/3", 200), ("normal/4", 404)):
        assert studio.send("GET", f"{place}/{path}")[0].status == status


def test_a_folder_that_is_gone_is_said_and_its_check_not_shown(studio, checked):
    folder = Path(checked.settings.normal or "")
    shutil.rmtree(folder)
    page = shown(studio, checked)
    assert f"The folder of the last check, {folder}, is no longer there" in page
    assert "This folder is no longer there: bring it back, or choose another one." in page
    assert "can be used" not in page
    assert "<img" not in page
    region = studio.get(f"/projects/{checked.name.replace(' ', '%20')}/region")[1]
    assert "The images of the last check are no longer there" in region
    status, answer = studio.post(f"/projects/{checked.name.replace(' ', '%20')}/trainings", detail="fast")
    assert status == 400
    assert f"the folder of normal images {folder}: No such file or directory; choose another one" in answer


def test_changes_since_a_check_are_said(studio, checked, toy, save: Callable, tmp_path):
    assert "Since this check" not in shown(studio, checked)
    save(tmp_path / "good" / "new.png", toy.draw(9))
    (tmp_path / "good" / "b.png").unlink()
    place = f"/projects/{checked.name.replace(' ', '%20')}"
    for index, kind in ((0, "image/jpeg"), (1, "image/svg+xml")):  # a question mark in place of what is gone
        assert studio.send("GET", f"{place}/normal/{index}")[0].headers["content-type"] == kind
    assert "Since this check, 1 normal image came and 1 went. Check again." in shown(studio, checked)
    checked.change(test=None)
    assert "The check below is of other folders" in shown(studio, checked)


def test_the_check_of_an_older_version_is_done_again(studio, checked):
    checked.check.finish({"normal": "/x", "images": []})
    assert "Check the images" in shown(studio, checked)


@pytest.mark.parametrize("in_turn", [True, False])
def test_which_images_set_the_limits_is_said_in_whole_sentences(studio, checked, in_turn):
    result = checked.check.result
    images = [
        {"path": f"{place}.png", "role": "calibration" if place % 5 == 0 else "bank", "group": place, "twin": None}
        for place in range(40 if in_turn else 15)  # with few parts none is held out in turn
    ]
    checked.check.finish(result | {"images": [image | {"reason": ""} for image in images]})
    page = re.sub("<[^>]*>", "", shown(studio, checked))
    found = CheckResult.of(checked.check)
    assert found
    assert found.in_turn == in_turn
    if in_turn:
        assert (
            "40 images can be used. If training keeps the pretrained network, all of them set the limits. If training "
            "changes the network, only the 8 images that are held out set them."
        ) in page
    else:
        assert "15 images can be used. 3 of them will be held out to set the limits." in page


def test_labelled_images_that_cannot_be_used_are_not_chosen(studio, checked, tmp_path, toy, save: Callable):
    place = f"/projects/{checked.name.replace(' ', '%20')}"
    save(tmp_path / "other" / "dent" / "1.png", toy.draw(0))
    status, answer = studio.post(f"{place}/images", which="test", folder=str(tmp_path / "other"))
    assert status == 400
    assert "expected a folder good and a folder for each defect type; choose such a folder, or drop images" in answer
    assert "on the page Images" not in answer  # where the user is
    assert checked.settings.test == str(tmp_path / "test")
    save(tmp_path / "other" / "good" / "1.png", toy.draw(1))
    status, answer = studio.post(f"{place}/images", which="normal", folder=str(tmp_path / "other"))
    assert status == 400
    assert (
        f"contains &#39;good&#39; and also dent, and all of them would be used as normal images; choose {tmp_path}"
        in answer
    )
    assert studio.post(f"{place}/images", which="test", folder=str(tmp_path / "other"))[0] == 303
