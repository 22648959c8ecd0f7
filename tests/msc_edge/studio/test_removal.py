"""What is removed, and that nothing outside of the studio's folder is, whatever links lead there."""

import json
import sys
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.studio.removal import (
    comparisons_of,
    delete_comparison,
    delete_project,
    delete_training,
    dropped_images,
    empty_trash,
    remove,
    remove_dropped,
)
from msc_edge.studio.training import KIT
from msc_edge.studio.workspace import Comparison, Project, Workspace

LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "work")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with images beside the studio."""
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    for name in ("a.png", "inner/b.png"):
        (tmp_path / "outside" / name).write_bytes(name.encode())
    return tmp_path / "outside"


@pytest.fixture
def project(workspace: Workspace, outside: Path) -> Project:
    """A project with two trainings of the images outside, and dropped images."""
    project = workspace.create("caps")
    for name in ("normal/a.png", "normal/b.png", "test/good/a.png", "test/dent/a.png"):
        path = project.dropped / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    project.change(normal=str(outside))
    for _ in range(2):
        project.new_training(detail="fast", steps=0)
    return project


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def compared(workspace: Workspace, *numbers: int) -> Comparison:
    """A comparison of the kits of two trainings of caps."""
    made = workspace.new_comparison()
    made.job.folder.mkdir()
    first, second = (workspace.folder / "caps" / "trainings" / str(number) / KIT for number in numbers)
    request = {"task": "compare", "first": str(first), "second": str(second), "test": "/data/test"}
    (made.job.folder / "request.json").write_text(json.dumps(request))
    return made


def test_a_project_goes_with_all_that_is_its_own(workspace, project, outside):
    other = workspace.create("other")
    compared(workspace, 1, 2)
    before = everything(outside)
    delete_project(workspace, project)
    assert everything(workspace.folder) == [".comparisons", "other", "other/project.json"]
    assert workspace.projects() == [other]
    assert everything(outside) == before
    assert workspace.create("caps").trainings() == []


def test_a_training_goes_with_its_comparisons(workspace, project):
    third = project.new_training(detail="fast", steps=0)
    kept, gone = compared(workspace, 1, 3), compared(workspace, 1, 2)
    first, second = project.training(1), project.training(2)
    assert first
    assert second
    assert comparisons_of(workspace, second) == [gone]
    delete_training(workspace, second)
    assert [training.number for training in project.trainings()] == [3, 1]
    assert workspace.comparisons() == [kept]
    delete_comparison(workspace, kept)
    assert workspace.comparisons() == []
    assert project.trainings() == [third, first]


def test_dropped_images_go_one_by_one_and_with_the_last_one_its_folder(workspace, project):
    names = [image.name for image in dropped_images(project, "test")]
    assert names == ["dent/a.png", "good/a.png"]
    remove_dropped(workspace, project, "test", ["dent/a.png"])
    assert everything(project.dropped / "test") == ["good", "good/a.png"]
    remove_dropped(workspace, project, "test", ["good/a.png"])
    assert project.test is None
    assert everything(project.dropped) == ["normal", "normal/a.png", "normal/b.png"]
    assert dropped_images(project, "test") == []


@pytest.mark.parametrize("name", ["c.png", "../../project.json", "/etc/passwd", "", ".", "../normal/a.png"])
def test_only_dropped_images_are_removed_as_such(workspace, project, name):
    before = everything(workspace.folder)
    with pytest.raises(UsageError, match="not among the dropped images"):
        remove_dropped(workspace, project, "normal", ["a.png", name])
    assert everything(workspace.folder) == before


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("place", [".", "..", "../outside", "caps/../../outside", "/"])
def test_places_outside_are_refused(workspace, outside, place):
    before = everything(outside), everything(workspace.folder)
    with pytest.raises(UsageError, match="not in the folder of the studio"):
        remove(workspace.folder / place, workspace=workspace)
    assert (everything(outside), everything(workspace.folder)) == before


@LINKS
class TestLinks:
    def test_what_links_in_a_training_lead_to_stays(self, workspace, project, outside):
        training = project.training(1)
        (training.folder / "link").symlink_to(outside)
        (training.folder / "file").symlink_to(outside / "a.png")
        before = everything(outside)
        delete_training(workspace, training)
        assert project.training(1) is None
        assert everything(outside) == before

    def test_of_a_project_that_is_a_link_only_the_link_goes(self, workspace, outside):
        (outside / "project.json").write_text("{}")
        (workspace.folder / "linked").symlink_to(outside)
        before = everything(outside)
        delete_project(workspace, workspace.project("linked"))
        assert workspace.projects() == []
        assert everything(outside) == before

    @pytest.mark.parametrize("which", ["normal", "test"])
    def test_images_in_a_linked_folder_are_not_removed(self, workspace, outside, which):
        project = workspace.create("linked")
        project.dropped.mkdir()
        (project.dropped / which).symlink_to(outside)
        (name,) = [image.name for image in dropped_images(project, which) if image.path.name == "b.png"]
        with pytest.raises(UsageError, match="only by a link"):
            remove_dropped(workspace, project, which, [name])
        assert everything(outside) == ["a.png", "inner", "inner/b.png"]

    def test_of_a_dropped_image_that_is_a_link_only_the_link_goes(self, workspace, project, outside):
        (project.dropped / "normal" / "link.png").symlink_to(outside / "a.png")
        remove_dropped(workspace, project, "normal", ["link.png"])
        assert [image.name for image in dropped_images(project, "normal")] == ["a.png", "b.png"]
        assert (outside / "a.png").is_file()

    def test_trainings_in_a_linked_folder_are_not_removed(self, workspace, tmp_path):
        elsewhere = tmp_path / "disk"
        (elsewhere / "1").mkdir(parents=True)
        project = workspace.create("linked")
        (project.folder / "trainings").symlink_to(elsewhere)
        with pytest.raises(UsageError, match="only by a link"):
            delete_training(workspace, project.training(1))
        delete_project(workspace, project)  # with the link
        assert everything(elsewhere) == ["1"]

    def test_a_place_for_removed_files_that_is_a_link_is_refused(self, workspace, project, outside):
        (workspace.folder / ".removed").symlink_to(outside)
        with pytest.raises(UsageError, match="is a link"):
            delete_project(workspace, project)
        empty_trash(workspace)
        assert workspace.projects() == [project]
        assert everything(outside) == ["a.png", "inner", "inner/b.png"]

    def test_a_studio_in_a_linked_folder_can_remove(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        workspace = Workspace.at(tmp_path / "link")
        delete_project(workspace, workspace.create("caps"))
        assert everything(tmp_path / "real") == []


def test_running_work_must_be_cancelled_first(workspace, project):
    training, comparison = project.training(1), compared(workspace, 1, 2)
    project.check.folder.mkdir()
    (project.check.folder / "request.json").write_text("{}")
    training.job.folder.mkdir()
    (training.job.folder / "request.json").write_text("{}")
    before = everything(workspace.folder)
    removals = {
        "project": lambda: delete_project(workspace, project),
        "training": lambda: delete_training(workspace, training),
        "comparison": lambda: delete_comparison(workspace, comparison),
        "images": lambda: remove_dropped(workspace, project, "normal", ["a.png"]),
    }
    for job, refused, words in (
        (project.check, ("project", "images"), "check of the images is running; cancel it first"),
        (training.job, ("project", "training", "images"), "caps, training 1 is running; cancel it first"),
        (comparison.job, ("project", "training", "comparison"), "comparison of caps, training 1 and .* is running"),
    ):
        with job.work() as ours:
            assert ours
            for name in refused:
                with pytest.raises(UsageError, match=words):
                    removals[name]()
        left = [name for name in everything(workspace.folder) if not name.endswith(("lock", "process.txt"))]
        assert left == before
    for name in ("comparison", "images", "training", "project"):
        removals[name]()
    assert workspace.projects() == []


def test_what_waits_in_the_queue_must_be_cancelled_first(workspace, project):
    training = project.training(2)
    training.job.enqueue(1, "train", folder="x")
    for remove_it in (lambda: delete_training(workspace, training), lambda: delete_project(workspace, project)):
        with pytest.raises(UsageError, match="caps, training 2 is queued; cancel it first"):
            remove_it()
    training.job.leave_queue()
    delete_training(workspace, training)
    assert project.training(2) is None


def test_what_a_killed_studio_left_is_deleted_at_the_next_start(workspace):
    (workspace.folder / ".removed" / "0a" / "kit").mkdir(parents=True)
    empty_trash(workspace)
    assert everything(workspace.folder) == []
