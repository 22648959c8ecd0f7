import csv
import json
import shutil
import tempfile
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.train.one_vs_rest.benchmark import run_protocol
from msc_edge.train.one_vs_rest.protocol import ProtocolOptions, run_job, splits_of

ALL: dict[str, Any] = {"classes": ["blue", "red"], "methods": ["dn2", "v2"], "seeds": 2}


@pytest.fixture(scope="session")
def options(options: ProtocolOptions) -> ProtocolOptions:
    return replace(options, steps=1)


def run(data: Path, out: Path, options: ProtocolOptions, **changed) -> str:
    quick = {"classes": ["blue"], "methods": ["dn2"], "seeds": 1}
    return run_protocol(data / "train", data / "test", out, options, **{**quick, **changed})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path, options: ProtocolOptions) -> tuple[Path, str]:
    """The folder of a finished benchmark with `ALL`, and its table; read-only."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return out, run(data, out, options, **ALL)


@pytest.fixture
def out(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished benchmark that a test may change."""
    return shutil.copytree(finished[0], tmp_path / "out")


def test_an_interrupted_benchmark_continues_after_the_finished_jobs(
    data: Path, options: ProtocolOptions, finished: tuple[Path, str], out: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop_in_the_last_job(task: str, done: int, total: int, note: str = "") -> None:
        del done, total, note
        if task.startswith("red, v2, seed 1"):
            raise StoppedError

    def jobs() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (out / "jobs").iterdir()}

    assert len(jobs()) == 6
    for seed in (0, 1):
        (out / "jobs" / f"red-v2-{seed}.json").unlink()
    first = jobs()
    with pytest.raises(StoppedError):
        run(data, out, options, report=stop_in_the_last_job, **ALL)
    then = jobs()
    assert then.keys() - first.keys() == {"red-v2-0.json"}
    assert run(data, out, options, **ALL) == finished[1]
    assert first.items() <= then.items() <= jobs().items()
    assert len(jobs()) == 6


def test_the_time_is_announced_once_before_the_first_job_and_not_when_all_are_finished(
    data: Path, options: ProtocolOptions, finished: tuple[Path, str], tmp_path: Path
) -> None:
    order: list[str] = []

    def report(task: str, _done: int, _total: int, _note: str = "") -> None:
        order.append(task)

    run(data, tmp_path / "new", options, methods=["dn2", "v2"], report=report, announce=order.append)
    assert [line for line in order if line.startswith("about ")] == order[:1]
    # Eight training and nine test images, before the training and after its one step.
    assert order[0].endswith("on this CPU: 2 jobs, 1 training steps, 34 embeddings")
    order.clear()
    run(data, shutil.copytree(finished[0], tmp_path / "finished"), options, announce=order.append, **ALL)
    assert order == []


def test_an_estimate_does_not_change_the_results(
    data: Path, options: ProtocolOptions, finished: tuple[Path, str]
) -> None:
    """`finished` measured before its jobs; a job alone, without, has the same curve."""
    out, _ = finished
    stored = json.loads((out / "jobs" / "blue-v2-0.json").read_text())
    (split,) = splits_of(data / "train", data / "test", ["blue"], images=options.images)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = run_job(
            split, "v2", 0, options, train=data / "train", test=data / "test", folder=folder, maps=folder / "maps"
        )
    assert [asdict(point) for point in job.curve] == stored["curve"]


def test_the_tables_contain_the_results_of_all_jobs(finished: tuple[Path, str]) -> None:
    out, table = finished
    with (out / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    steps: dict[tuple, list[int]] = {}
    for row in curves:
        steps.setdefault((row["class"], row["method"], row["seed"]), []).append(int(row["step"]))
    assert steps["blue", "dn2", "0"] == [0]
    assert steps["blue", "v2", "1"] == [0, 1]
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    frozen = next(float(row["auroc"]) for row in rows if (row["class"], row["method"]) == ("blue", "dn2"))
    initial = {float(row["auroc"]) for row in curves if row["class"] == "blue" and row["step"] == "0"}
    assert initial == {frozen}, "all methods start from the frozen network"
    values = [float(row["auroc"]) for row in rows if (row["class"], row["method"]) == ("red", "v2")]
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in table
    assert (out / "table.md").read_text() == table


def test_the_tables_contain_finished_jobs_that_are_not_requested(
    data: Path, options: ProtocolOptions, out: Path, finished: tuple[Path, str]
) -> None:
    assert run(data, out, options) == finished[1]


def test_a_deleted_job_is_run_again(
    data: Path, options: ProtocolOptions, out: Path, finished: tuple[Path, str]
) -> None:
    job = out / "jobs" / "blue-dn2-0.json"
    job.write_text("{")
    with pytest.raises(KitError, match=r"blue-dn2-0.json: not a finished job"):
        run(data, out, options)
    job.unlink()
    assert run(data, out, options) == finished[1]


def test_results_with_other_settings_are_not_mixed(data: Path, options: ProtocolOptions, out: Path) -> None:
    assert json.loads((out / "settings.json").read_text())["image_size"] == "32"
    for changed in (replace(options, steps=5), replace(options, dtype="bf16")):
        with pytest.raises(UsageError, match=r"contains results with other (steps|dtype)"):
            run(data, out, changed)


def test_the_settings_of_0_1_0_are_compared(data: Path, options: ProtocolOptions, out: Path) -> None:
    settings = out / "settings.json"
    settings.write_text(settings.read_text().replace('"dtype"', '"precision"'))
    with pytest.raises(UsageError, match=r"contains results with other dtype \(fp32, now bf16\)"):
        run(data, out, replace(options, dtype="bf16"))
    run(data, out, options)


def test_results_with_other_images_are_not_mixed(
    data: Path, options: ProtocolOptions, out: Path, tmp_path: Path
) -> None:
    fewer = shutil.copytree(data, tmp_path / "data")
    (fewer / "train" / "blue" / "03.png").unlink()
    with pytest.raises(UsageError, match="contains results with other training images of blue"):
        run(fewer, out, options)
    run(fewer, out, options, classes=["red"])  # these images have not changed


def test_damaged_settings_are_refused(data: Path, options: ProtocolOptions, out: Path) -> None:
    (out / "settings.json").write_text('{"cut')
    with pytest.raises(KitError, match=r"settings.json: cannot be read"):
        run(data, out, options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"select": "synthetic", "images": 12}, "--select synthetic: 12 images are too few"),
        ({"frozen_up_to": "layer9"}, "stage layer9: unknown"),
    ],
)
def test_invalid_options_create_no_folder(
    changed: dict, message: str, data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run(data, tmp_path / "out", replace(options, **changed), methods=["dn2", "v2"])
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_overwritten(data: Path, options: ProtocolOptions, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("mine")
    with pytest.raises(UsageError, match="is not empty, and contains no benchmark"):
        run(data, tmp_path, options)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_the_report_names_the_job_and_counts_the_steps_of_all_jobs_that_are_left(
    data: Path, options: ProtocolOptions, tmp_path: Path
) -> None:
    steps: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def report(task: str, done: int, total: int, note: str = "") -> None:
        del note
        steps[task].append((done, total))

    run(data, tmp_path / "out", options, methods=["v2"], report=report)
    total = options.steps
    assert total
    overall = "training steps of all jobs"
    tasks = {f"blue, v2, seed 0: {task}" for task in ("embedding", "reading", "fine-tuning")}
    assert set(steps) == {overall, *tasks}
    assert steps[overall] == [(done, total) for done in range(total + 1)]
    steps.clear()
    run(data, tmp_path / "out", options, methods=["dn2", "v2", "v1"], seeds=2, report=report)
    assert steps[overall] == [(done, 3 * total) for done in range(3 * total + 1)]
