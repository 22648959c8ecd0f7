"""What requests name things by: whatever a name is, the answer is a page, a 404, or a sentence."""

import json
from urllib.parse import unquote

import pytest


@pytest.fixture(scope="module")
def project(studio) -> str:
    """The path of a project without images."""
    return studio.post("/projects", name="names")[1].removesuffix("/images")


# What a request may name a thing by: zero bytes, control characters, text of no encoding, other folders, any length.
HOSTILE = [
    "%00",
    "a%00b.png",
    "%00.png",
    "%0A.png",
    "%ff.png",
    "%ed%a0%80.png",
    "..%2F..%2Fx",
    "~nobody%2Fx",
    "9" * 5000,
]


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 300 + ".png"], ids=lambda name: name[:12])
def test_no_name_in_a_request_is_a_defect(studio, project, name):
    for method, path in (
        ("PUT", f"{project}/files?which=normal&name={name}"),
        ("PUT", f"{project}/files?which=test&label=good&name={name}"),
        ("PUT", f"{project}/files?which=test&label={name}&name=a.png"),
        ("GET", f"/projects/{name}/images"),
        ("GET", f"/projects/{name}"),
        ("GET", f"{project}/trainings/{name}"),
        ("GET", f"{project}/trainings/1/images/{name}/plain"),
        ("GET", f"{project}/normal/{name}"),
        ("GET", f"{project}/region?image={name}"),
        ("GET", f"{project}/images?show={name}&page={name}"),
        ("GET", f"{project}/dropped/{name}"),
        ("GET", f"{project}/dropped/normal/image?name={name}"),
        ("GET", f"/comparisons/{name}"),
        ("GET", f"/folders?path=%2F{name}"),
        ("GET", f"/static/{name}"),
    ):
        response, answer = studio.send(method, path, b"x" if method == "PUT" else b"")
        assert response.status < 500, (path, answer)
        assert response.status < 400 or json.loads(answer)["error"], path


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: name[:12])
def test_no_text_in_a_form_is_a_defect(studio, project, name):
    text = unquote(name, errors="surrogateescape").encode(errors="surrogateescape").decode("latin-1")
    for path, fields in (
        ("/projects", {"name": f"{text}/"}),
        (f"{project}/images", {"which": "normal", "folder": f"/{text}"}),
        (f"{project}/images", {"which": "test", "folder": text}),
        (f"{project}/images", {"which": text, "folder": text}),
        (f"{project}/region", {"x": text, "y": "1", "width": "3", "height": "4"}),
        (f"{project}/trainings", {"detail": "fast", "steps": text}),
        (f"{project}/trainings", {"detail": text}),
        (f"{project}/dropped/normal/delete", {"name": text, "confirmed": "yes"}),
        ("/comparisons", {"first": text, "second": text, "test": text, "folder": text}),
    ):
        assert studio.post(path, **fields)[0] == 400, path
