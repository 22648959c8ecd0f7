import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.train.backbones import build_backbone
from msc_edge.train.one_vs_rest.benchmark import run_protocol
from msc_edge.train.one_vs_rest.protocol import Job, Method, Point, ProtocolOptions, auroc_of, splits_of
from msc_edge.train.one_vs_rest.tables import write_tables

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def image(name: str, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.clip(np.array(COLOURS[name]) + random.normal(0, 50, (32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, save: Callable) -> Path:
    """Three classes, told apart by their colour: 40 images of each to train on, six to test."""
    folder = tmp_path_factory.mktemp("classes")
    for name in COLOURS:
        for number in range(46):
            part = "train" if number < 40 else "test"
            save(folder / part / name / f"{number:02d}.png", image(name, number))
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, randomise: Callable) -> ProtocolOptions:
    backbone = build_backbone("mobilenet_v2_x0.1")
    randomise(backbone, 0)
    weights = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(backbone.state_dict(), weights)
    return ProtocolOptions(
        backbone="mobilenet_v2_x0.1",
        weights=weights,
        preset="whole-frame",
        image_size=32,
        steps=4,
        batch=4,
        measure_every=2,
        accelerator="cpu",
        precision="fp32",
    )


def test_a_split_has_one_class_to_train_on_and_all_to_test(data: Path) -> None:
    splits = splits_of(data / "train", data / "test", [], images=10)
    assert [split.name for split in splits] == ["blue", "green", "red"]
    for split in splits:
        assert len(split.train) == 10
        assert {path.partition("/")[0] for path in split.train} == {split.name}
        assert len(split.test) == len(split.truth) == 18
        for path, other in zip(split.test, split.truth, strict=True):
            assert other == (path.partition("/")[0] != split.name)


@pytest.mark.parametrize(
    ("classes", "missing", "exception", "message"),
    [
        (["mauve"], None, UsageError, "--classes mauve: there is no such folder.*blue green red"),
        ([], "test/red", SourceError, "has no folder red"),
    ],
)
def test_what_is_not_there_is_told(
    data: Path, tmp_path: Path, classes: list[str], missing: str | None, exception: type[Exception], message: str
) -> None:
    test = tmp_path / "test"
    test.mkdir()
    for name in COLOURS:
        if missing != f"test/{name}":
            (test / name).symlink_to(data / "test" / name)
    with pytest.raises(exception, match=message):
        splits_of(data / "train", test, classes, images=None)


def test_the_auroc_is_that_of_the_products_own_scores() -> None:
    random = np.random.default_rng(0)
    bank, test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in random.normal(size=(2, 40, 8)))
    bank, test = bank.astype(np.float32), test.astype(np.float32)
    truth = [bool(number % 3) for number in range(40)]
    scores = [Bank(bank).score(row) for row in test]
    assert auroc_of(bank, test, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_a_benchmark_goes_on_where_it_was_broken_off_and_its_tables_agree(
    data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop_in_the_second_class(task: str, done: int, total: int, note: str = "") -> None:
        del done, total, note
        if task.startswith("red, v2"):
            raise StoppedError

    def run(out: Path, report: Callable | None = None) -> str:
        more = {"report": report} if report else {}
        return run_protocol(
            data / "train", data / "test", out, options,
            classes=["blue", "red"], methods=["dn2", "contrastive", "v2"], seeds=2, **more,
        )  # fmt: skip

    with pytest.raises(StoppedError):
        run(tmp_path / "broken", stop_in_the_second_class)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "jobs").iterdir()}
    assert len(before) == 5 + 3
    table = run(tmp_path / "broken")
    assert table == run(tmp_path / "whole")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "jobs").iterdir()}
    assert before.items() <= after.items()

    with (tmp_path / "whole" / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    steps = {key: [int(row["step"]) for row in curves if (row["class"], row["method"], row["seed"]) == key]
             for key in {(row["class"], row["method"], row["seed"]) for row in curves}}  # fmt: skip
    assert steps["blue", "dn2", "0"] == [0]
    assert steps["blue", "v2", "1"] == [0, 2, 4]
    with (tmp_path / "whole" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    frozen = next(float(row["auroc"]) for row in rows if (row["class"], row["method"]) == ("blue", "dn2"))
    firsts = {float(row["auroc"]) for row in curves if row["class"] == "blue" and row["step"] == "0"}
    assert firsts == {frozen}, "all begin with the frozen network"
    values = [float(row["auroc"]) for row in rows if (row["class"], row["method"]) == ("red", "v2")]
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in table


def test_means_compare_the_classes_that_all_methods_have(tmp_path: Path) -> None:
    def job(label: str, method: Method, auroc: float) -> Job:
        return Job(label, method, 0, (Point(0, auroc, 0.5),), 0)

    table = write_tables(tmp_path, [job("a", "dn2", 0.9), job("b", "dn2", 0.5), job("a", "v2", 0.95)])
    assert "| mean of 1 that all have | 0.9000 | 0.9500 |" in table
    table = write_tables(tmp_path, [job("a", "dn2", 0.9), job("b", "dn2", 0.5)])
    assert "| mean | 0.7000 |" in table
    assert "mean" not in write_tables(tmp_path, [job("a", "dn2", 0.9), job("b", "v2", 0.5)])


def test_a_selected_step_counts_and_what_it_gave_away_is_told(
    data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    def run(**changed) -> dict[str, str]:
        out = tmp_path / changed["select"]
        settings = replace(options, steps=6, measure_every=4, **changed)
        run_protocol(data / "train", data / "test", out, settings, classes=["red"], methods=["v2"], seeds=1)
        with (out / "table.csv").open() as file:
            return next(csv.DictReader(file))

    assert run(select="last")["selected_step"] == "6"
    selected = run(select="synthetic", images=None)
    assert selected["selected_step"] in {"0", "6"}  # candidates at every twentieth step, and the last
    with (tmp_path / "synthetic" / "curves.csv").open() as file:
        curve = {row["step"]: row["auroc"] for row in csv.DictReader(file)}
    assert list(curve) == ["0", "4", "6"]
    assert curve[selected["selected_step"]] == selected["auroc"]
    assert curve[selected["best_step"]] == selected["best_auroc"] == max(curve.values())
    table = (tmp_path / "synthetic" / "table.md").read_text()
    assert f"| {selected['selected_step']} | {float(selected['auroc']):.4f} |" in table


def test_results_of_other_settings_are_not_mixed(data: Path, options: ProtocolOptions, tmp_path: Path) -> None:
    def run(settings: ProtocolOptions) -> str:
        return run_protocol(
            data / "train", data / "test", tmp_path, settings, classes=["blue"], methods=["dn2"], seeds=1
        )

    run(options)
    assert json.loads((tmp_path / "settings.json").read_text())["image_size"] == "32"
    with pytest.raises(UsageError, match="holds results of other steps"):
        run(replace(options, steps=5))


def run(data: Path, out: Path, options: ProtocolOptions, **changed) -> str:
    quick = {"classes": ["blue"], "methods": ["dn2"], "seeds": 1}
    return run_protocol(data / "train", data / "test", out, options, **{**quick, **changed})


def test_tables_have_all_that_is_finished_whatever_is_asked_for_now(
    data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    both = run(data, tmp_path, options, classes=["red", "blue"])
    assert run(data, tmp_path, options) == both
    assert "| red |" in both


def test_results_of_other_images_are_not_taken(data: Path, options: ProtocolOptions, tmp_path: Path) -> None:
    run(data, tmp_path / "out", options)
    fewer = tmp_path / "data"
    shutil.copytree(data, fewer)
    (fewer / "train" / "blue" / "03.png").unlink()
    with pytest.raises(UsageError, match="holds results of other training images of blue"):
        run(fewer, tmp_path / "out", options)
    run(fewer, tmp_path / "out", options, classes=["red"])  # whose images are the same


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "other"])
def test_a_damaged_job_is_named(content: str, data: Path, options: ProtocolOptions, tmp_path: Path) -> None:
    run(data, tmp_path, options, classes=["blue", "red"])
    damaged = tmp_path / "jobs" / "blue-dn2-0.json"
    damaged.write_text((tmp_path / "jobs" / "red-dn2-0.json").read_text() if content == "other" else content)
    with pytest.raises(KitError, match=r"blue-dn2-0.json: is no finished job.*delete it, and it is run again"):
        run(data, tmp_path, options)
    damaged.unlink()
    run(data, tmp_path, options)
    assert damaged.is_file()


def test_damaged_settings_are_named(data: Path, options: ProtocolOptions, tmp_path: Path) -> None:
    run(data, tmp_path, options)
    (tmp_path / "settings.json").write_text('{"cut')
    with pytest.raises(KitError, match=r"settings.json: cannot be read"):
        run(data, tmp_path, options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"select": "synthetic", "images": 12}, "--select synthetic: 12 images are too few"),
        ({"frozen_up_to": "layer9"}, "--freeze-to layer9: there is no such stage"),
    ],
)
def test_options_that_cannot_be_met_leave_the_folder_free(
    changed: dict, message: str, data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=message):
        run(data, out, replace(options, **changed), methods=["dn2", "v2"])
    assert not out.exists()
    run(data, out, options)


def test_a_missing_folder_and_a_class_of_one_image_are_told(
    data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"--train .*nowhere: .*check the path"):
        run_protocol(
            tmp_path / "nowhere", data / "test", tmp_path / "out", options, classes=[], methods=["dn2"], seeds=1
        )
    few = replace(options, images=1)
    with pytest.raises(SourceError, match="blue: 1 images to train on, at least 3 are needed"):
        run(data, tmp_path / "out", few)


def test_what_is_no_benchmark_is_not_written_over(data: Path, options: ProtocolOptions, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and what is there is no benchmark"):
        run(data, tmp_path, options)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_a_class_may_have_the_mark_of_a_table_in_its_name(tmp_path):
    job = Job("a|b", "v2", 0, (Point(0, 0.5, 0.9),), selected_step=0)
    rows = write_tables(tmp_path, [job]).splitlines()
    # As Markdown reads it: a mark behind a backslash is text.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]} == {3}
