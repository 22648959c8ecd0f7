"""The server without a browser: who may use it, and what it refuses."""

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

TOKEN = "0123456789abcdef-secret"


@pytest.fixture(scope="module")
def project(studio) -> str:
    """The path of a project without images."""
    status, place = studio.post("/projects", name="Räder Co")
    assert status == 303
    return place.removesuffix("/images")


def test_a_project_is_made_once(studio, project):
    assert studio.get("/")[1].count("<b>Räder Co</b>") == 1
    status, page = studio.post("/projects", name="räder co")
    assert status == 400
    assert "already" in page
    assert studio.get(project)[0] == 303


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/projects/none",
        "/projects/none/images",
        "/static/app.py",
        "/static/../command.py",
        "/comparisons/7",
    ],
)
def test_what_is_not_there_is_404_or_a_message(studio, path):
    status, page = studio.get(path)
    assert status in (400, 404)
    assert 'role="alert"' in page
    assert "Traceback" not in page


def test_texts_on_pages_are_escaped(studio):
    status, page = studio.post("/projects", name="<script>alert(1)</script>")
    assert status == 400
    assert "<script>alert" not in page


def test_a_refused_name_of_a_project_is_shown_plainly(studio):
    page = studio.post("/projects", name="it's: new")[1]
    assert "the name it&#39;s: new cannot be used" in page


def test_pages_load_nothing_from_elsewhere(studio, project):
    response, page = studio.send("GET", f"{project}/images", Accept="text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"https?://", page)
    assert not re.findall(r"<script(?! type=\"module\" src=\"/static/)|\son\w+=|style=", page)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "localhost"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_use_the_studio(studio, headers, status):
    assert studio.send("GET", "/", **headers)[0].status == status


def test_beyond_this_pc_a_token_is_needed(start_studio, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    guarded = start_studio(tmp_path / "work", "--host", "0.0.0.0", "--token-file", file)
    assert guarded.send("GET", "/")[0].status == 401
    response, _ = guarded.send("GET", "/", Accept="text/html")
    assert (response.status, response.headers["location"]) == (303, "/login")
    assert guarded.send("GET", "/", Authorization=f"Bearer {TOKEN}")[0].status == 200
    assert guarded.get("/login")[0] == 200
    form = {"Content_Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    response, _ = guarded.send("POST", "/login", f"token={TOKEN}", **form)
    cookie = response.headers["set-cookie"]
    assert response.status == 303
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert guarded.send("GET", "/", Cookie=cookie.partition(";")[0])[0].status == 200
    assert guarded.send("GET", "/", Cookie="msc_edge_session=guessed")[0].status == 401
    assert guarded.send("POST", "/login", "token=wrong", **form)[0].status == 401
    # Right after a wrong token, the right one is refused too: guessing takes a second each.
    assert guarded.send("POST", "/login", f"token={TOKEN}", **form)[0].status == 401


def test_dropped_images_are_stored_once_and_none_is_overwritten(studio, project, photos):
    data = (photos / "warn.png").read_bytes()
    other = (photos / "good_100.png").read_bytes()
    names = []
    for content in (data, data, other):
        response, text = studio.send("PUT", f"{project}/files?which=normal&name={quote('a b.png')}", content)
        assert response.status == 201
        names.append(json.loads(text)["name"])
    assert names == ["a b.png", "a b.png", "a b (2).png"]
    folder = studio.folder / "Räder Co" / "images" / "normal"
    assert sorted(path.name for path in folder.iterdir()) == ["a b (2).png", "a b.png"]
    assert (folder / "a b.png").read_bytes() == data


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("which=normal&name=a.txt", "not an image"),
        ("which=normal&name=.png", "not an image"),
        ("which=normal", "not an image"),
        ("which=test&name=a.png", "defect type is empty"),
        ("which=test&label=..&name=a.png", "cannot be a defect type"),
        ("which=test&label=a%2Fb&name=a.png", "cannot be a defect type"),
        ("which=test&label=a%5Cb&name=a.png", "cannot be a defect type"),
        ("which=test&label=ground_truth&name=a.png", "cannot be a defect type"),
    ],
)
def test_other_files_and_labels_are_refused(studio, project, query, text):
    response, answer = studio.send("PUT", f"{project}/files?{query}", b"x")
    assert response.status == 400
    assert text in json.loads(answer)["error"]


def test_images_are_not_dropped_beside_a_folder_in_use(studio, photos, tmp_path):
    place = studio.post("/projects", name="folder in use")[1].removesuffix("/images")
    assert studio.post(f"{place}/images", which="normal", folder=str(tmp_path))[0] == 303
    data = (photos / "warn.png").read_bytes()
    response, text = studio.send("PUT", f"{place}/files?which=normal&name=a.png", data)
    assert response.status == 400
    assert str(tmp_path) in json.loads(text)["error"]
    assert "no images" in studio.get(f"{place}/images")[1]
    assert studio.post(f"{place}/images", which="normal", folder="")[0] == 303
    assert studio.send("PUT", f"{place}/files?which=normal&name=a.png", data)[0].status == 201


def test_a_file_cannot_leave_its_folder(studio, project, photos):
    data = (photos / "warn.png").read_bytes()
    before = {path for path in studio.folder.rglob("*") if path.is_file()}
    for query in ("name=..%2F..%2Fx.png", "name=%2Fetc%2Fx.png", "name=..%5C..%5Cx.png"):
        for label in ("which=normal", "which=test&label=good"):
            assert studio.send("PUT", f"{project}/files?{label}&{query}", data)[0].status == 201
    made = {path for path in studio.folder.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(studio.folder / "Räder Co" / "images") for path in made)
    assert not (studio.folder / "x.png").exists()


@pytest.mark.parametrize(
    ("path", "fields", "text"),
    [
        ("images", {"which": "normal", "folder": "relative"}, "whole path"),
        ("images", {"which": "normal", "folder": "/no/such/folder"}, "/no/such/folder"),
        ("images", {"which": "both", "folder": "/"}, "not complete"),
        ("region", {"x": "1", "y": "", "width": "3", "height": "4"}, "four whole numbers"),
        ("region", {"x": "1", "y": "2", "width": "0", "height": "4"}, "four whole numbers"),
        ("trainings", {"detail": "best"}, "speed or detail"),
        ("trainings", {"detail": "fast", "steps": "-1"}, "whole number"),
        ("trainings", {}, "speed or detail"),
    ],
)
def test_wrong_forms_get_a_message_and_a_way_back(studio, project, path, fields, text):
    status, page = studio.post(f"{project}/{path}", **fields)
    assert status == 400
    assert text in page
    assert "Back" in page


@pytest.mark.parametrize("which", ["normal", "test"])
def test_a_folder_that_the_studio_writes_into_is_refused(studio, project, which):
    for folder, words in ((studio.folder.parent, "contains"), (studio.folder / "Räder Co", "lies in")):
        status, page = studio.post(f"{project}/images", which=which, folder=str(folder))
        assert status == 400
        assert f"{folder}: {words} {studio.folder}, where the studio writes" in page
    status, page = studio.post("/comparisons", first="", second="", folder=str(studio.folder.parent))
    assert status == 400
    assert studio.post(f"{project}/images", which=which, folder="")[0] == 303


def test_the_page_names_the_layout_of_labelled_images(studio, project):
    page = studio.get(f"{project}/images")[1]
    normal, labelled = re.findall(r'placeholder="([^"]+)"', page)
    assert (normal, labelled) == ("/data/parts/train/good", "/data/parts/test")
    assert re.search(r"/data/parts/test\n +good/ .*\n +dent/ .*\n +scratch/ ", page)
    assert "a folder good and a folder for each defect type" in page


def test_a_mask_must_be_an_image(studio, project):
    response, text = studio.send("PUT", f"{project}/mask", b"no image")
    assert response.status == 400
    assert "error" in json.loads(text)
    assert studio.get(f"{project}/mask")[0] == 404


def test_folders_of_this_pc_are_listed(studio, tmp_path):
    (tmp_path / "in <here>").mkdir()
    status, page = studio.get(f"/folders?path={quote(str(tmp_path))}")
    assert status == 200
    assert "in &lt;here&gt;" in page
    assert studio.get(f"/folders?path={quote(str(tmp_path / 'none'))}")[0] == 400
    assert str(Path.home()) in studio.get("/folders")[1]
