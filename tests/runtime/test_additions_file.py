"""The additions file: what it keeps, and files that are not what they should be."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.kit.model_entry import EmbeddingOutput, Model
from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime import Detector
from msc_edge.runtime.additions import LearnedRows
from msc_edge.runtime.additions_database import additions_path
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.kept_images import Change

KIT = KitIdentity("bottles", "ab" * 32)
IMAGE = np.full((4, 6, 3), 90, np.uint8)
ROWS = LearnedRows(np.array([0.6, 0.8], np.float32), np.arange(6, dtype=np.float32).reshape(2, 3))
BY = Change("2026-01-02T03:04:05+01:00", "Anna", "new supplier")


@pytest.fixture(scope="module")
def model(patches: Detector) -> Model:
    """Of a kit with patches; its embeddings are shortened to two numbers."""
    own = patches.manifest.models["fp32"]
    return own.model_copy(update={"outputs": own.outputs.model_copy(update={"embedding": EmbeddingOutput(dim=2)})})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bottles"


def add(file: AdditionsFile, name: str = "a.png", content: bytes = b"png") -> int:
    return file.add("addition", name, content, IMAGE, {"fp32": ROWS}, BY).id


def test_what_was_added_is_there_when_the_file_is_opened_again(path: Path, model: Model) -> None:
    with AdditionsFile.open(path, KIT, create=True) as file:
        added = file.add("addition", "a.png", b"content", IMAGE, {"fp32": ROWS}, BY)
        defect = file.add("defect", "b.png", b"other", IMAGE, {}, BY)
    assert additions_path(path, KIT).name == "bottles.additions-abababababab.sqlite"
    with AdditionsFile.open(path, KIT) as file:
        assert file.images() == [added, defect]
        assert file.content(added.id) == b"content"
        (learned,) = file.additions("fp32", model).learned
        assert (learned.id, learned.name, learned.thumbnail.shape) == (added.id, "a.png", IMAGE.shape)
        assert (learned.rows.embedding == ROWS.embedding).all()
        assert (learned.rows.patches == ROWS.patches).all()


def test_what_was_undone_counts_no_more_and_stays_in_the_record(path: Path, model: Model) -> None:
    with AdditionsFile.open(path, KIT, create=True) as file:
        first, second = add(file), add(file, "b.png")
        undone = Change("2026-01-03T00:00:00+01:00", "Ben", "was a defect")
        assert file.undo(first, undone).undone == undone
        assert [each.id for each in file.additions("fp32", model).learned] == [second]
        assert [(each.id, each.undone) for each in file.images()] == [(first, undone), (second, None)]
        with pytest.raises(UsageError, match=r"1 was undone already, by Ben at 2026-01-03"):
            file.undo(first, BY)
        with pytest.raises(UsageError, match="has no image 99; --list shows them"):
            file.undo(99, BY)
        file.undo(second, BY)
        assert len(file.additions("fp32", model)) == 0


def test_without_a_file_nothing_was_learned(path: Path) -> None:
    with pytest.raises(UsageError, match="this station has learned nothing for it"):
        AdditionsFile.open(path, KIT)
    assert list(path.parent.iterdir()) == []


def test_the_file_of_another_kit_is_refused(path: Path) -> None:
    with AdditionsFile.open(path, KIT, create=True) as file:
        add(file)
    other = KitIdentity("cans", "cd" * 32)
    additions_path(path, KIT).rename(additions_path(path, other))
    with pytest.raises(UsageError, match=r"belongs to another kit \('bottles', SHA-256 abababababab\)"):
        AdditionsFile.open(path, other)


def test_a_kit_that_was_renamed_names_the_file_to_rename(path: Path) -> None:
    path.mkdir()
    with AdditionsFile.open(path, KIT, create=True) as file:
        add(file)
    renamed = path.rename(path.with_name("line7"))
    for create in (False, True):
        with pytest.raises(
            UsageError, match=r"bottles\.additions-.*: is what was learned for this kit under another name"
        ):
            AdditionsFile.open(renamed, KIT, create=create)
    additions_path(path, KIT).rename(additions_path(renamed, KIT))
    with AdditionsFile.open(renamed, KIT) as file:
        assert len(file.images()) == 1


def test_copies_of_a_kit_learn_for_themselves_and_links_to_it_with_it(path: Path) -> None:
    for each in (path, path.with_name("copy")):
        each.mkdir()
        with AdditionsFile.open(each, KIT, create=True) as file:
            add(file, each.name)
    (link := path.with_name("current")).symlink_to(path)
    with AdditionsFile.open(link, KIT) as file:
        assert [image.name for image in file.images()] == ["bottles"]
    with AdditionsFile.open(path / ".." / "copy", KIT) as file:
        assert [image.name for image in file.images()] == ["copy"]


def test_a_folder_in_the_place_of_the_file_is_named(path: Path) -> None:
    additions_path(path, KIT).mkdir()
    with pytest.raises(UsageError, match="is a folder, and would be the file with what was learned; move it away"):
        AdditionsFile.open(path, KIT, create=True)


def test_a_newer_format_names_the_remedy(path: Path) -> None:
    with AdditionsFile.open(path, KIT, create=True) as file:
        add(file)
        database = sqlite3.connect(file.path)
        with database:
            database.execute("UPDATE kit SET format = 3")
        database.close()
    with pytest.raises(UsageError, match="format 3 is of a newer msc-edge; install that one"):
        AdditionsFile.open(path, KIT)


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_a_damaged_file_is_named(path: Path, content: bytes) -> None:
    additions_path(path, KIT).write_bytes(content)
    expected = (
        r"bottles\.additions-.*: what this station has learned is damaged \(.*\); copy the file from a backup, or"
    )
    with pytest.raises(KitError, match=expected):
        AdditionsFile.open(path, KIT)


@pytest.mark.parametrize(
    "rows",
    [
        LearnedRows(np.ones(3, np.float32), ROWS.patches),
        LearnedRows(ROWS.embedding, np.ones((1, 2), np.float32)),
        LearnedRows(np.array([np.nan, 0], np.float32), ROWS.patches),
        LearnedRows(ROWS.embedding, np.full((1, 3), np.inf, np.float32)),
    ],
)
def test_rows_that_do_not_fit_the_kit_are_refused(path: Path, model: Model, rows: LearnedRows) -> None:
    with AdditionsFile.open(path, KIT, create=True) as file:
        file.add("addition", "a.png", b"", IMAGE, {"fp32": rows}, BY)
        with pytest.raises(KitError, match="what this station has learned is damaged"):
            file.additions("fp32", model)


def test_a_model_that_did_not_learn_an_image_cannot_be_used(path: Path, model: Model) -> None:
    with AdditionsFile.open(path, KIT, create=True) as file:
        id = add(file)
        with pytest.raises(UsageError, match=f"image {id} was learned without the model int8; undo it"):
            file.additions("int8", model)


def test_two_processes_add_to_one_file(path: Path) -> None:
    with AdditionsFile.open(path, KIT, create=True) as one, AdditionsFile.open(path, KIT, create=True) as other:
        ids = [add(file) for file in (one, other, one)]
        assert [each.id for each in other.images()] == ids == [1, 2, 3]
