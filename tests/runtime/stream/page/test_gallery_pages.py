"""The gallery over HTTP: what is shown, and which changes are refused."""

import json

import numpy as np
import pytest

from msc_edge.images import decode_image, read_image


def decoded(response) -> np.ndarray:
    assert response.status == 200
    assert response.headers["content-type"] == "image/jpeg"
    return decode_image(np.frombuffer(response.body, np.uint8))


def test_the_gallery_has_the_rejects_and_not_the_good_part(station) -> None:
    page = station.get("/parts").text
    assert page.count('<li class="card reject">') == 3
    assert "3 found." in page


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("verdict=reject", 3),
        ("verdict=warn", 0),
        ("source=camera-1", 3),
        ("source=camera-2", 0),
        ("since=1", 3),
        ("since=99999999999", 0),
        ("until=1", 0),
        ("since=nonsense&until=inf", 3),
        ("before=2", 1),
        ("before=x", 3),
    ],
)
def test_filters(station, query: str, count: int) -> None:
    assert station.get(f"/parts?{query}").text.count('<li class="card') == count


def test_a_filter_that_is_none_is_refused(station) -> None:
    found = station.get("/parts?verdict=%3Cscript%3E")
    assert found.status == 400
    assert "<script>" not in found.text


def test_a_part_shows_its_frame_overlay_and_nearest_normal_image(station, patch_kit) -> None:
    numbers = {
        name: part
        for part in (1, 2, 3)
        for name in ("empty", "scratch", "stain")
        if f"/{name}.png" in station.get(f"/parts/{part}").text
    }
    frame = decoded(station.get(f"/parts/{numbers['scratch']}/frame.jpg"))
    part = read_image(station.incoming / "scratch.png")
    assert frame.shape == part.shape
    assert np.abs(frame.astype(int) - part).mean() < 4  # it is a JPEG
    drawn = decoded(station.get(f"/parts/{numbers['scratch']}/overlay.jpg"))
    assert np.abs(drawn.astype(int) - part).mean() > 10
    page = station.get(f"/parts/{numbers['scratch']}").text
    nearest = station.get(f"/parts/{numbers['scratch']}/nearest.jpg").body
    assert nearest in [path.read_bytes() for path in (patch_kit / "thumbnails").iterdir()]
    assert max(decoded(station.get(f"/parts/{numbers['scratch']}/small.jpg")).shape) <= 320
    assert page.count('<rect class="casing"') == 1
    assert "At most one good part in 13 looks like this: all 12 calibration images scored lower." in page


@pytest.mark.parametrize(
    "path", ["/parts/99", "/parts/99/frame.jpg", f"/parts/{2**63}", "/parts/1/other.jpg", "/nothing", "/static/app.py"]
)
def test_what_is_not_there_is_a_page_with_a_message(station, path: str) -> None:
    found = station.get(path)
    assert found.status == 404
    assert 'role="alert"' in found.text
    assert station.send("GET", path).json["error"]


def test_a_part_in_german(station) -> None:
    page = station.get("/parts/1", Accept_Language="fr, de-CH;q=0.8, en;q=0.3").text
    assert '<html lang="de">' in page
    assert "Höchstens eines von 13 guten Teilen sieht so aus" in page


def test_pages_load_nothing_from_elsewhere_and_no_inline_code(station) -> None:
    for path in ("/", "/parts", "/parts/1"):
        found = station.get(path)
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http://" not in found.text.replace("http://www.w3.org", "")
        assert "style=" not in found.text
        assert " onclick" not in found.text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"action": "defect", "defect": ""}, "name the defect in 1 to 60 letters"),
        ({"action": "defect", "defect": "x" * 61}, "name the defect in 1 to 60 letters"),
        ({"action": "defect", "defect": "a\x00b"}, "name the defect in 1 to 60 letters"),
        ({"action": "learn"}, "a mark is false_alarm, defect or withdrawn"),
        ({}, "a mark is false_alarm, defect or withdrawn"),
        ({"action": "withdrawn"}, "no mark that could be withdrawn"),
        ([], "not a JSON object"),
    ],
)
def test_a_wrong_mark_is_refused_and_changes_nothing(station, body: object, text: str) -> None:
    before = len(station.audit())
    found = station.send("POST", "/parts/1/mark", json.dumps(body), X_Token=station.token())
    assert found.status == 400
    assert text in found.json["error"]
    assert "Not marked yet." in station.get("/parts/1").text
    assert len(station.audit()) == before


def test_a_change_without_the_token_of_the_page_is_refused(station) -> None:
    for token in ("", "guessed"):
        found = station.mark(1, "false_alarm", token=token)
        assert found.status == 403
        assert "load it again" in found.json["error"]
    found = station.send("POST", "/parts/1/mark", "{}", X_Token=station.token(), Origin="http://evil.example")
    assert found.status == 403
    assert "Not marked yet." in station.get("/parts/1").text


def test_pages_of_other_hosts_are_refused(station) -> None:
    assert station.send("GET", "/", Host="evil.example").status == 421


def test_a_mark_is_a_record_with_a_kept_image_and_an_entry_of_the_audit_log(start_station) -> None:
    station = start_station()
    station.inspect("part", 200, "stain")
    assert station.mark(1, "defect", "  Fleck   links ").json == {"mark": "defect", "defect": "Fleck links"}
    assert "Fleck links" in station.get("/parts?mark=defect").text
    (kept,) = (path for path in (station.state / "marked").iterdir() if "_overlay" not in path.name)
    (saved,) = (path for path in (station.state / "images").rglob("*.jpg") if "_overlay" not in path.name)
    assert kept.read_bytes() == saved.read_bytes()
    saved.unlink()  # as the limits of size and age do
    assert station.get("/parts/1/frame.jpg").body == kept.read_bytes()
    assert station.mark(1, "false_alarm").json == {"mark": "false_alarm", "defect": None}
    assert station.mark(1, "withdrawn").json == {"mark": None, "defect": None}
    assert kept.exists()  # the only copy that is left
    page = station.get("/parts/1").text
    assert (
        page.index("mark withdrawn") < page.index("</time> &middot; local: false alarm") < page.index("(Fleck links)")
    )
    entries = station.audit()
    assert [entry["action"] for entry in entries] == ["mark_defect", "mark_false_alarm", "mark_withdrawn"]
    assert [entry["before"] for entry in entries] == [None, "defect", "false_alarm"]
    assert {(entry["who"], entry["role"], entry["from"]) for entry in entries} == {("local", "engineer", "127.0.0.1")}


def test_without_an_audit_log_nothing_is_marked(start_station) -> None:
    station = start_station()
    station.inspect("part", 200, "stain")
    (station.state / "audit.jsonl").mkdir()
    found = station.mark(1, "false_alarm")
    assert found.status == 400
    assert "audit.jsonl" in found.json["error"]
    assert "Not marked yet." in station.get("/parts/1").text
    assert station.get("/parts?mark=false_alarm").text.count('<li class="card') == 0


def test_warnings_are_saved_and_shown(start_station) -> None:
    station = start_station(top="[limits]\nthreshold = 1000000.0")
    station.inspect("part", 200, "stain")
    assert station.get("/parts?verdict=warn").text.count('<li class="card warn">') == 1
    assert decoded(station.get("/parts/1/overlay.jpg")).size
