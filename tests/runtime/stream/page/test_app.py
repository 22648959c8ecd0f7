"""The page in a real browser: what people at the line see and do."""

import json
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
PASSWORD = "correct horse battery"


def source(page: Page):
    return page.locator('[data-source="camera-1"]')


def press(page: Page, key: str) -> None:
    """Press a key, as a person does: when the page has loaded."""
    page.wait_for_load_state("networkidle")
    page.keyboard.press(key)


def brightness(page: Page) -> float:
    """The mean of the displayed frame."""
    return page.evaluate("""() => {
        const image = document.querySelector("[data-frame]"), canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [32, 32];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0, 32, 32);
        return context.getImageData(0, 0, 32, 32).data.reduce((sum, value) => sum + value, 0) / 4096;
    }""")


def test_the_live_page_shows_each_verdict_by_word_and_shape_with_its_heatmap(start_station, opened) -> None:
    station = start_station()
    with opened(station) as page:
        page.goto(station.address)
        expect(source(page)).to_contain_text("WAITING")
        station.inspect("good", 100)
        expect(source(page).locator("[data-word]")).to_have_text("GOOD")
        expect(source(page).locator("[data-verdict] use")).to_have_attribute("href", "#sign-normal")
        expect(page.locator("[data-frame]")).to_be_visible()
        plain = brightness(page)
        station.inspect("bad", 200, "stain")
        expect(source(page).locator("[data-word]")).to_have_text("REJECT")
        expect(source(page).locator("[data-verdict] use")).to_have_attribute("href", "#sign-reject")
        expect(source(page).locator("[data-score]")).to_contain_text("limit 3.68")
        expect(page.locator("[data-chart] rect.reject")).to_have_count(1)
        expect(page.locator("[data-frame]")).to_have_attribute("data-number", "2")
        with_heatmap = brightness(page)
        assert with_heatmap < plain - 3
        page.keyboard.press("o")
        expect(page.locator("[data-frame]")).to_have_attribute("src", re.compile("plain$"))
        assert brightness(page) > with_heatmap + 3
        expect(source(page).locator("[data-count=normal]")).to_have_text("1")
        expect(source(page).locator("[data-count=reject]")).to_have_text("1")
        expect(source(page).locator("[data-count=yield]")).to_have_text("50.0 %")


def test_a_file_that_cannot_be_read_is_not_shown_as_inspected(start_station, opened) -> None:
    station = start_station()
    station.inspect("good", 100)
    with opened(station) as page:
        page.goto(station.address)
        expect(source(page)).to_contain_text("GOOD")
        (station.incoming / "broken.png").write_bytes((station.incoming / "good.png").read_bytes()[:500])
        expect(source(page).locator("[data-word]")).to_have_text("NOT INSPECTED")
        expect(source(page).locator("[data-count=not_scored]")).to_have_text("1")


def test_a_camera_that_is_lost_is_not_shown_as_current(start_station, opened, own_camera) -> None:
    station = start_station(source=own_camera.url())
    with opened(station) as page:
        page.goto(station.address)
        frame = page.locator("[data-frame]")
        expect(frame).to_have_attribute("data-number", re.compile(r"\d"))
        expect(frame).not_to_have_attribute("data-number", frame.get_attribute("data-number") or "")
        expect(source(page).locator("[data-state]")).to_contain_text("inspecting")
        own_camera.kill()
        expect(source(page).locator("[data-word]")).to_have_text("NO IMAGE")
        expect(source(page)).to_have_class(re.compile("old"))
        assert "grayscale" in frame.evaluate("image => getComputedStyle(image).filter")
        expect(page.get_by_text("Not ready: source camera-1")).to_be_visible()
        own_camera.start()
        expect(source(page).locator("[data-state]")).to_contain_text("inspecting")


def test_parts_are_marked_by_keys_alone(start_station, opened) -> None:
    station = start_station()
    for name in ("empty", "scratch", "stain"):
        station.inspect(name, 200, name)
    with opened(station) as page:
        page.goto(f"{station.address}/parts")
        for key in ("ArrowRight", "ArrowRight", "Enter"):
            press(page, key)
        expect(page).to_have_url(f"{station.address}/parts/2")
        press(page, "d")
        expect(page.get_by_role("status")).to_have_text("Name the kind of defect first.")
        page.keyboard.type("dent & <b>")
        press(page, "Enter")
        expect(page.locator("[data-current]")).to_have_text("Defect: dent & <b>")
        press(page, "ArrowRight")
        expect(page).to_have_url(f"{station.address}/parts/1")
        page.get_by_role("button", name="dent & <b>").click()  # a known kind needs no typing
        expect(page.locator("[data-current]")).to_have_text("Defect: dent & <b>")
        for key, text in (("f", "False alarm"), ("u", "Not marked yet.")):
            press(page, key)
            expect(page.locator("[data-current]")).to_have_text(text)
        press(page, "Escape")
        expect(page.locator(".marked")).to_have_text(["Defect: dent & <b>"])
    assert [entry["action"] for entry in station.audit()] == [
        *("mark_defect", "mark_defect", "mark_false_alarm", "mark_withdrawn")
    ]


def test_the_heatmap_and_the_boxes_can_be_hidden(station, opened) -> None:
    number = next(each for each in (1, 2, 3) if "/scratch.png" in station.get(f"/parts/{each}").text)
    with opened(station) as page:
        page.goto(f"{station.address}/parts/{number}")
        for key, part in (("o", "[data-drawn]"), ("r", "[data-regions]")):
            expect(page.locator(part)).to_be_visible()
            page.keyboard.press(key)
            expect(page.locator(part)).to_be_hidden()
        page.reload()
        expect(page.locator("[data-drawn]")).to_be_hidden()  # it is remembered


def test_the_gallery_is_filtered_by_times_of_the_viewer(station, opened) -> None:
    zone = timedelta(hours=9)
    with opened(station, timezone_id="Asia/Tokyo") as page:
        page.goto(f"{station.address}/parts")
        shown = datetime.now(UTC) + zone
        expect(page.locator(".card time").first).to_contain_text(f"{shown:%H}:")
        after = shown + timedelta(hours=1)
        page.get_by_label("From").fill(f"{after:%Y-%m-%dT%H:%M}")
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_text("Nothing matches this filter.")).to_be_visible()
        expect(page.get_by_label("From")).to_have_value(f"{after:%Y-%m-%dT%H:%M}")  # its script fills it in
        page.get_by_role("link", name="Show all").click()
        expect(page.locator(".card")).to_have_count(3)


def test_an_ended_session_leads_to_the_log_in_and_back(start_station, opened, users: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(users, tmp_path / "users.toml"))
    station = start_station(users=str(file))
    with opened(station, allowed="401") as page:
        page.goto(f"{station.address}/parts")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.get_by_label("Name").fill("viewer")
        page.get_by_label("Password").fill("wrong password")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("Name or password is wrong. Try again.")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{station.address}/parts")
        page.get_by_role("link", name="Live").click()
        expect(page.get_by_text("The station is ready.")).to_be_visible()
        file.write_text(file.read_text().replace("[users.viewer]", "[users.other]"))
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.get_by_label("Name").fill("operator")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("operator (operator)")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_the_language_is_that_of_the_browser_and_can_be_chosen(station, opened) -> None:
    with opened(station, locale="de-DE") as page:
        page.goto(station.address)
        expect(page.get_by_text("Die Station ist bereit.")).to_be_visible()
        expect(page.locator("[data-count=yield]")).to_have_text("25,0 %")
        page.get_by_role("link", name="Englisch").click()
        expect(page.get_by_text("The station is ready.")).to_be_visible()
        page.get_by_role("link", name="Rejects and warnings").click()
        expect(page.get_by_role("heading", name="Rejects and warnings")).to_be_visible()


def test_a_reject_is_on_the_page_with_its_heatmap_soon_after_its_decision(
    start_station, opened, record_testsuite_property
) -> None:
    """The time is reported, not asserted: it depends on the load of the machine."""
    station = start_station()
    station.inspect("good", 100)
    with opened(station) as page:
        page.goto(station.address)
        expect(source(page)).to_contain_text("GOOD")
        station.save(station.incoming / "bad.png", station.toy.draw(200, "stain"))
        expect(page.locator("[data-frame]")).to_have_attribute("data-number", "2")
        shown = time.time()
        decided = json.loads(station.send("GET", "/live").body)["live"]["sources"][0]["shown"]["time"]
        record_testsuite_property("seconds until a reject is seen", round(shown - decided, 3))
        expect(source(page).locator("[data-word]")).to_have_text("REJECT")
