"""The page Region in a real browser: what was drawn is saved, or the browser asks before it is lost."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Dialog, Page, expect

from msc_edge.images import read_image
from msc_edge.preprocessing import Region
from msc_edge.studio.checked import CheckedImage, CheckResult
from msc_edge.studio.workspace import Project, Workspace

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 480, 640


@pytest.fixture
def project(studio, save: Callable, tmp_path: Path) -> Project:
    """A project whose images were checked."""
    folder = tmp_path / "good"
    for name in ("a.png", "b.png"):
        save(folder / name, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    name = f"draw {abs(hash(tmp_path))}"
    studio.post("/projects", name=name)
    project = Workspace.at(studio.folder).project(name)
    assert project
    project.change(normal=str(folder))
    images = [
        CheckedImage(path=path, role="bank", group=group, twin=None, reason="")
        for group, path in enumerate(("a.png", "b.png"))
    ]
    result = CheckResult(
        normal=str(folder),
        folder=str(folder),
        images=images,
        test=None,
        labels={},
        test_problem="",
        test_unreadable={},
        leaked=[],
    )
    project.check.folder.mkdir()
    (project.check.folder / "request.json").write_text("{}")
    project.check.finish(result.model_dump())
    return project


@pytest.fixture
def page(studio, project, opened) -> Iterator[Page]:
    with opened(studio, allowed="status of 400") as page:
        page.goto(f"{studio.address}/projects/{project.name.replace(' ', '%20')}/region")
        yield page


@pytest.fixture
def asked(page: Page) -> list[str]:
    """The questions that the browser has asked; each is answered with: stay."""
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    return asked


def drag(page: Page, tool: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw from one place to another one, in shares of the image."""
    page.get_by_role("button", name=tool, exact=True).click()
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


def go_on(page: Page) -> None:
    page.get_by_role("link", name="Next: training").click()


def ignored(project: Project) -> np.ndarray:
    return read_image(project.mask).max(axis=2) > 127


def test_next_saves_a_drawn_region(page, project, asked):
    drag(page, "Region", (0.25, 0.25), (0.75, 0.5))
    expect(page.get_by_text("The region has changed: it is not saved yet.")).to_be_visible()
    go_on(page)
    expect(page.get_by_role("heading", name="New training")).to_be_visible()
    region = project.settings.region
    assert region
    assert np.abs(np.subtract((region.x, region.y, region.width, region.height), (160, 120, 320, 120))).max() <= 2
    assert asked == []


def test_next_saves_a_drawn_mask_and_region_together(page, project, asked):
    """Neither fits the saved other one."""
    project.change(region=Region(x=0, y=0, width=320, height=480))
    old = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    old[10:60, 10:60] = 255
    cv2.imwrite(str(project.mask), old)
    page.reload()
    page.wait_for_load_state("networkidle")
    drag(page, "Region", (0.6, 0.25), (0.9, 0.75))
    drag(page, "Ignore a rectangle", (0.7, 0.5), (0.8, 0.6))
    go_on(page)
    expect(page.get_by_role("heading", name="New training")).to_be_visible()
    region = project.settings.region
    assert region
    assert region.x > 320
    mask = ignored(project)
    assert mask[264, 480]
    assert mask[30, 30]  # what was there before
    assert not mask[400, 300]
    assert asked == []


def test_next_without_changes_saves_nothing(page, project, asked):
    go_on(page)
    expect(page.get_by_role("heading", name="New training")).to_be_visible()
    assert project.settings.region is None
    assert not project.mask.exists()
    assert asked == []


WAYS = [
    (tool, way)
    for tool in ("Region", "Ignore a rectangle", "Ignore with a brush")
    for way in ("1. Images", "Projects", "Show", "Use the whole image")
    if (tool, way) != ("Region", "Use the whole image")  # this way is meant to lose a region
]


@pytest.mark.parametrize(("tool", "way"), WAYS)
def test_the_browser_asks_before_anything_drawn_is_lost(page, project, asked, tool, way):
    if way == "Use the whole image":
        project.change(region=Region(x=0, y=0, width=600, height=400))
        page.reload()
    drag(page, tool, (0.25, 0.25), (0.75, 0.5))
    place = page.url
    role = "button" if way in ("Show", "Use the whole image") else "link"
    page.get_by_role(role, name=way, exact=True).click(no_wait_after=True)
    expect(page.get_by_role("button", name="Save the region")).to_be_visible()
    page.wait_for_timeout(300)
    assert asked == ["beforeunload"]
    assert page.url == place


@pytest.mark.parametrize("button", ["Save the ignore mask", "Save the region"])
def test_either_button_saves_all_that_has_changed(page, project, asked, button):
    drag(page, "Region", (0.25, 0.25), (0.75, 0.75))
    drag(page, "Ignore a rectangle", (0.4, 0.4), (0.5, 0.5))
    page.get_by_role("button", name=button).click()
    saved = "The ignore mask is saved." if button == "Save the ignore mask" else "An ignore mask is saved."
    expect(page.get_by_text(saved)).to_be_visible()
    assert project.settings.region
    assert ignored(project).any()
    page.get_by_role("link", name="1. Images").click()
    expect(page.get_by_role("heading", name="Normal images")).to_be_visible()
    assert asked == []


def test_nothing_drawn_is_not_called_a_mask(page, project):
    page.get_by_role("button", name="Save the ignore mask").click()
    expect(page.get_by_text("Nothing is drawn, so there is no ignore mask")).to_be_visible()
    assert not project.mask.exists()


@pytest.mark.parametrize("way", ["Save the ignore mask", "Next: training"])
def test_a_mask_over_everything_is_refused_and_stays_drawn(page, project, asked, way):
    drag(page, "Ignore a rectangle", (0, 0), (1, 1))
    page.get_by_role("button" if way.startswith("Save") else "link", name=way).click()
    expect(page.locator("[data-mask-status]")).to_contain_text(
        "Not saved: the ignore mask covers all of the image, so nothing would be inspected; inspect a part of it again"
    )
    assert not project.mask.exists()
    assert page.url.endswith("/region")
    drag(page, "Inspect again (brush)", (0.2, 0.5), (0.8, 0.5))
    go_on(page)
    expect(page.get_by_role("heading", name="New training")).to_be_visible()
    assert 0.5 < ignored(project).mean() < 1
    assert asked == []


def test_a_region_that_is_refused_stays_typed(page, project):
    for name, value in (("x", "1"), ("y", "1"), ("width", "3"), ("height", "3")):
        page.locator(f"[data-region] [name={name}]").fill(value)
    go_on(page)
    expect(page.locator("[data-region-status]")).to_contain_text("3 x 3 pixels; make it at least 16 wide and 16 high")
    assert page.locator("[data-region] [name=width]").input_value() == "3"
    assert project.settings.region is None


def test_undo_takes_back_what_is_not_saved(page, project, asked):
    drag(page, "Ignore with a brush", (0.2, 0.2), (0.6, 0.2))
    page.get_by_role("button", name="Save the ignore mask").click()
    expect(page.get_by_text("The ignore mask is saved.")).to_be_visible()
    drag(page, "Ignore with a brush", (0.2, 0.8), (0.6, 0.8))
    expect(page.get_by_text("The ignore mask has changed: it is not saved yet.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("The ignore mask is as it was saved.")).to_be_visible()
    page.get_by_role("link", name="1. Images").click()
    expect(page.get_by_role("heading", name="Normal images")).to_be_visible()
    assert asked == []
    assert not ignored(project)[HEIGHT // 2 :].any()
