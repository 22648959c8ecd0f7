"""Region and ignore mask: what is stored can be trained with, and what is refused says what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from msc_edge.errors import UsageError
from msc_edge.images import read_image
from msc_edge.preprocessing import Region
from msc_edge.studio.checked import CheckedImage, CheckResult
from msc_edge.studio.inspected import store_mask, store_region
from msc_edge.studio.mask_check import check_mask
from msc_edge.studio.tasks import CHOICES
from msc_edge.studio.training import TILES, Detail
from msc_edge.studio.workspace import Project, Workspace
from msc_edge.train.backbones.registry import architecture
from msc_edge.train.inputs import IgnoreMaskFile, preprocessing_of
from msc_edge.train.options import TrainingOptions

HEIGHT, WIDTH = 80, 120
LEFT = Region(x=0, y=0, width=60, height=80)
RIGHT = Region(x=60, y=0, width=60, height=80)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Workspace.at(tmp_path / "work").create("caps")
    (tmp_path / "images").mkdir()
    project.change(normal=str(tmp_path / "images"))
    return project


def white_in(region: Region | None) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if region:
        mask[region.y : region.y + region.height, region.x : region.x + region.width] = 255
    return mask


def png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


ALL = Region(x=0, y=0, width=WIDTH, height=HEIGHT)
SPECK = Region(x=70, y=20, width=1, height=1)
PART = Region(x=70, y=10, width=20, height=20)


@pytest.mark.parametrize(
    ("white", "region", "words"),
    [
        (ALL, None, "covers all of the image, so nothing would be inspected; inspect a part of it again"),
        (ALL, LEFT, "covers all of the region"),
        (RIGHT, RIGHT, "covers all of the region"),
        (PART, LEFT, "covers nothing of the region that the network can see; draw it larger"),
        (PART, Region(x=100, y=0, width=40, height=40), "not inside the ignore mask, which is 120 x 80 pixels; delete"),
    ],
)
def test_a_mask_that_no_training_could_use_is_refused_when_it_is_saved(project, white, region, words):
    with pytest.raises(UsageError, match=words) as error:
        store_mask(project, png(white_in(white)), region)
    assert str(error.value).endswith("on the page Region")
    assert not project.mask.exists()
    assert project.settings.region is None
    project.mask.write_bytes(png(white_in(white)))  # by an older version
    with pytest.raises(UsageError, match=words):
        store_region(project, region)
    project.change(region=region)
    with pytest.raises(UsageError, match=words):
        project.new_training(detail="tiles", steps=0)
    assert project.trainings() == []


@pytest.mark.parametrize("detail", ["fast", "fine", "tiles"])
@pytest.mark.parametrize("region", [None, LEFT, RIGHT])
@pytest.mark.parametrize("white", [None, ALL, LEFT, RIGHT, PART, SPECK])
def test_the_check_refuses_what_the_training_refuses(tmp_path, save: Callable, detail: Detail, region, white):
    file = IgnoreMaskFile(save(tmp_path / "mask.png", white_in(white)))
    options = TrainingOptions(region=region, **CHOICES[detail])
    assert options.tiles == TILES[detail]
    refused = []
    for cause in (
        lambda: check_mask(white_in(white), region, detail=detail),
        lambda: preprocessing_of(
            "whole-frame",
            image_size=options.image_size,
            region=region,
            tiles=options.tiles,
            ignore_mask=file,
            scores="both",
            architecture=architecture("edge-small"),
        ),
    ):
        try:
            cause()
        except UsageError as error:
            refused.append(bool(re.search(r"everything|covers all", str(error))))
        else:
            refused.append(None)
    assert refused[0] == refused[1]


def test_a_new_mask_and_a_new_region_are_stored_together(project):
    """Neither fits the old other one: one after the other, the first would be refused."""
    assert store_mask(project, png(white_in(Region(x=10, y=10, width=20, height=20))), LEFT)
    new = png(white_in(PART))
    with pytest.raises(UsageError, match="covers nothing of the region"):
        store_region(project, RIGHT)
    with pytest.raises(UsageError, match="covers nothing of the region"):
        store_mask(project, new, LEFT)
    assert store_mask(project, new, RIGHT)
    assert project.settings.region == RIGHT
    assert read_image(project.mask)[15, 75].tolist() == [255, 255, 255]
    assert project.new_training(detail="tiles", steps=0).plan.ignore_mask


def test_a_mask_without_anything_white_is_none(project):
    assert store_mask(project, png(white_in(PART)), None)
    assert not store_mask(project, png(white_in(None)), None)
    assert not project.mask.exists()


def test_a_mask_that_cannot_be_read_is_refused_before_the_training(project):
    project.mask.write_bytes(b"no image")
    with pytest.raises(
        UsageError, match=r"^the ignore mask cannot be read .*; delete it and draw it again on the page"
    ):
        project.new_training(detail="fast", steps=0)


def test_a_region_of_a_few_pixels_is_refused_with_the_smallest_sides(project, save: Callable):
    save(Path(project.settings.normal) / "a.png", white_in(None))
    image = CheckedImage(path="a.png", role="bank", group=0, twin=None, reason="")
    folder = project.settings.normal
    found = CheckResult(
        normal=folder,
        folder=folder,
        images=[image],
        test=None,
        labels={},
        test_problem="",
        test_unreadable={},
        leaked=[],
    )
    project.check.folder.mkdir()
    (project.check.folder / "request.json").write_text("{}")
    project.check.finish(found.model_dump())
    for width, height in ((1, 1), (15, 16), (16, 15)):
        with pytest.raises(UsageError) as error:
            store_region(project, Region(x=0, y=0, width=width, height=height))
        assert str(error.value) == (f"the region is {width} x {height} pixels; make it at least 16 wide and 16 high")
    with pytest.raises(UsageError, match="not inside the images, which are 120 x 80 pixels"):
        store_region(project, Region(x=1, y=0, width=WIDTH, height=16))
    store_region(project, Region(x=0, y=0, width=16, height=16))


def test_the_page_is_told_whether_there_is_a_mask(studio):
    place = studio.post("/projects", name="masks")[1].removesuffix("/images")
    for white, region, answer in (
        (PART, "", '{"ignores":true}'),
        (PART, "?x=60&y=0&width=60&height=80", '{"ignores":true}'),
        (None, "", '{"ignores":false}'),
    ):
        response, text = studio.send("PUT", f"{place}/mask{region}", png(white_in(white)))
        assert (response.status, text) == (201, answer)
    project = Workspace.at(studio.folder).project("masks")
    assert project
    assert project.settings.region == RIGHT
    response, text = studio.send("PUT", f"{place}/mask", png(white_in(ALL)))
    assert response.status == 400
    assert "inspect a part of it again, or delete the mask" in text
    assert "on the page" not in text  # where the user is
