"""A station that watches a real RTSP camera, in a real browser: from the frame to the page, and back into the kit."""

import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
PASSWORD = "correct horse battery"
# The image of this camera does not change for minutes, and ten rejects a second would be ten parts a second.
OPTIONS = "frozen_after = 0\nmax_fps = 4"


def verdict(page: Page):
    return page.locator("[data-source=camera-1] [data-word]")


def overlay(page: Page) -> float:
    """How much the displayed frame differs from the plain one of the camera, in grey levels."""
    return page.evaluate("""async () => {
        const pixels = async (address) => {
            const image = new Image(), canvas = document.createElement("canvas");
            image.src = address;
            await image.decode();
            [canvas.width, canvas.height] = [64, 48];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0, 64, 48);
            return context.getImageData(0, 0, 64, 48).data;
        };
        const shown = await pixels(document.querySelector("[data-frame]").src);
        const plain = await pixels("/live/camera-1.jpg?plain");
        return shown.reduce((sum, value, place) => sum + Math.abs(value - plain[place]), 0) / shown.length;
    }""")


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_a_reject_of_the_camera_is_on_the_page_with_its_overlay(
    start_station, opened, part_camera, record_testsuite_property
) -> None:
    """The order is asserted; the time is reported: it depends on the load of the machine (see benchmarks/page.py)."""
    station = start_station(source=part_camera.url("parts"), source_options=OPTIONS)
    with opened(station) as page:
        page.goto(station.address)
        expect(verdict(page)).to_have_text("GOOD")
        assert overlay(page) < 2
        assert station.get("/parts").text.count('<li class="card') == 0
        changed = time.time()
        part_camera.command("part 1")
        expect(verdict(page)).to_have_text("REJECT")
        seen = time.time()
        shown = station.live()["live"]["sources"][0]["shown"]
        assert shown["outcome"] == "reject"
        assert changed < shown["time"] < time.time()
        number = page.locator("[data-frame]").get_attribute("data-number")
        record_testsuite_property(
            "seconds from another part before an RTSP camera to the page", round(seen - changed, 3)
        )
        expect(page.locator("[data-frame]")).not_to_have_attribute("data-number", number or "")
        assert overlay(page) > 8
        part_camera.command("part 0")
        expect(verdict(page)).to_have_text("GOOD")
        page.get_by_role("link", name="Rejects and warnings").click()
        page.locator(".card a").last.click()
        for part in ("[data-drawn]", "[data-regions]", ".nearest"):
            expect(page.locator(part)).to_be_visible()
        found = station.send("GET", "/parts/1/frame.jpg"), station.send("GET", "/parts/1/overlay.jpg")
        assert found[0].status == found[1].status == 200
        assert found[0].body != found[1].body


def test_a_false_alarm_of_the_camera_is_learned_and_undone(
    start_station, opened, part_camera, patch_kit: Path, users: Path, tmp_path: Path
) -> None:
    """The same part stays before the camera: what has changed is what the station has learned."""
    kit = Path(shutil.copytree(patch_kit, tmp_path / "patches.kit"))
    station = start_station(
        kit=kit,
        users=str(users),
        top='[images]\nformat = "png"',
        source=part_camera.url("parts"),
        source_options=OPTIONS,
    )
    part_camera.command("part 1")
    with opened(station, allowed="403") as page:
        page.goto(station.address)
        log_in(page, "operator")
        expect(verdict(page)).to_have_text("REJECT")
        page.goto(f"{station.address}/parts/1")
        token = page.evaluate("document.body.dataset.token")
        page.evaluate("document.body.dataset.token = 'guessed'")
        page.get_by_role("button", name="False alarm").click()
        expect(page.get_by_role("status")).to_contain_text("Not saved: this page is from an earlier session")
        page.evaluate("token => { document.body.dataset.token = token }", token)
        page.get_by_role("button", name="False alarm").click()
        expect(page.locator("[data-current]")).to_have_text("False alarm")
        expect(page.get_by_text("Learning needs the role engineer.")).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()  # before the next address is opened
        page.goto(f"{station.address}/parts/1")
        log_in(page, "engineer")
        page.get_by_role("button", name="Learn that this is normal").click()
        expect(page.get_by_text("Learned as number 1 by engineer")).to_be_visible()
        page.goto(station.address)
        expect(verdict(page)).to_have_text("GOOD")
        page.goto(f"{station.address}/parts/1")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("button", name="Learn that this is normal")).to_be_visible()
        page.goto(station.address)
        expect(verdict(page)).to_have_text("REJECT")
    assert [entry["action"] for entry in station.audit()] == [
        *("log_in", "mark_false_alarm", "log_out", "log_in"),
        *("learn_asked", "learn_done", "undo_asked", "undo_done"),
    ]
