import re
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.preprocessing import Region
from msc_edge.studio.folders import chosen_folder
from msc_edge.studio.training import MASK
from msc_edge.studio.workspace import Workspace

REGION = Region(x=1, y=2, width=3, height=4)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "work")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (folder := tmp_path / "images").mkdir()
    return folder


@pytest.mark.parametrize("name", ["caps", "Bottle caps 3", "a", "x" * 60, "Räder", "v1.2_b-c"])
def test_a_project_has_the_name_of_its_folder(workspace, name):
    project = workspace.create(f"  {name} ")
    assert (project.name, project.folder.name) == (name, name)
    assert workspace.project(name) == project
    assert [each.name for each in workspace.projects()] == [name]


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", ".hidden", "a/b", "a\\b", "../up", "x" * 61, "con", "NUL.txt", "a.", "a:b", "-a"],
)
def test_names_that_are_no_folder_on_some_system_are_refused(workspace, name):
    with pytest.raises(UsageError, match=r"cannot be used|has no name"):
        workspace.create(name)
    assert workspace.projects() == []


def test_a_refused_name_is_shown_as_it_was_typed(workspace):
    with pytest.raises(UsageError, match=r'^the name it\\s "new" cannot be used; use '):
        workspace.create(' it\\s "new" ')


def test_names_that_differ_in_case_only_are_one_name(workspace):
    workspace.create("Caps")
    with pytest.raises(UsageError, match="already"):
        workspace.create("caps")


def test_a_training_keeps_the_settings_of_its_start(workspace, images, save):
    project = workspace.create("caps")
    project.change(normal=str(images), region=REGION)
    mask = save(project.mask, np.tile(np.array([[[0], [255]]], np.uint8), (8, 4, 3))).read_bytes()
    training = project.new_training(detail="fast", steps=None)
    project.change(normal=None, region=None)
    project.mask.unlink()
    assert training.plan.normal == str(images)
    assert training.plan.region == REGION
    assert training.mask == training.folder / MASK
    assert training.mask.read_bytes() == mask
    assert project.settings.region is None


def test_without_normal_images_there_is_no_training(workspace):
    project = workspace.create("caps")
    with pytest.raises(UsageError, match="no normal images"):
        project.new_training(detail="fast", steps=None)
    assert project.trainings() == []


def test_labelled_images_that_cannot_be_used_are_refused_before_the_training(workspace, images):
    project = workspace.create("caps")
    project.change(normal=str(images), test=str(images))
    with pytest.raises(SourceError, match="test/good"):
        project.new_training(detail="fast", steps=None)
    assert project.trainings() == []


def test_dropped_images_are_used_where_no_folder_is_chosen(workspace, images):
    project = workspace.create("caps")
    assert (project.normal, project.test) == (None, None)
    (project.dropped / "normal").mkdir(parents=True)
    assert project.normal == project.dropped / "normal"
    project.change(normal=str(images))
    assert project.normal == images


def test_trainings_are_counted_from_one_and_the_newest_is_first(workspace, images):
    project = workspace.create("caps")
    project.change(normal=str(images))
    for _ in range(11):
        project.new_training(detail="tiles", steps=0)
    assert [training.number for training in project.trainings()] == list(range(11, 0, -1))
    assert project.training(12) is None


def test_a_damaged_file_is_named(workspace):
    project = workspace.create("caps")
    (project.folder / "project.json").write_text("{")
    with pytest.raises(KitError, match=r"project\.json"):
        _ = project.settings


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        Workspace.at(tmp_path / "file")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (".", "contains .*work, where the studio writes"),
        ("work", "contains .*work, where the studio writes"),
        ("work/caps", "lies in .*work, where the studio writes"),
        ("work/caps/images/normal", "lies in"),
        ("link", "contains"),
        ("beside", None),
        ("work 2", None),
    ],
)
def test_folders_of_images_that_the_studio_writes_into_are_refused(tmp_path, place, words):
    """Such a folder may have been chosen by an older version: training, check and choice refuse it alike."""
    project = Workspace.at(tmp_path / "work").create("caps")
    (tmp_path / "link").symlink_to(tmp_path)
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    project.change(normal=str(folder))
    if words is None:
        project.new_training(detail="fast", steps=0)
        return
    for refuse in (
        project.check_folders,
        lambda: project.new_training(detail="fast", steps=0),
        lambda: chosen_folder(str(folder), tmp_path / "work"),
    ):
        with pytest.raises(UsageError, match=words) as error:
            refuse()
        assert re.search("; (choose|move) ", str(error.value))
    assert project.trainings() == []


@pytest.mark.parametrize("place", ["/proc", "/proc/self", "/sys", "/dev", "link"])
def test_folders_of_the_system_are_refused(workspace, tmp_path, place):
    """/proc of a PC was once in use, with 102,668 images: its entries lead back to all files."""
    (tmp_path / "link").symlink_to("/sys")
    project = workspace.create("caps")
    folder = tmp_path / place
    project.change(test=str(folder))  # by an older version
    for refuse in (project.check_folders, lambda: chosen_folder(str(folder), workspace.folder)):
        with pytest.raises(UsageError, match=rf"^{folder}: is in /(proc|sys|dev), .*; choose another folder"):
            refuse()


def test_folders_beside_those_of_the_system_are_not_refused(workspace, tmp_path):
    (tmp_path / "dev").mkdir()
    memory = Path("/dev/shm")
    for folder in (tmp_path / "dev", *([memory] if memory.is_dir() else [])):
        assert chosen_folder(str(folder), workspace.folder) == folder


def test_dropped_images_may_be_in_the_folder_of_the_studio(workspace):
    project = workspace.create("caps")
    (project.dropped / "normal").mkdir(parents=True)
    assert project.new_training(detail="fast", steps=0).plan.normal == str(project.dropped / "normal")


def test_a_second_studio_in_the_folder_is_refused(workspace, tmp_path):
    with workspace.held():
        with (
            pytest.raises(UsageError, match=r"another studio is running there; open its address in the browser"),
            Workspace.at(workspace.folder).held(),
        ):
            pass
        with Workspace.at(tmp_path / "other").held():
            pass
    with Workspace.at(workspace.folder).held():
        pass
