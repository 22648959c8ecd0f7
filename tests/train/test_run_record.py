import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from msc_edge.errors import KitError
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, RECORD, read_record
from msc_edge.train.training import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, drawn_normals: Path, options: Callable) -> Path:
    """A finished run; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(drawn_normals, out, options(steps=0))
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_can_be_moved(run: Path, finished: Path) -> None:
    assert read_record(run) == read_record(finished)


@pytest.mark.parametrize("name", [BACKBONE, BANK, CALIBRATION, IMAGE_TABLE])
def test_a_changed_byte_in_any_file_is_found(name: str, run: Path, change_byte: Callable) -> None:
    change_byte(run / name, (run / name).stat().st_size // 2)
    with pytest.raises(KitError, match=rf"{name}: SHA-256 differs"):
        read_record(run)


@pytest.mark.parametrize("name", [BACKBONE, BANK, CALIBRATION, IMAGE_TABLE])
def test_a_missing_file_is_named(name: str, run: Path) -> None:
    (run / name).unlink()
    with pytest.raises(KitError, match=f"{name} is missing"):
        read_record(run)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format_version": 2}, "format_version"),
        ({"k": 0}, "k"),
        ({"dim": "many"}, "dim"),
        ({"surprise": 1}, "surprise"),
        ({"preprocessing": None}, "preprocessing"),
        ({"fine_tuning": {"recipe": "v3"}}, "fine_tuning"),
    ],
)
def test_a_record_of_another_format_is_refused_with_the_field(change: dict, named: str, run: Path) -> None:
    record = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(KitError, match=rf"{RECORD}: {named}.*train again"):
        read_record(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format_version": 1'])
def test_a_damaged_record_is_refused(content: bytes, run: Path) -> None:
    (run / RECORD).write_bytes(content)
    with pytest.raises(KitError, match=RECORD):
        read_record(run)


def test_an_unfinished_run_is_told_from_a_folder_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(KitError, match="not a run of msc-edge train"):
            read_record(path)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(KitError, match=r"not finished.*--resume"):
        read_record(tmp_path)
