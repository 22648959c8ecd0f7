"""Removal by its pages: a question first, and only the form of the question deletes."""

import re
import shutil
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from msc_edge.studio.workspace import Workspace


@pytest.fixture
def place(studio, request: pytest.FixtureRequest, photos: Path) -> str:
    """The path of a project with three dropped normal images and a labelled one."""
    name = "r" + re.sub(r"\W", "", request.node.name)[:50]
    address = studio.post("/projects", name=name)[1].removesuffix("/images")
    data = (photos / "warn.png").read_bytes()
    for number in range(3):
        data += b"\0"  # another file with the same pixels
        assert studio.send("PUT", f"{address}/files?which=normal&name={number}.png", data)[0].status == 201
    assert studio.send("PUT", f"{address}/files?which=test&label=good&name=a%20%26b.png", data)[0].status == 201
    return address


def folder_of(studio, place: str) -> Path:
    return studio.folder / place.rpartition("/")[2]


def names(studio, place: str) -> list[str]:
    images = folder_of(studio, place) / "images"
    return sorted(path.relative_to(images).as_posix() for path in images.rglob("*") if path.is_file())


def hidden(page: str) -> dict[str, list[str]]:
    """The hidden fields of the form on a page."""
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page):
        fields.setdefault(name, []).append(value.replace("&amp;", "&"))
    return fields


def send(studio, path: str, fields: dict[str, list[str]], **headers: str) -> tuple[int, str]:
    form = {"Content_Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    response, page = studio.send("POST", path, urlencode(fields, doseq=True), **form, **headers)
    return response.status, response.headers.get("location", page)


def test_chosen_images_are_removed_after_the_question(studio, place):
    page = studio.get(f"{place}/dropped/normal")[1]
    assert re.findall(r'type="checkbox" name="name" value="([^"]+)"', page) == ["0.png", "1.png", "2.png"]
    status, question = send(studio, f"{place}/dropped/normal/delete", {"name": ["0.png", "2.png"]})
    assert status == 200
    assert "Remove 2 dropped images?" in question
    assert len(names(studio, place)) == 4  # nothing yet
    fields = hidden(question)
    assert fields == {"confirmed": ["yes"], "name": ["0.png", "2.png"]}
    assert send(studio, f"{place}/dropped/normal/delete", fields) == (303, f"{place}/images")
    assert names(studio, place) == ["normal/1.png", "test/good/a &b.png"]


def test_all_images_of_a_kind_are_removed(studio, place):
    question = send(studio, f"{place}/dropped/test/delete", {"all": ["yes"]})[1]
    assert send(studio, f"{place}/dropped/test/delete", hidden(question))[0] == 303
    assert names(studio, place) == ["normal/0.png", "normal/1.png", "normal/2.png"]
    assert "None chosen yet" in studio.get(f"{place}/images")[1]


def test_a_dropped_image_is_shown(studio, place):
    assert studio.send("GET", f"{place}/dropped/test/image?name={quote('good/a &b.png')}")[0].status == 200
    for name in ("none.png", "../normal/0.png", "/etc/passwd"):
        assert studio.send("GET", f"{place}/dropped/test/image?name={quote(name)}")[0].status == 404
    assert studio.get(f"{place}/dropped/other")[0] == 404


@pytest.mark.parametrize(
    ("fields", "text"),
    [({}, "no image is chosen"), ({"confirmed": ["yes"], "name": ["0.png", "../../project.json"]}, "not among")],
)
def test_other_names_are_refused(studio, place, fields, text):
    status, page = send(studio, f"{place}/dropped/normal/delete", fields)
    assert (status, text in page) == (400, True)
    assert len(names(studio, place)) == 4


def test_a_project_is_deleted_after_the_question(studio, place):
    path = f"{place}/delete"
    for status, page in (studio.get(path), send(studio, path, {}), send(studio, path, {"confirmed": [""]})):
        assert status == 200
        assert "4 dropped images" in page
        assert hidden(page) == {"confirmed": ["yes"]}
    assert len(names(studio, place)) == 4
    assert studio.get(f"{path}?confirmed=yes")[0] == 200  # a link deletes nothing
    assert len(names(studio, place)) == 4
    assert send(studio, path, {"confirmed": ["yes"]}) == (303, "/")
    assert not folder_of(studio, place).exists()
    assert studio.get(place)[0] == 404


def test_pages_of_other_sites_delete_nothing(studio, place):
    for path in ("delete", "dropped/normal/delete"):
        fields = {"confirmed": ["yes"], "name": ["0.png"]}
        assert send(studio, f"{place}/{path}", fields, Origin="http://evil.example")[0] == 403
    assert len(names(studio, place)) == 4


def test_a_training_is_deleted_after_the_question_and_not_while_it_runs(studio, place):
    project = Workspace.at(studio.folder).project(place.rpartition("/")[2])
    assert project
    shutil.rmtree(project.dropped / "test")  # good parts alone cannot be evaluated
    training = project.new_training(detail="fast", steps=0)
    training.job.folder.mkdir()
    (training.job.folder / "request.json").write_text("{}")
    path = f"{place}/trainings/1/delete"
    question = send(studio, f"{place}/dropped/normal/delete", {"name": ["0.png"]})[1]
    assert "1 training of this project used dropped images" in question
    with training.job.work():
        for status, page in (studio.get(path), send(studio, path, {"confirmed": ["yes"]})):
            assert status == 400
            assert "training 1 is running; cancel it first" in page
        assert studio.get(f"{place}/delete")[0] == 400
    assert training.folder.is_dir()
    assert studio.get(path)[0] == 200
    assert send(studio, path, {"confirmed": ["yes"]}) == (303, f"{place}/trainings")
    assert project.trainings() == []
