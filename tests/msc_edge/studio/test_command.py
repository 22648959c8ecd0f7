"""From a folder of images to a kit by clicks alone, in a real browser."""

import re
import shutil
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from msc_edge.ignore_mask import IgnoreMask
from msc_edge.images import read_image
from msc_edge.kit.opening import Kit
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.evaluate.metrics import METRICS
from msc_edge.studio.agreement import explain_disagreement

pytestmark = pytest.mark.slow
WORK = 600_000  # milliseconds for a training on a busy machine
SIZES = ((1280, 900), (390, 800))
LOAD_ALL = """async () => {
    for (const each of document.images) { each.loading = "eager"; await each.decode(); }
}"""
IMAGES = re.compile(r"/(heatmap|plain|normal/\d+|leaked/\d+|curves|views)(\?|$)")


@pytest.fixture(scope="module")
def walked(opened, start_studio, parts, tmp_path_factory):
    """A studio with one trained project, all of it done by clicks, and the path of its training."""
    studio = start_studio(tmp_path_factory.mktemp("walk") / "work")
    with opened(studio) as page:
        page.goto(studio.address)
        page.get_by_label("Name of the part").fill("caps")
        page.get_by_role("button", name="Create").click()
        _choose_by_browsing(page, parts / "train", "good")
        labelled = page.locator(".box", has_text="Labelled images")
        labelled.get_by_label("Folder on this PC").fill(str(parts / "test"))
        labelled.get_by_role("button", name="Use this folder").click()
        expect(labelled.get_by_text(f"In use: {parts / 'test'},")).to_be_visible()
        page.get_by_role("button", name="Check the images").click()
        expect(page.get_by_text("can be used")).to_be_visible(timeout=WORK)
        page.get_by_role("link", name="Next: region").click()
        page.wait_for_url("**/region")  # with its script
        _ignore_a_corner(page)
        page.get_by_role("link", name="Next: training").click()
        _train(page)
        training = page.url.removeprefix(studio.address)
    return studio, training


def _choose_by_browsing(page: Page, folder: Path, name: str) -> None:
    box = page.locator(".box").first
    box.get_by_label("Folder on this PC").fill(str(folder))
    box.get_by_role("button", name="Browse").click()
    dialog = page.locator("#browse")
    dialog.get_by_role("button", name=name).click()
    expect(dialog.locator(".path")).to_have_text(str(folder / name))
    dialog.get_by_role("button", name="Choose this folder").click()
    box.get_by_role("button", name="Use this folder").click()
    expect(page.get_by_text(f"In use: {folder / name},")).to_be_visible()


def _ignore_a_corner(page: Page) -> None:
    """Draw a rectangle over the upper left tenth of the image."""
    page.get_by_role("button", name="Ignore a rectangle").click()
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    assert place
    page.mouse.move(place["x"] + 1, place["y"] + 1)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] / 10, place["y"] + place["height"] / 10, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Save the ignore mask").click()
    expect(page.get_by_text("The ignore mask is saved.")).to_be_visible()


def _train(page: Page) -> None:
    page.get_by_text("More options").click()
    page.get_by_label("Steps of fine-tuning").fill("1")
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_role("link", name="Download the kit")).to_be_visible(timeout=WORK)


def violations(page: Page) -> list[dict]:
    """Those of axe, which does not list what else it has checked."""
    return Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]


def test_the_check_says_what_will_be_used(opened, walked):
    studio, _ = walked
    with opened(studio) as page:
        page.goto(f"{studio.address}/projects/caps/images")
        assert page.get_by_text("24 images can be used").count() == 1
        page.get_by_role("link", name="duplicate (1)").click()
        expect(page.locator(".thumbs li")).to_contain_text("zz_copy.png")
        page.get_by_role("link", name="unreadable (1)").click()
        expect(page.locator(".thumbs li")).to_contain_text("zz_broken.png unreadable: not an image, or a truncated")


def test_the_downloaded_kit_scores_as_the_page_says(opened, walked, parts, tmp_path):
    studio, training = walked
    with opened(studio) as page:
        page.goto(studio.address + training)
        with page.expect_download() as started:
            page.get_by_role("link", name="Download the kit").click()
        kit = tmp_path / "kit.zip"
        started.value.save_as(kit)
        detector = Detector.load(kit)
        mask = detector.manifest.preprocessing.ignore
        assert isinstance(mask, IgnoreMask)
        assert mask.ignored[5, 5]
        assert 0.005 < mask.ignored.mean() < 0.015
        image = page.locator(".thumbs li a").first
        image.click()
        name = page.get_by_role("heading", level=1).inner_text()
        score = detector.score_file(parts / name if (parts / name).is_file() else parts / "test" / name).score
        expect(page.locator(".verdict-line")).to_contain_text(f"score {score:.4f}")


ENDS = (
    "Of 6 labelled normal images, 0 would be rejected",
    "Of 15 anomalous images, 15 would be missed",
    "The highest limit that a target false-alarm rate can give",
    "at most about",
)


def test_the_slider_says_what_each_limit_would_do(opened, walked):
    studio, training = walked
    with opened(studio) as page:
        page.goto(studio.address + training)
        shown = page.locator("#at-limit")
        for end, words in (("Home", ("Of 15 anomalous images, 0 would be missed",)), ("End", ENDS)):
            page.get_by_label("Reject limit", exact=True).focus()
            page.keyboard.press(end)
            for text in words:
                expect(shown).to_contain_text(text)
        with Kit.open(studio.folder / "caps" / "trainings" / "1" / "kit") as kit:
            second_highest = kit.model("fp32").calibration.scores[-2]
        page.get_by_label("Score", exact=True).fill(str(second_highest))
        page.get_by_role("button", name="Show", exact=True).click()
        page.get_by_role("button", name="Fill in this rate").click()
        rate, warn_rate = (page.locator(f"[name={kind}_rate]").input_value() for kind in ("reject", "warn"))
        assert 0 < float(rate) <= float(warn_rate) < 100
        page.get_by_role("button", name="Back to the kit's limit").click()
        expect(shown).to_contain_text("the kit's limit")


def test_any_image_can_be_tried(opened, walked, parts):
    studio, training = walked
    image = next((parts / "test").glob("wrong_part/*"))
    with opened(studio) as page:
        page.goto(studio.address + training)
        page.locator("[data-try] input").set_input_files(image)
        expect(page.locator("[data-result] .verdict-line")).to_be_visible()
        kit = studio.folder / "caps" / "trainings" / "1" / "kit"
        expect(page.locator("[data-result]")).to_contain_text(f"score {Detector.load(kit).score_file(image).score:.4f}")


def test_a_verdict_that_the_heatmap_does_not_show_is_explained_beside_it(opened, walked, parts, tmp_path):
    studio, training = walked
    detector = Detector.load(studio.folder / "caps" / "trainings" / "1" / "kit")
    good = [read_image(path) for path in sorted((parts / "test" / "good").iterdir())]
    # Brighter and brighter good parts: the verdict and the regions do not change at the same place.
    brighter = (
        np.clip(image * (1 + percent / 100), 0, 255).astype(np.uint8) for image in good for percent in range(1, 80)
    )
    image, text = next(
        (image, text)
        for image in brighter
        if (text := explain_disagreement(detector.score_decoded(image), detector.scoring))
    )
    cv2.imwrite(str(tmp_path / "brighter.png"), image[..., ::-1])
    with opened(studio, size=SIZES[1], color_scheme="dark") as page:
        page.goto(studio.address + training)
        page.locator("[data-try] input").set_input_files(tmp_path / "brighter.png")
        expect(page.locator("[data-result] [data-difference]")).to_have_text(text)
        expect(page.locator("[data-result] .legend")).to_contain_text("yellow is its limit")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[1][0]


def test_metrics_have_the_names_of_the_reports(opened, walked):
    studio, training = walked
    with opened(studio) as page:
        page.goto(studio.address + training)
        heads = page.get_by_label("Metrics over all thresholds").locator("tbody th").all_inner_texts()
        assert [" ".join(head.split()) for head in heads] == [
            f"{metric.title} {metric.meaning}" for metric in METRICS.values()
        ]


def test_images_have_their_size_before_they_are_loaded(opened, walked):
    studio, training = walked
    boxes = "() => [...document.images].map(each => [each.clientWidth, each.clientHeight])"
    with opened(studio) as page:
        for place in (training, f"{training}/images/0", "/projects/caps/images", "/projects/caps/region"):
            page.route(IMAGES, lambda _: None)  # neither answered nor refused
            page.goto(studio.address + place, wait_until="domcontentloaded")
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            before = page.evaluate(boxes)
            page.unroute_all(behavior="ignoreErrors")
            page.goto(studio.address + place)
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            page.evaluate(LOAD_ALL)
            assert before == page.evaluate(boxes), place
            assert before


def test_export_again_with_another_rate_and_compare(opened, walked):
    studio, training = walked
    kit = studio.folder / "caps" / "trainings" / "1" / "kit"
    with opened(studio) as page:
        shutil.copytree(kit.parent, kit.parents[1] / "2")  # all of a training is in its folder
        page.goto(f"{studio.address}{training.removesuffix('1')}2")
        page.get_by_label("Target false-alarm rate of the reject limit").fill("20")
        page.get_by_label("Target false-alarm rate of the warn limit").fill("40")
        page.get_by_label("Target share of good parts with any region").fill("30")
        with page.expect_navigation():  # the old kit is shown until then
            page.get_by_role("button", name="Export", exact=True).click()
        expect(page.get_by_role("link", name="Download the kit")).to_be_visible(timeout=WORK)
        with Kit.open(kit.parents[1] / "2" / "kit") as found:
            calibration = found.model("fp32").calibration
        assert (calibration.limits.warn.target_rate, calibration.limits.reject.target_rate) == (0.4, 0.2)
        assert calibration.regions
        assert calibration.regions.rate == 0.3
        shown = page.locator("dl.limits")
        expect(shown).to_contain_text(f"map above {calibration.regions.limit.score:.6f}")
        expect(shown).to_contain_text("target 30 %")
        page.get_by_role("link", name="Compare kits").click()
        page.wait_for_url("**/comparisons")  # with its script
        images = page.get_by_label("Labelled images of")
        expect(images).to_have_value("caps")
        images.select_option("")
        page.get_by_label("First kit").select_option("caps, training 1")
        expect(images).to_have_value("caps")  # those of the project of the kit
        page.get_by_label("First kit").select_option("caps, training 2")
        page.get_by_label("Second kit").select_option("caps, training 1")
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_text("time of an image, one thread")).to_be_visible(timeout=WORK)
        expect(page.get_by_text("95 % interval")).to_be_visible()
        assert violations(page) == []
        differing = page.get_by_role("row", name="target false-alarm rate of the reject limit")
        expect(differing.get_by_role("cell")).to_have_text(["20 %", "1 %"])
        expect(page.get_by_role("row", name="steps of fine-tuning")).to_have_count(0)  # the same
        comparison = page.url
    for size in SIZES:
        with opened(studio, size=size) as page:
            page.goto(comparison)
            table = page.get_by_label("Both kits")
            scrolls = table.evaluate("box => box.scrollWidth > box.clientWidth")
            assert scrolls == (size == SIZES[1])
            expect(table.get_by_text("More columns: scroll sideways")).to_be_visible(visible=scrolls)


@pytest.mark.parametrize(("size", "scheme"), [(SIZES[0], "light"), (SIZES[1], "dark")])
def test_pages_are_accessible_and_fit(opened, walked, size, scheme):
    studio, training = walked
    places = ["/", "/projects/caps/images", "/projects/caps/region", "/projects/caps/trainings", training]
    with opened(studio, size=size, color_scheme=scheme) as page:
        places += [f"{training}/delete", "/projects/caps/delete", "/projects/caps/dropped/normal"]
        for place in [*places, f"{training}/images/0", "/comparisons"]:
            page.goto(studio.address + place)
            page.wait_for_load_state("networkidle")
            assert violations(page) == [], place
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], place


def test_images_can_be_dropped(opened, studio, parts):
    good = sorted((parts / "train" / "good").glob("card*"))
    with opened(studio) as page:
        page.goto(studio.address)
        page.get_by_label("Name of the part").fill("dropped")
        page.get_by_role("button", name="Create").click()
        page.wait_for_url("**/images")  # with its script
        page.locator("[data-which=normal] input").set_input_files(good)
        expect(page.get_by_text("In use:")).to_be_visible()
        folder = studio.folder / "dropped" / "images" / "normal"
        assert sorted(path.name for path in folder.iterdir()) == [path.name for path in good]
        assert all((folder / path.name).read_bytes() == path.read_bytes() for path in good)


def test_dropped_images_trainings_and_projects_are_removed_without_a_mouse(opened, studio, parts):
    good = sorted((parts / "train" / "good").glob("flange*"))
    folder = studio.folder / "removed"
    with opened(studio) as page:

        def press(role, name: str) -> None:
            page.get_by_role(role, name=name).focus()
            page.keyboard.press("Enter")

        page.goto(studio.address)
        page.get_by_label("Name of the part").fill("removed")
        page.keyboard.press("Enter")
        page.wait_for_url("**/images")  # with its script
        page.locator("[data-which=normal] input").set_input_files(good)
        press("link", f"See or remove the {len(good)} dropped images")
        for name in (good[0].name, good[2].name):
            page.get_by_role("checkbox", name=name).focus()
            page.keyboard.press("Space")
        assert violations(page) == []
        press("button", "Remove the chosen images")
        expect(page.get_by_role("heading", name="Remove 2 dropped images?")).to_be_visible()
        assert violations(page) == []
        press("button", "Remove 2 images")
        expect(page.get_by_text(f"In use: {folder / 'images' / 'normal'}, {len(good) - 2} images")).to_be_visible()
        assert not (folder / "images" / "normal" / good[0].name).exists()

        page.goto(f"{studio.address}/projects/removed/trainings")
        press("button", "Train")
        cancel = page.get_by_role("button", name="Cancel")
        cancel.focus()
        for _ in range(2):  # the part of the page with the button is replaced before it is asked for again
            with page.expect_response(lambda response: response.url.endswith("/progress")):
                pass
        expect(cancel).to_be_focused()
        assert "cancel it first" in studio.get("/projects/removed/delete")[1]
        press("button", "Cancel")
        press("link", "Delete this training")
        press("button", "Delete the training")
        expect(page.get_by_role("heading", name="New training")).to_be_visible()
        assert not (folder / "trainings" / "1").exists()
        page.goto(studio.address)
        press("link", "Delete the project removed")
        press("button", "Delete the project")
        expect(page.get_by_role("heading", name="Projects")).to_be_visible()
    assert not folder.exists()
    assert all(path.is_file() for path in good)


def test_what_a_check_shows_side_by_side_is_accessible_and_fits(opened, studio, parts, tmp_path):
    good, test = tmp_path / "good", tmp_path / "test"
    good.mkdir()
    for path in sorted((parts / "train" / "good").glob("plate*")):
        shutil.copy(path, good)
    shutil.copytree(parts / "test" / "wrong_part", test / "wrong_part")
    (test / "good").mkdir()
    shutil.copy(good / "plate_000.png", test / "good" / "seen.png")
    image = read_image(good / "plate_001.png").copy()
    image[0, 0] ^= 1
    cv2.imwrite(str(good / "plate_again.png"), image[..., ::-1])
    studio.post("/projects", name="twins")
    for which, folder in (("normal", good), ("test", test)):
        studio.post("/projects/twins/images", which=which, folder=str(folder))
    studio.post("/projects/twins/check")
    place = f"{studio.address}/projects/twins/images"
    looks: list[tuple[tuple[int, int], Literal["light", "dark"]]] = [(SIZES[0], "dark"), (SIZES[1], "light")]
    for size, scheme in looks:
        with opened(studio, size=size, color_scheme=scheme) as page:
            page.goto(place)
            expect(page.get_by_text("can be used")).to_be_visible(timeout=WORK)
            page.get_by_role("link", name="near-duplicate (2)").click()
            expect(page.get_by_text("shows the same part as plate_again.png")).to_be_visible()
            leaked = page.get_by_label("Labelled images that are also normal images").get_by_role("img")
            assert [each.get_attribute("alt") for each in leaked.all()] == [
                "good/seen.png, labelled good",
                "plate_000.png",
            ]
            # In one call: the page may still be scrolling.
            left, right = leaked.evaluate_all("all => all.map(each => each.getBoundingClientRect().toJSON())")
            assert left["top"] == right["top"]
            assert right["left"] > left["right"] - 1
            assert left["width"] > 90
            page.wait_for_load_state("networkidle")
            assert violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    shutil.rmtree(good)
    with opened(studio) as page:
        page.goto(place)
        expect(page.get_by_text(f"The folder of the last check, {good}, is no longer there")).to_be_visible()
        assert violations(page) == []
