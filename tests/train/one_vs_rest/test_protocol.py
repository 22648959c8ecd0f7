import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import msc_edge.train.fine_tune as fine_tune_module
from msc_edge.bank import Bank
from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.train.one_vs_rest.protocol import (
    Job,
    Point,
    ProtocolOptions,
    auroc_of,
    read_jobs,
    run_job,
    splits_of,
    write_job,
)


def test_a_split_trains_on_one_class_and_tests_on_all(data: Path) -> None:
    splits = splits_of(data / "train", data / "test", [], images=10)
    assert [split.name for split in splits] == ["blue", "green", "red"]
    for split in splits:
        assert len(split.train) == 10
        assert {path.partition("/")[0] for path in split.train} == {split.name}
        assert len(split.test) == len(split.anomalous) == 9
        for path, anomalous in zip(split.test, split.anomalous, strict=True):
            assert anomalous == (path.partition("/")[0] != split.name)


@pytest.mark.parametrize(
    ("classes", "missing", "exception", "message"),
    [
        (["mauve"], None, UsageError, "--classes mauve: not in .*; choose from blue green red"),
        ([], "test/red", SourceError, "has no folder red"),
    ],
)
def test_a_missing_class_is_reported(
    data: Path, tmp_path: Path, classes: list[str], missing: str | None, exception: type[Exception], message: str
) -> None:
    test = tmp_path / "test"
    test.mkdir()
    for name in ("red", "green", "blue"):
        if missing != f"test/{name}":
            (test / name).symlink_to(data / "test" / name)
    with pytest.raises(exception, match=message):
        splits_of(data / "train", test, classes, images=None)


def test_a_missing_folder_and_a_class_with_one_image_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"--train .*nowhere: .*check the path"):
        splits_of(tmp_path / "nowhere", data / "test", [], images=None)
    with pytest.raises(SourceError, match="blue: 1 training images, at least 3 are needed"):
        splits_of(data / "train", data / "test", ["blue"], images=1)


def test_the_auroc_is_that_of_the_scores_of_the_product() -> None:
    random = np.random.default_rng(0)
    bank, test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in random.normal(size=(2, 40, 8)))
    bank, test = bank.astype(np.float32), test.astype(np.float32)
    anomalous = [bool(number % 3) for number in range(40)]
    scores = [Bank(bank).score(row) for row in test]
    assert auroc_of(bank, test, anomalous) == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Callable[..., Job]:
    """Run a job of the class red."""

    def run(options: ProtocolOptions, method: str = "v2") -> Job:
        (split,) = splits_of(data / "train", data / "test", ["red"], images=options.images)
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return run_job(
            split, method, 0, options, train=data / "train", test=data / "test", folder=folder, maps=folder / "maps"
        )

    return run


def test_a_point_of_the_curve_belongs_to_the_weights_of_its_step(
    run: Callable, options: ProtocolOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if metrics are read one step late, as on a GPU."""
    curves = []
    for behind in (0, 1):
        monkeypatch.setattr(fine_tune_module, "_steps_behind", lambda _, behind=behind: behind)
        curves.append(run(replace(options, steps=3, learning_rate=1e-2)).curve)
    assert curves[0] == curves[1]
    assert [point.step for point in curves[0]] == [0, 1, 2, 3]
    assert len({point.mean_pairwise_cosine for point in curves[0]}) == 4
    # The point of step 1 is the last point of a job with one step.
    assert run(replace(options, steps=1, learning_rate=1e-2)).curve == curves[0][:2]


@pytest.mark.parametrize("method", ["contrastive", "v1"])
def test_each_method_starts_from_the_frozen_network(run: Callable, options: ProtocolOptions, method: str) -> None:
    frozen = run(options, "dn2")
    assert [point.step for point in frozen.curve] == [frozen.selected_step] == [0]
    job = run(replace(options, steps=1), method)
    assert job.curve[0] == frozen.curve[0]
    assert job.selected_step == 1


def test_the_selected_step_is_a_point_of_the_curve(run: Callable, options: ProtocolOptions) -> None:
    assert run(replace(options, steps=3, measure_every=2)).selected_step == 3
    job = run(replace(options, steps=3, measure_every=2, select="synthetic", images=None))
    assert job.selected_step in {0, 3}  # candidates: step 0, every 20 steps, and the last
    assert [point.step for point in job.curve] == [0, 2, 3]
    assert job.selected.step == job.selected_step
    assert job.best.auroc == max(point.auroc for point in job.curve)


def test_a_diverged_training_is_reported(run: Callable, options: ProtocolOptions) -> None:
    with pytest.raises(UsageError, match=r"no longer finite.*--learning-rate"):
        run(replace(options, learning_rate=1e30))


JOB = Job("blue", "v2", 0, (Point(0, 0.9, 0.5), Point(4, 0.8, 0.4)), 4)


def test_a_job_is_read_back(tmp_path: Path) -> None:
    write_job(tmp_path, JOB)
    assert read_jobs(tmp_path) == [JOB]


def test_a_job_of_0_1_0_is_read(tmp_path: Path) -> None:
    write_job(tmp_path, JOB)
    (path,) = (tmp_path / "jobs").iterdir()
    path.write_text(path.read_text().replace("selected_step", "kept_step"))
    assert read_jobs(tmp_path) == [JOB]


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "other", "no point"])
def test_the_error_names_a_damaged_job(content: str, tmp_path: Path) -> None:
    write_job(tmp_path, JOB)
    path = tmp_path / "jobs" / "blue-v2-0.json"
    stored = json.loads(path.read_text())
    changed = {"other": stored | {"seed": 1}, "no point": stored | {"selected_step": 3}}.get(content)
    path.write_text(content if changed is None else json.dumps(changed))
    with pytest.raises(KitError, match=r"blue-v2-0.json: not a finished job.*delete it to run it again"):
        read_jobs(tmp_path)
