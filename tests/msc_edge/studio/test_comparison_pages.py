import re
from pathlib import Path

import pytest

from msc_edge.kit.layout import MANIFEST
from msc_edge.studio.stored import write_stored
from msc_edge.studio.training import KIT, PLAN
from msc_edge.studio.workspace import Workspace


def kits(workspace: Workspace, name: str, count: int, test: Path | None) -> None:
    """A project with finished trainings, as far as the page of comparisons looks."""
    (images := workspace.folder.parent / "images").mkdir(exist_ok=True)
    project = workspace.create(name)
    project.change(normal=str(images))
    for _ in range(count):
        kit = project.new_training(detail="fast", steps=0).folder / KIT
        kit.mkdir()
        (kit / MANIFEST).touch()
    project.change(test=test and str(test))


@pytest.mark.parametrize(
    ("projects", "first", "second", "test"),
    [
        ((("a", 1, True), ("b", 2, True), ("c", 3, True)), "b, training 2", "b, training 1", "b"),
        ((("a", 0, True), ("b", 2, False)), "b, training 2", "b, training 1", ""),
        ((("a", 1, False), ("b", 1, True)), "a, training 1", "b, training 1", "b"),
    ],
)
def test_two_kits_of_one_project_and_its_labelled_images_are_chosen_first(
    start_studio, tmp_path, projects, first, second, test
):
    workspace = Workspace.at(tmp_path / "work")
    for name, count, has_test in projects:
        kits(workspace, name, count, tmp_path if has_test else None)
    page = start_studio(workspace.folder).get("/comparisons")[1]
    choices = {
        name: re.findall(r'<option value="([^"]*)"[^>]* selected>', options)
        for name, options in re.findall(r'<select name="(\w+)">(.*?)</select>', page, re.DOTALL)
    }
    assert choices == {"first": [first], "second": [second], "test": [test] if test else []}


def test_trainings_are_told_apart_by_date_and_by_the_settings_that_differ(start_studio, tmp_path):
    workspace = Workspace.at(tmp_path / "work")
    kits(workspace, "a", 2, None)
    project = workspace.project("a")
    assert project
    for training, detail in zip(project.trainings(), ("tiles", "fast"), strict=True):
        plan = training.plan.model_copy(update={"detail": detail, "created": f"2026-03-0{training.number}T10:20:30"})
        write_stored(training.folder / PLAN, plan)
    page = start_studio(workspace.folder).get("/comparisons")[1]
    assert page.count(">a, training 2 (2026-03-02 10:20 UTC)</option>") == 2
    table = page.partition("What differs")[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(?:<a[^>]*>)?([^<]*)<", row) for row in re.findall(r"<tr>.*?</tr>", table)]
    assert rows == [
        ["training", "created", "speed or detail"],
        ["a, training 2", "2026-03-02 10:20 UTC", "Small defects"],
        ["a, training 1", "2026-03-01 10:20 UTC", "Fast"],
    ]
