import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast, get_args

import pytest

from msc_edge.calibration import Verdict
from msc_edge.kit.layout import MANIFEST
from msc_edge.runtime.tools.compare.comparison import compute_comparison
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.runtime.tools.report.outcome import Truth, outcome_of
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


def test_right_and_wrong_are_those_of_the_report_of_an_evaluation(start_studio, tmp_path, toy_kit, toy, save):
    """A warning on a good part is a false alarm, too: "warning only"."""
    workspace = Workspace.at(tmp_path / "work")
    kits(workspace, "a", 2, None)
    project = workspace.project("a")
    assert project
    first, second = (training.folder / KIT for training in project.trainings())
    found = compute_comparison((toy_kit, toy_kit), labelled_dataset(drawn(tmp_path / "data", toy, save)), resamples=100)
    verdicts = list(itertools.permutations(get_args(Verdict), 2))
    shown = [
        found.images[0].model_copy(update={"name": f"{label}-{number}", "label": label, "verdicts": pair})
        for label in ("good", "dent")
        for number, pair in enumerate(verdicts)
    ]
    made = workspace.new_comparison()
    made.job.folder.mkdir()
    request = {"task": "compare", "first": str(first), "second": str(second), "test": "/data"}
    (made.job.folder / "request.json").write_text(json.dumps(request))
    made.job.finish(found.model_copy(update={"images": shown}).model_dump(mode="json"))
    page = start_studio(workspace.folder).get("/comparisons/1")[1]
    figures = re.findall(
        r'<figure class="(\w+)">.*?<figcaption>(\S+) (.*?) <span[^>]*>verdict (\w+)</span>', page, re.DOTALL
    )
    assert len(figures) == 2 * len(shown)
    labels = re.findall(r'the label is (\w+)"', page)
    for (kind, sign, words, verdict), label in zip(figures, labels, strict=True):
        expected = outcome_of(cast(Verdict, verdict), Truth(label, label != "good"))
        assert (kind, words) == (expected.kind, expected.text)
        assert sign == {"right": "&#10003;", "wrong": "&#10007;"}[kind]
    assert page.count("false alarm, warning only") == 4


def drawn(folder: Path, toy: ModuleType, save: Callable) -> Path:
    for seed in range(100, 104):
        save(folder / "good" / f"{seed}.png", toy.draw(seed))
    save(folder / "dent" / "1.png", toy.draw(200, "stain"))
    return folder


def test_a_folder_without_good_parts_is_refused_when_it_is_typed(start_studio, tmp_path):
    workspace = Workspace.at(tmp_path / "work")
    kits(workspace, "a", 2, None)
    (tmp_path / "data" / "dent").mkdir(parents=True)
    status, page = start_studio(workspace.folder).post(
        "/comparisons", first="a, training 1", second="a, training 2", folder=str(tmp_path / "data")
    )
    assert status == 400
    assert "expected a folder good and a folder for each defect type" in page
    assert not workspace.comparisons()
