import re
from pathlib import Path

import pytest

from msc_edge.kit.layout import MANIFEST
from msc_edge.studio.training import KIT
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
        name: re.findall(r"<option[^>]* selected>([^<]*)<", options)
        for name, options in re.findall(r'<select name="(\w+)">(.*?)</select>', page, re.DOTALL)
    }
    assert choices == {"first": [first], "second": [second], "test": [test] if test else []}
