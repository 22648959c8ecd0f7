import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msc_edge.errors import KitError
from msc_edge.files import sha256_of
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_folder import RECORD
from msc_edge.train.run_record import BACKBONE, BANK, CALIBRATION, IMAGE_TABLE, read_record


@pytest.fixture
def run(frozen_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that a test may damage."""
    return shutil.copytree(frozen_run, tmp_path / "run")


def test_a_run_can_be_moved(run: Path, frozen_run: Path) -> None:
    assert read_record(run) == read_record(frozen_run)


@pytest.mark.parametrize("name", [BACKBONE, BANK, CALIBRATION, IMAGE_TABLE])
def test_a_changed_byte_in_any_file_is_detected(name: str, run: Path, change_byte: Callable) -> None:
    change_byte(run / name, (run / name).stat().st_size // 2)
    with pytest.raises(KitError, match=rf"{name}: SHA-256 differs"):
        read_record(run)


@pytest.mark.parametrize("name", [BACKBONE, BANK, CALIBRATION, IMAGE_TABLE])
def test_the_error_names_a_missing_file(name: str, run: Path) -> None:
    (run / name).unlink()
    with pytest.raises(KitError, match=f"{name} is missing"):
        read_record(run)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"k": 0}, "k"),
        ({"dim": "many"}, "dim"),
        ({"surprise": 1}, "surprise"),
        ({"preprocessing": None}, "preprocessing"),
        ({"fine_tuning": {"recipe": "v3"}}, "fine_tuning"),
        ({"format_version": None}, "format_version"),
    ],
)
def test_the_error_names_an_invalid_field(change: dict, field: str, run: Path) -> None:
    record = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(KitError, match=rf"{RECORD}: {field}.*train again"):
        read_record(run)


def test_a_newer_format_is_refused_with_the_remedy(run: Path) -> None:
    record = json.loads((run / RECORD).read_text())
    (run / RECORD).write_text(json.dumps(record | {"format_version": 3, "new_field": 1}))
    with pytest.raises(KitError, match=rf"{RECORD}: format_version 3 is newer than 2.*update msc-edge"):
        read_record(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format_version": 1}'])
def test_a_damaged_record_is_refused(content: bytes, run: Path) -> None:
    (run / RECORD).write_bytes(content)
    with pytest.raises(KitError, match=RECORD):
        read_record(run)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("name", [RECORD, BANK])
def test_a_named_pipe_in_a_run_is_refused_and_not_waited_for(name: str, run: Path) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(KitError, match="cannot be read: it is not a regular file"):
        read_record(run)


def test_an_unfinished_run_differs_from_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(KitError, match="not a run of msc-edge train"):
            read_record(path)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(KitError, match=r"has not finished.*--resume"):
        read_record(tmp_path)


# Fields of run.json as msc-edge 0.1.0 wrote them.
FINE_TUNING_0_1_0 = {
    "recipe": "v2",
    "steps": 20,
    "batch": 64,
    "learning_rate": 0.0003,
    "weight_decay": 5e-05,
    "temperature": 0.25,
    "frozen_up_to": "layer2",
    "precision": "bf16",
    "seed": 0,
    "select": "synthetic",
    "select_every": 20,
}
AUROCS = {"drawn": 0.9, "pasted": 0.8, "jumbled": 0.7, "auroc": 0.8, "error": 0.01}
SELECTION_0_1_0 = {
    "candidates": [{"step": 0, **AUROCS, "kept": True}, {"step": 20, **AUROCS, "kept": False}],
    "kept_step": 0,
}


def rewrite_as_0_1_0(run: Path, *, selection: dict[str, Any] | None) -> None:
    (run / IMAGE_TABLE).rename(run / "pictures.csv")
    table = (run / "pictures.csv").read_text(encoding="utf-8")
    (run / "pictures.csv").write_text(table.replace('"duplicate"', '"copy"'), encoding="utf-8")
    record = json.loads((run / RECORD).read_text())
    record |= {"format_version": 1, "fine_tuning": FINE_TUNING_0_1_0, "selection": selection}
    record["files"].pop(IMAGE_TABLE)
    path = run / "pictures.csv"
    record["files"]["pictures.csv"] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    (run / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize("selection", [SELECTION_0_1_0, None])
def test_a_run_of_0_1_0_opens(selection: dict[str, Any] | None, run: Path, frozen_run: Path) -> None:
    images = read_image_table(run / IMAGE_TABLE)
    rewrite_as_0_1_0(run, selection=selection)
    record = read_record(run)
    assert record.format_version == 2
    assert record.fine_tuning.dtype == "bf16"
    expected = FINE_TUNING_0_1_0 | {"dtype": "bf16"}
    expected.pop("precision")
    expected["select_by"] = "image"
    assert record.fine_tuning.model_dump() == expected
    if selection:
        assert record.selection is not None
        assert record.selection.selected_step == 0
        assert [candidate.selected for candidate in record.selection.candidates] == [True, False]
        assert record.selection.candidates[1].shuffled == 0.7
    else:
        assert record.selection is None
    same = {"fine_tuning", "selection", "files"}
    assert record.model_dump(exclude=same) == read_record(frozen_run).model_dump(exclude=same)
    # Its image table has another name and another word for duplicates.
    assert read_image_table(run / IMAGE_TABLE) == images


def test_a_changed_byte_in_a_run_of_0_1_0_is_detected(run: Path, change_byte: Callable) -> None:
    rewrite_as_0_1_0(run, selection=None)
    change_byte(run / "pictures.csv", 30)
    with pytest.raises(KitError, match=r"pictures\.csv: SHA-256 differs"):
        read_record(run)
