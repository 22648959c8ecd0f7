"""The page of a finished training: its kit whole, damaged or gone, and what its words count."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.kit.opening import Kit
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.runtime.tools.evaluate.run import evaluate
from msc_edge.runtime.tools.report.outcome import Truth, outcome_of
from msc_edge.studio.results import Results
from msc_edge.studio.stored import write_stored
from msc_edge.studio.training import EVALUATION, KIT, LABELS, RUN, Training
from msc_edge.studio.workspace import Workspace
from msc_edge.train.run_folder import RECORD


@pytest.fixture
def training(studio, toy, toy_kit: Path, save: Callable, tmp_path: Path) -> Training:
    """A finished training with an evaluation: good parts without and with a warning, and defects."""
    for seed in (*range(100, 104), 155):  # the last one gets a warning
        save(tmp_path / "test" / "good" / f"{seed}.png", toy.draw(seed))
    save(tmp_path / "test" / "stain" / "1.png", toy.draw(200, "stain"))
    save(tmp_path / "normal" / "1.png", toy.draw(1))
    name = f"result {abs(hash(tmp_path))}"
    studio.post("/projects", name=name)
    project = Workspace.at(studio.folder).project(name)
    assert project
    project.change(normal=str(tmp_path / "normal"), test=str(tmp_path / "test"))
    training = project.new_training(detail="fast", steps=0)
    shutil.copytree(toy_kit, training.folder / KIT)
    (training.folder / RUN).mkdir()
    (training.folder / RUN / RECORD).touch()
    dataset = labelled_dataset(tmp_path / "test")
    evaluate(training.folder / KIT, dataset, training.folder / EVALUATION, resamples=100)
    labels = {image.name: {"label": image.label, "path": str(image.path)} for image in dataset.images}
    (training.folder / LABELS).write_text(json.dumps(labels), encoding="utf-8")
    training.job.folder.mkdir()
    (training.job.folder / "request.json").write_text("{}")
    training.job.finish({"notes": []})
    return training


def place(training: Training) -> str:
    return f"/projects/{training.project.replace(' ', '%20')}/trainings/{training.number}"


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


@pytest.mark.parametrize("file", ["model.onnx", "bank.npy", "manifest.json"])
def test_a_damaged_kit_is_neither_offered_nor_downloaded_and_can_be_exported_again(studio, training, file, change_byte):
    page = studio.get(place(training))[1]
    assert "Download the kit" in page
    assert studio.send("GET", f"{place(training)}/kit")[0].status == 200
    change_byte(training.folder / KIT / file, -1)
    status, page = studio.get(place(training))
    assert status == 200
    assert "Download the kit" not in page
    assert re.search(rf"{file}\S* .*; export the kit again\. What it learned is still there", text_of(page))
    assert f'action="{place(training)}/export"' in page
    assert f'name="name" value="{training.kit_name}"' in page
    response, answer = studio.send("GET", f"{place(training)}/kit")
    assert response.status == 400
    assert file in json.loads(answer)["error"]


def test_damage_that_leaves_no_trace_in_the_times_of_files_is_found_before_the_download(studio, training, change_byte):
    thumbnail = next((training.folder / KIT / "thumbnails").iterdir())
    assert "Download the kit" in studio.get(place(training))[1]
    change_byte(thumbnail, -1)
    response, answer = studio.send("GET", f"{place(training)}/kit")
    assert response.status == 400
    assert thumbnail.name in json.loads(answer)["error"]


def test_a_kit_that_is_gone_can_be_exported_again_if_the_run_is_there(studio, training):
    shutil.rmtree(training.folder / KIT)
    page = studio.get(place(training))[1]
    assert "the kit is no longer there; export the kit again. What it learned is still there" in text_of(page)
    rates = dict(re.findall(r'name="(\w+_rate)"[^>]* value="([^"]*)"', page))
    assert rates == {"warn_rate": "5", "reject_rate": "1", "region_rate": "1"}
    # Refused for its rates, not because there is no kit.
    answer = studio.post(f"{place(training)}/export", warn_rate="5", reject_rate="6", region_rate="1")[1]
    assert "that of the warn limit at least that of the reject limit" in answer


def test_without_kit_and_run_the_page_says_what_is_left_to_do(studio, training):
    (training.folder / KIT / "manifest.sha256").unlink()
    shutil.rmtree(training.folder / RUN)
    text = text_of(studio.get(place(training))[1])
    assert "manifest.sha256 is missing" in text
    assert "put the folder back, or start a new training" in text
    assert "Target false-alarm rate" not in text


def test_an_image_whose_folder_is_gone_is_named(studio, training, tmp_path):
    assert studio.get(f"{place(training)}/images/0")[0] == 200
    shutil.move(tmp_path / "test", tmp_path / "elsewhere")
    for page in ("images/0", "images/0/plain", "images/0/heatmap"):
        status, text = studio.get(f"{place(training)}/{page}")
        assert status == 400
        assert (
            f"{tmp_path / 'test' / 'good' / '100.png'}: cannot be opened: No such file or directory; check that" in text
        )


def test_the_file_of_a_download_has_the_name_of_the_kit(studio, training):
    header = studio.send("GET", f"{place(training)}/kit")[0].headers["content-disposition"]
    with Kit.open(training.folder / KIT) as kit:
        assert f'filename="{kit.manifest.name}.zip"' in header


def test_warnings_on_good_parts_are_counted_and_shown_as_false_alarms(studio, training):
    results = Results.of(training)
    assert results
    assert [image.name for image in results.warned(results.limits.reject.score)] == ["good/155.png"]
    page = studio.get(place(training))[1]
    text = text_of(page)
    assert "Of 5 labelled normal images, 0 would be rejected and 1 more would get a warning." in text
    assert "False alarms: good parts rejected 0" in text
    assert "False alarms: good parts with a warning only 1" in text
    cards = re.findall(r'<li class="(\w+)">.*?<span>(.*?): (\w+)</span>.*?([\w/]+\.png)</span></li>', page, re.DOTALL)
    assert {name for *_, name in cards} == {image.name for image in results.images}
    for kind, words, label, name in cards:
        image = next(each for each in results.images if each.name == name)
        verdict = results.limits.verdict(image.score)
        expected = outcome_of(verdict, Truth(label, label != "good"))
        assert (kind, words.partition(" ")[2]) == (expected.kind, expected.text)


def test_above_the_highest_limit_the_page_says_how_to_reach_more(studio, training):
    results = Results.of(training)
    assert results
    text = text_of(studio.get(f"{place(training)}/limit?score={results.highest_limit + 1}")[1])
    assert (
        f"The highest limit that a target false-alarm rate can give is {results.highest_limit:.6f}, the highest score "
        f"of the {len(results.calibration.scores)} calibration images. To make a higher limit possible, train with "
        "more normal images."
    ) in text


def test_the_page_of_an_interrupted_training_says_why(studio, training):
    (training.job.folder / "result.json").unlink()
    write_stored(training.folder / "training.json", training.plan)
    text = text_of(studio.get(place(training))[1])
    assert "Interrupted: its process ended before the work was done, as when the PC is switched off." in text
    assert "it goes on with Resume, or when the studio is started again" in text
    assert "Log of the process" in text
