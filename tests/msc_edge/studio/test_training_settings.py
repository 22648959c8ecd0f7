import numpy as np
import pytest

from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Region
from msc_edge.studio.training import KIT, PLAN
from msc_edge.studio.training_settings import CREATED, DETAILS, differing, settings_of
from msc_edge.studio.workspace import Project, Workspace


@pytest.fixture
def project(tmp_path) -> Project:
    project = Workspace.at(tmp_path / "work").create("caps")
    (tmp_path / "images").mkdir()
    project.change(normal=str(tmp_path / "images"))
    return project


def test_only_settings_that_differ_are_shown_and_always_the_date(project):
    trainings = [project.new_training(detail=detail, steps=steps) for detail, steps in (("fast", 3), ("tiles", 3))]
    found = differing(trainings)
    assert list(found) == trainings
    assert [own["speed or detail"] for own in found.values()] == [DETAILS["fast"], DETAILS["tiles"]]
    assert all(list(own) == [CREATED, "speed or detail"] for own in found.values())
    assert all(str(own[CREATED]).endswith(" UTC") for own in found.values())


def test_region_and_mask_are_told_in_words(project, save):
    plain = project.new_training(detail="fast", steps=None)
    mask = np.zeros((60, 100, 3), np.uint8)
    mask[:30, :20] = 255  # a tenth
    save(project.mask, mask)
    project.change(region=Region(x=1, y=2, width=30, height=40))
    found = differing([plain, project.new_training(detail="fast", steps=None)])
    assert [own["ignore mask"] for own in found.values()] == ["none", "covers 10 % of the image"]
    assert [own["region"] for own in found.values()] == ["the whole image", "1, 2, 30 x 40"]


def test_of_a_finished_training_the_settings_of_its_kit_are_known(project, toy):
    open_, finished = (project.new_training(detail="fast", steps=0) for _ in range(2))
    toy.make(finished.folder / KIT)
    with Kit.open(finished.folder / KIT) as kit:
        name, count = kit.manifest.name, kit.manifest.normal_images.count
    own = settings_of(finished)
    assert (own["name of the kit"], own["images in the memory bank"]) == (name, str(count))
    assert own["target false-alarm rate of the reject limit"].endswith(" %")
    assert [each["name of the kit"] for each in differing([open_, finished]).values()] == [None, name]


def test_a_damaged_training_has_no_settings(project):
    training = project.new_training(detail="fast", steps=0)
    (training.folder / PLAN).write_text("{")
    assert settings_of(training) == {}
    assert list(differing([training]).values()) == [{}]
