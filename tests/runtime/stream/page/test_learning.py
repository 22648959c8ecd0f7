"""Learning from the page: the part passes next time, and is rejected again when that is undone."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from msc_edge.kit.opening import Kit
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.stream.control import request_reload

LEARN = "Learn that this is normal"


@pytest.fixture
def kit(patch_kit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(patch_kit, tmp_path / "patches.kit"))


@pytest.fixture
def teaching(start_station: Callable, kit: Path) -> Iterator:
    """A station that saves frames without loss, and may be taught."""
    station = start_station(kit=kit, top='[images]\nformat = "png"')
    yield station
    station.stop()


def counts(station) -> dict[str, int]:
    found = station.send("GET", f"/counts?since={time.time() - 3600:.0f}").json["counts"]
    return {name: sum(each.get(name, 0) for each in found) for name in ("normal", "warn", "reject")}


def learned(station) -> int:
    return station.live()["live"]["kits"][0]["learned"]


def change(station, number: int, action: str):
    return station.send("POST", f"/parts/{number}/learn", json.dumps({"action": action}), X_Token=station.token())


def test_a_false_alarm_is_marked_learned_and_undone(teaching, opened, kit: Path) -> None:
    teaching.inspect("first", 500, "stain")
    assert counts(teaching) == {"normal": 0, "warn": 0, "reject": 1}
    with opened(teaching) as page:
        page.goto(f"{teaching.address}/parts/1")
        expect(page.get_by_role("button", name=LEARN)).to_have_count(0)
        page.get_by_role("button", name="False alarm").click()
        page.get_by_role("button", name=LEARN).click()
        expect(page.get_by_text("Learned as number 1 by local: parts like this are normal.")).to_be_visible()
        teaching.until(lambda: learned(teaching) == 1, "the stream uses it")
        teaching.inspect("second", 500, "stain")
        assert counts(teaching) == {"normal": 1, "warn": 0, "reject": 1}
        page.goto(f"{teaching.address}/")
        expect(page.get_by_text("learned images: 1")).to_be_visible()
        page.goto(f"{teaching.address}/parts/1")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("button", name=LEARN)).to_be_visible()
    teaching.until(lambda: learned(teaching) == 0, "the stream uses it no more")
    teaching.inspect("third", 500, "stain")
    assert counts(teaching) == {"normal": 1, "warn": 0, "reject": 2}
    actions = [entry["action"] for entry in teaching.audit()]
    assert actions == ["mark_false_alarm", "learn_asked", "learn_done", "undo_asked", "undo_done"]
    done = teaching.audit()[2]
    assert done["learned"] == 1
    assert done["score_after"] < done["score"]
    with Kit.open(kit) as opened_kit, AdditionsFile.open(kit, opened_kit.identity) as file:
        (image,) = file.images()
    assert (image.added.by, image.added.reason) == ("local", "false alarm, marked on the page")
    assert image.undone


def test_what_would_hide_a_confirmed_defect_is_not_learned(teaching) -> None:
    teaching.inspect("defect", 100, "scratch")
    teaching.inspect("alike", 101, "scratch")
    assert teaching.mark(1, "defect", "scratch").status == 200
    assert teaching.mark(2, "false_alarm").status == 200
    refused = change(teaching, 2, "learn")
    assert refused.status == 400
    assert "is not learned: the confirmed defect 1 would be" in refused.json["error"]
    assert learned(teaching) == 0
    assert teaching.mark(1, "withdrawn").status == 200
    assert change(teaching, 2, "learn").status == 200


def test_a_part_of_a_replaced_kit_is_shown_and_not_learned(teaching, kit: Path, toy_kit: Path) -> None:
    teaching.inspect("first", 500, "stain")
    assert teaching.mark(1, "false_alarm").status == 200
    assert LEARN in teaching.get("/parts/1").text
    shutil.rmtree(kit)
    shutil.copytree(toy_kit, kit)
    request_reload(teaching.state, timeout=60)
    teaching.until(lambda: LEARN not in teaching.get("/parts/1").text, "the page knows of the other kit")
    page = teaching.get("/parts/1").text
    assert "The kit that scored this part is not in use any more, so it cannot be learned." in page
    assert "/parts/1/nearest.jpg" in page
    assert teaching.get("/parts/1/nearest.jpg").status == 200
    refused = teaching.send(
        "POST", "/parts/1/learn", '{"action": "learn"}', X_Token=teaching.token(), Accept_Language="de"
    )
    assert refused.json["error"] == "das Kit, das dieses Teil geprüft hat, ist nicht mehr aktiv"


@pytest.mark.parametrize(
    ("number", "action", "message"),
    [
        (1, "learn", "mark this part as a false alarm first"),
        (1, "undo", "nothing was learned from this part that counts"),
        (1, "forget", "the action is learn or undo"),
    ],
)
def test_what_cannot_be_done_says_why(station, number: int, action: str, message: str) -> None:
    assert station.mark(number, "defect", "scratch").status == 200
    found = change(station, number, action)
    assert (found.status, found.json["error"]) == (400, message)


def test_only_an_engineer_may_teach(start_station: Callable, kit: Path, users: Path) -> None:
    station = start_station(kit=kit, users=str(users))
    station.log_in("operator")
    station.inspect("first", 500, "stain")
    assert station.mark(1, "false_alarm").status == 200
    page = station.get("/parts/1").text
    assert "Learning needs the role engineer." in page
    assert LEARN not in page
    assert change(station, 1, "learn").status == 403
    station.log_in("engineer")
    assert LEARN in station.get("/parts/1").text
    assert station.send("POST", "/parts/1/learn", json.dumps({"action": "learn"}), X_Token="wrong").status == 403
    station.stop()
