"""Every page of the station in each of its states: axe-core has no serious finding, and it fits on a phone."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
PASSWORD = "correct horse battery"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
everywhere = pytest.mark.parametrize(  # the other two pairs in the long suite
    ("locale", "scheme"),
    [
        ("en-GB", "light"),
        ("de-DE", "dark"),
        pytest.param("en-GB", "dark", marks=pytest.mark.long),
        pytest.param("de-DE", "light", marks=pytest.mark.long),
    ],
)


def check(page: Page, place: str) -> None:
    """Assert that what is displayed is accessible, and not wider than the screen.

    The width in both sizes, and what axe finds on the phone in German and on the desktop in English.
    """
    page.wait_for_timeout(200)  # colours change with an animation
    german = page.evaluate("navigator.language === 'de-DE'")
    for size in (DESKTOP, PHONE) if german else (PHONE, DESKTOP):
        page.set_viewport_size(size)  # pyright: ignore[reportArgumentType]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (place, size)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == [], place


def shown_live(page: Page, word: str) -> None:
    expect(page.locator("[data-word]").first).to_have_text(word)
    expect(page.locator("[data-facts] li").first).to_be_visible()


@pytest.fixture(scope="module")
def marked(stations: Callable, patch_kit: Path, users: Path, tmp_path_factory: pytest.TempPathFactory):
    """A station with users, and a part of each kind: learned, a false alarm, a defect, and one without a mark."""
    kit = Path(shutil.copytree(patch_kit, tmp_path_factory.mktemp("own") / "patches.kit"))
    with stations() as start:
        station = start(kit=kit, users=str(users), top='[images]\nformat = "png"')
        station.log_in("engineer")
        for seed in (500, 501, 502, 503):
            station.inspect(f"part{seed}", seed, "stain")
        for number in (1, 2):
            assert station.mark(number, "false_alarm").status == 200
        learned = station.send("POST", "/parts/1/learn", json.dumps({"action": "learn"}), X_Token=station.token())
        assert learned.status == 200, learned.text
        assert station.mark(3, "defect", "scratch").status == 200
        station.cookies.clear()
        yield station


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.locator("[name=name]").fill(name)
    page.locator("[name=password]").fill(password)
    page.locator("form button").click()


@everywhere
def test_pages_of_users(marked, opened, locale: str, scheme: str) -> None:
    with opened(marked, allowed="status of 40", locale=locale, color_scheme=scheme) as page:
        page.goto(marked.address)
        check(page, "log-in")
        log_in(page, "engineer", "a wrong password")
        expect(page.get_by_role("alert")).to_be_visible()
        check(page, "wrong password")
        for role in ("viewer", "engineer"):
            page.goto(f"{marked.address}/login?to=/parts/2")
            log_in(page, role)
            expect(page.locator("[data-current]")).to_be_visible()
            check(page, f"a false alarm, as {role}")
        for path in ("/parts", "/parts?verdict=warn", "/parts/1", "/parts/3", "/parts/4", "/nothing", "/parts/99"):
            page.goto(marked.address + path)
            page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")
            check(page, path)
        page.goto(f"{marked.address}/parts/4")
        page.keyboard.press("d")
        expect(page.locator("[data-result]")).not_to_be_empty()
        check(page, "the kind of a defect is missing")


@everywhere
def test_the_live_page(start_station: Callable, opened, locale: str, scheme: str) -> None:
    """Nothing yet, a good part, a reject, a lost folder, and a stream that does not answer."""
    words = ("WAITING", "GOOD", "REJECT", "NO IMAGE", "NO DATA")
    if locale == "de-DE":
        words = ("WARTET", "GUT", "AUSSCHUSS", "KEIN BILD", "KEINE DATEN")
    station = start_station()
    with opened(station, locale=locale, color_scheme=scheme) as page:
        page.goto(station.address)
        shown_live(page, words[0])
        check(page, "nothing yet")
        page.goto(f"{station.address}/parts")
        check(page, "an empty gallery")
        page.goto(station.address)
        for word, part in zip(words[1:3], (("good", 100), ("bad", 200, "stain")), strict=True):
            station.inspect(*part)
            shown_live(page, word)
            expect(page.locator("[data-hours] tbody tr")).to_have_count(1)
            check(page, word)
        shutil.rmtree(station.incoming)
        shown_live(page, words[3])
        expect(page.locator("[data-reason]")).to_contain_text("No such file or directory")
        if locale == "de-DE":
            expect(page.locator("[data-reason]")).to_contain_text(
                re.compile("^Teile werden nicht geprüft. Keine Bilder seit .*: der Ordner ist nicht lesbar: ")
            )
            expect(page.locator("[data-reason] [lang=en]")).to_have_text("No such file or directory")
            expect(page.locator("[data-facts]")).to_contain_text("Nicht bereit: Quelle camera-1: keine Bilder seit")
        check(page, words[3])
        station.process.send_signal(signal.SIGSTOP)
        try:
            shown_live(page, words[4])
            expect(page.get_by_role("alert")).to_be_visible()
            check(page, words[4])
        finally:
            station.process.send_signal(signal.SIGCONT)
        shown_live(page, words[3])
    station.stop()


def test_without_the_station_no_verdict_is_shown_as_current(start_station: Callable, opened) -> None:
    station = start_station()
    station.inspect("good", 100)
    with opened(station, allowed="net::ERR_C") as page:  # the connection is refused, or the content too short
        page.goto(station.address)
        shown_live(page, "GOOD")
        station.stop()
        shown_live(page, "NO DATA")
        expect(page.get_by_role("alert")).to_contain_text("This page has no connection to the station.")
        expect(page.get_by_text("The station is ready.")).to_have_count(0)
        expect(page.locator("[data-score]")).to_have_text("")
