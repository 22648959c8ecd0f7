import math
from pathlib import Path

import pytest

from msc_edge.calibration import REJECT_RATE, images_needed
from msc_edge.studio.training import PLAN, Training
from msc_edge.studio.workspace import Workspace
from msc_edge.train.options import TrainingOptions


@pytest.fixture
def training(studio, tmp_path: Path) -> Training:
    name = f"training {abs(hash(tmp_path))}"
    studio.post("/projects", name=name)
    project = Workspace.at(studio.folder).project(name)
    assert project
    project.change(normal=str(tmp_path))
    return project.new_training(detail="fast", steps=0)


def place(training: Training) -> str:
    return f"/projects/{training.project.replace(' ', '%20')}/trainings"


def test_the_page_says_why_there_is_no_int8_model(studio, training):
    training.job.folder.mkdir()
    (training.job.folder / "request.json").write_text("{}")
    training.job.finish({"notes": ["no int8 model: <too few images>"]})
    assert "no int8 model: &lt;too few images&gt;" in studio.get(f"{place(training)}/1")[1]
    training.job.finish(None)  # a training that had finished before has none
    assert studio.get(f"{place(training)}/1")[0] == 200


def test_a_damaged_training_is_listed_and_can_be_deleted(studio, training):
    (training.folder / PLAN).write_text("{")
    status, page = studio.get(place(training))
    assert status == 200
    assert "damaged" in page
    assert studio.post(f"{place(training)}/1/delete", confirmed="yes") == (303, place(training))
    assert not training.folder.exists()


def test_a_damaged_project_can_be_deleted(studio, training):
    folder = training.folder.parents[1]
    (folder / "project.json").write_text("{")
    path = place(training).removesuffix("/trainings") + "/delete"
    assert studio.get(path)[0] == 200
    assert studio.post(path, confirmed="yes") == (303, "/")
    assert not folder.exists()


def test_the_page_says_when_training_keeps_the_pretrained_network(studio, training):
    """The number of images follows from the share that is held out, and from the rate."""
    needed = math.ceil(images_needed(REJECT_RATE) / TrainingOptions.holdout)
    page = " ".join(studio.get(place(training))[1].split())
    assert f"a false-alarm rate of 1 %, which takes about {needed} images of different parts" in page
    assert "less accurate" not in page
