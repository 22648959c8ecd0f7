import csv
import logging
import math
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msc_edge.errors import KitError
from msc_edge.train.metrics import MetricsLog, StepMetrics, read_metrics
from msc_edge.train.run_folder import METRICS, TENSORBOARD


def rows(*steps: int) -> list[StepMetrics]:
    return [StepMetrics(step, 1 / step, math.sin(step), math.pi * step) for step in steps]


def write(folder: Path, metrics: list[StepMetrics], *, keep_steps: int = 0) -> None:
    with MetricsLog(folder, StepMetrics, keep_steps=keep_steps) as log:
        for row in metrics:
            log.add(row)


def test_rows_are_read_back_exactly(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 2, 3))
    assert read_metrics(tmp_path / METRICS, StepMetrics) == rows(1, 2, 3)


def test_the_file_is_plain_csv_with_one_row_per_step(tmp_path: Path) -> None:
    write(tmp_path, [StepMetrics(1, 2.5, 0.75, 12.0)])
    expected = b"step,loss,mean_pairwise_cosine,effective_rank,auroc,auroc_error,selected\n1,2.5,0.75,12.0,,,\n"
    assert (tmp_path / METRICS).read_bytes() == expected


SELECTION = [
    StepMetrics(0, None, None, None, 0.9, 0.01, 1),
    StepMetrics(1, 2.5, 0.75, 12.0),
    StepMetrics(2, 2.25, 0.5, 11.0, 0.875, 0.25, 0),
]


def test_an_evaluated_step_has_the_figures_of_checkpoint_selection(tmp_path: Path) -> None:
    write(tmp_path, SELECTION)
    assert (tmp_path / METRICS).read_text().splitlines()[1:] == [
        "0,,,,0.9,0.01,1",
        "1,2.5,0.75,12.0,,,",
        "2,2.25,0.5,11.0,0.875,0.25,0",
    ]
    assert read_metrics(tmp_path / METRICS, StepMetrics) == SELECTION


def test_a_resumed_log_repeats_the_bytes_of_its_rows(tmp_path: Path) -> None:
    write(tmp_path, SELECTION)
    whole = (tmp_path / METRICS).read_bytes()
    write(tmp_path, SELECTION[2:], keep_steps=1)
    assert (tmp_path / METRICS).read_bytes() == whole
    # Without a checkpoint everything is computed again, the frozen backbone too.
    write(tmp_path, SELECTION)
    assert (tmp_path / METRICS).read_bytes() == whole


def test_a_log_of_an_older_version_is_continued(tmp_path: Path) -> None:
    """It has no columns of checkpoint selection."""
    old = "step,loss,mean_pairwise_cosine,effective_rank\n1,2.5,0.75,12.0\n2,2.0,0.5,11.0\n"
    (tmp_path / METRICS).write_text(old)
    write(tmp_path, [StepMetrics(2, 2.25, 0.5, 11.0, 0.875, 0.25, 0)], keep_steps=1)
    assert read_metrics(tmp_path / METRICS, StepMetrics) == SELECTION[1:]


def test_each_row_is_written_immediately(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, StepMetrics, keep_steps=0) as log:
        for row in rows(1, 2, 3):
            log.add(row)
            assert read_metrics(tmp_path / METRICS, StepMetrics)[-1] == row


def test_a_resumed_log_keeps_the_steps_up_to_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 2, 3, 4, 5))
    with MetricsLog(tmp_path, StepMetrics, keep_steps=3) as log:
        assert log.restored == rows(1, 2, 3)
        log.add(StepMetrics(4, 0.5, 0.5, 0.5))
    assert read_metrics(tmp_path / METRICS, StepMetrics) == [*rows(1, 2, 3), StepMetrics(4, 0.5, 0.5, 0.5)]


def test_a_new_run_removes_all_rows(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 2, 3))
    write(tmp_path, rows(1), keep_steps=0)
    assert read_metrics(tmp_path / METRICS, StepMetrics) == rows(1)


def test_a_file_cut_at_any_byte_gives_its_complete_rows(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 2, 3))
    whole = (tmp_path / METRICS).read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / METRICS).write_bytes(whole[:length])
        complete = max(0, whole[:length].count(b"\n") - 1)
        assert read_metrics(tmp_path / METRICS, StepMetrics) == rows(1, 2, 3)[:complete]


@pytest.mark.parametrize("content", [b"\xff\xfe\n1,2,3,4\n", b"step,loss\n1,0.5\n", b"photo,colour\na,b\n", None])
def test_a_damaged_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    write(tmp_path, rows(1, 2))
    whole = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(content or whole.replace(b"1,1.0", b"1,one"))
    with pytest.raises(KitError, match=r"metrics\.csv: is damaged .*; move it away"):
        read_metrics(tmp_path / METRICS, StepMetrics)


def test_a_missing_file_gives_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / METRICS, StepMetrics) == []


def test_other_ranks_write_and_log_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), MetricsLog(tmp_path, StepMetrics, keep_steps=0, enabled=False) as log:
        log.add(rows(1)[0])
        log.warn("collapse")
        log.flush()
    assert not list(tmp_path.iterdir())
    assert not caplog.records


def test_warnings_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), MetricsLog(tmp_path, StepMetrics, keep_steps=0) as log:
        log.warn("the embeddings are collapsing")
    assert [record.getMessage() for record in caplog.records] == ["the embeddings are collapsing"]


def test_tensorboard_shows_the_same_values(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 2, 3, 4))
    time.sleep(1.1)  # TensorBoard sorts its files by the second in their names
    write(tmp_path, rows(3, 4, 5), keep_steps=2)
    events = EventAccumulator(str(tmp_path / TENSORBOARD)).Reload()
    with (tmp_path / METRICS).open(newline="") as file:
        table = list(csv.DictReader(file))
    for name in ("loss", "mean_pairwise_cosine", "effective_rank"):
        scalars = events.Scalars(f"train/{name}")
        assert [event.step for event in scalars] == [1, 2, 3, 4, 5]
        assert [event.value for event in scalars] == pytest.approx([float(row[name]) for row in table], rel=1e-6)


def test_tensorboard_shows_checkpoint_selection_at_the_steps_that_were_evaluated(tmp_path: Path) -> None:
    write(tmp_path, SELECTION)
    events = EventAccumulator(str(tmp_path / TENSORBOARD)).Reload()
    for name, expected in (("auroc", [0.9, 0.875]), ("auroc_error", [0.01, 0.25]), ("selected", [1, 0])):
        scalars = events.Scalars(f"train/{name}")
        assert [event.step for event in scalars] == [0, 2]
        assert [event.value for event in scalars] == pytest.approx(expected)
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
