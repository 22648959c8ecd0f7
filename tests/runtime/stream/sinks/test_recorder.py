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

    def create(**sections: Any) -> Recorder:
        config = check_config({"kit": "k", "source": [{"address": "0"}], **sections})
        recorders.append(Recorder(config))
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
    recorder.write(decision(toy))
    assert recorder.write_once(decision(toy))
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
        assert recorder.write_once(decision(toy, "second"))
    recorder.close()
    assert saved
    assert saved.is_file()
    assert (tmp_path / "rows.csv").read_text().count("second") == 1
    assert (tmp_path / "rows.jsonl").read_text().count("first") == 1


def test_rows_that_a_full_disk_does_not_take_are_counted_and_logged_once(
    recorder_of: Callable[..., Recorder],
    toy: ModuleType,
    tmp_path: Path,
    small_disk: Path,
    fill: Callable[[Path], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One of two files is on the full disk. The other file must not be taken for a recovery."""
    caplog.set_level(logging.INFO, logger="msc_edge.stream")
    recorder = recorder_of(results={"jsonl": str(tmp_path / "rows.jsonl"), "csv": str(small_disk / "rows.csv")})
    ballast = fill(small_disk)
    for _ in range(5):
        recorder.write(decision(toy))
    assert not recorder.write_once(decision(toy))
    lost, reasons = recorder.take_lost()
    assert lost == 5
    assert "5 rows could not be written" in reasons[0]
    assert "free some space" in reasons[0]
    assert recorder.take_lost() == (0, [])
    ballast.unlink()
    recorder.write(decision(toy))
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 7
