import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.events import new_id, now
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sinks.recorder import Recorder


@pytest.fixture
def recorder_of() -> Iterator[Callable[..., Recorder]]:
    """Create a recorder with these sections of the configuration."""
    recorders: list[Recorder] = []

    def create(max_in_memory: float = 1e6, **sections: Any) -> Recorder:
        config = check_config({"kit": "k", "source": [{"address": "0"}], **sections})
        recorders.append(Recorder(config, max_in_memory=max_in_memory))
        return recorders[-1]

    yield create
    for recorder in recorders:
        recorder.close()


def decision(toy: ModuleType, id: str | None = None) -> Decision:
    result = Result(0.5, 0.5, None, 0.01, "reject", 0.2, (), (NearestImage(0, "n.png", 0.5),), "fp32", "kit")
    frame = Frame(source="cam", index=0, time=now(), captured=0.0, image=toy.draw(200, "scratch"))
    return Decision(id or new_id(), frame, result, Stages(1, 2, 3, 6))


def test_without_files_nothing_is_written_and_nothing_lost(
    recorder_of: Callable[..., Recorder], toy: ModuleType
) -> None:
    recorder = recorder_of()
    assert recorder.save_image(decision(toy), wait=True) is None
    assert recorder.write(decision(toy))
    assert recorder.write(decision(toy), durable=True)
    assert recorder.take_lost() == (0, [])


def test_a_decision_goes_to_each_file_and_its_image_to_the_folder(
    recorder_of: Callable[..., Recorder], toy: ModuleType, tmp_path: Path
) -> None:
    recorder = recorder_of(
        results={"jsonl": str(tmp_path / "rows.jsonl"), "csv": str(tmp_path / "rows.csv")},
        images={"folder": str(tmp_path / "saved")},
    )
    saved = recorder.save_image(decision(toy), wait=True)
    recorder.write(decision(toy, "first"))
    for _ in range(2):
        assert recorder.write(decision(toy, "second"), durable=True)
    recorder.close()
    assert saved
    assert saved.is_file()
    assert (tmp_path / "rows.csv").read_text().count("second") == 1
    assert (tmp_path / "rows.jsonl").read_text().count("first") == 1


def test_rows_wait_for_a_full_disk_and_are_written_later_in_order(
    recorder_of: Callable[..., Recorder],
    toy: ModuleType,
    rows_of: Callable,
    tmp_path: Path,
    small_disk: Path,
    fill: Callable[[Path], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One of two files is on the full disk. The other file must not wait, nor be taken for a recovery."""
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    good, full = tmp_path / "rows.jsonl", small_disk / "rows.csv"
    recorder = recorder_of(results={"jsonl": str(good), "csv": str(full)})
    ballast = fill(small_disk)
    marked: list[str] = []
    for number in range(120):
        each = decision(toy, str(number))
        assert not recorder.write(each, durable=True)
        recorder.write_later(each, lambda id=each.id: marked.append(id))
        recorder.retry()
    assert [row["id"] for row in rows_of(good)] == [str(number) for number in range(120)]
    assert (recorder.waiting, marked) == (120, [])
    assert "free some space" in recorder.failure
    ballast.unlink()
    last = decision(toy, "120")
    while not recorder.write(last, durable=True):
        assert recorder.waiting, "a part of the backlog is written before it"
    assert (recorder.waiting, recorder.failure, recorder.take_lost()) == (0, "", (0, []))
    written = [line.partition(",")[0] for line in full.read_text().splitlines()[1:]]
    assert written == [str(number) for number in range(121)]
    assert marked == [str(number) for number in range(120)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert [row["id"] for row in rows_of(good)] == written


def test_rows_beyond_the_memory_are_dropped_the_oldest_first_and_counted(
    recorder_of: Callable[..., Recorder],
    toy: ModuleType,
    rows_of: Callable,
    small_disk: Path,
    fill: Callable[[Path], Path],
) -> None:
    recorder = recorder_of(results={"jsonl": str(small_disk / "rows.jsonl")}, max_in_memory=3000)
    ballast = fill(small_disk)
    marked: list[str] = []
    for number in range(20):
        each = decision(toy, str(number))
        assert not recorder.write(each)
        recorder.write_later(each, lambda id=each.id: marked.append(id))
    kept = recorder.waiting
    assert 1 < kept < 10
    lost, (reason,) = recorder.take_lost()
    assert lost == 20 - kept
    assert reason.startswith(f"{lost} rows could not be written (cannot write ")
    ballast.unlink()
    recorder.retry()
    assert [row["id"] for row in rows_of(small_disk / "rows.jsonl")] == marked
    assert marked == [str(number) for number in range(20 - kept, 20)]
    assert recorder.take_lost() == (0, [])
