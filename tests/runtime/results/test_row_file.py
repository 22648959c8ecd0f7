"""A row file through crashes, full disks and edits. Most tests use short records of two fields."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msc_edge.errors import OtherColumnsError, OutputError, UsageError
from msc_edge.runtime.results.fields import Field
from msc_edge.runtime.results.formats import RowFormat, format_of
from msc_edge.runtime.results.image_result import score_file_format
from msc_edge.runtime.results.row_file import RowFile, end_of_rows, move_aside, read_rows

Row = tuple[str, int | None]

FIELDS: tuple[Field[Row], ...] = (
    Field(name="path", type="text", description="an image", value=lambda row: row[0]),
    Field(name="points", type="integer", description="how many", value=lambda row: row[1]),
)
# Line ends and quotes inside a field, and no value: what makes the end of a row hard to find.
ROWS: list[Row] = [("a.png", 1), ('line\nend, "quoted".png', 2), ("\r.png", None), ("ü.png", 4)]
SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])


def form_of(path: Path) -> RowFormat[Row]:
    return format_of(path, FIELDS)


def written(path: Path, rows: list[Row] = ROWS) -> Path:
    with RowFile.create(path, form_of(path), overwrite=True) as file:
        for row in rows:
            file.write(row)
    return path


def rows_of(path: Path) -> list[Row]:
    return [(row["path"], row["points"]) for row in read_rows(path, form_of(path))]


class TestCreate:
    def test_an_existing_file_is_kept_and_the_error_names_both_options(self, tmp_path):
        target = written(tmp_path / "s.csv")
        before = target.read_bytes()
        with pytest.raises(UsageError, match=r"--resume.*--overwrite"):
            RowFile.create(target, form_of(target))
        assert target.read_bytes() == before

    def test_overwrite_replaces_the_rows(self, tmp_path):
        target = written(tmp_path / "s.csv")
        RowFile.create(target, form_of(target), overwrite=True).close()
        assert rows_of(target) == []

    def test_missing_folders_are_created(self, tmp_path):
        assert rows_of(written(tmp_path / "a" / "b" / "s.csv")) == ROWS

    @pytest.mark.parametrize("name", ["a file/s.csv", "x" * 300 + ".csv", "folder.csv"])
    def test_a_path_that_cannot_be_written_is_an_output_error(self, tmp_path, name):
        (tmp_path / "a file").touch()
        (tmp_path / "folder.csv").mkdir()
        for make in (lambda path, form: RowFile.create(path, form, overwrite=True), RowFile.open):
            with pytest.raises(OutputError, match="cannot write"):
                make(tmp_path / name, form_of(tmp_path / name))


@SUFFIXES
class TestWrite:
    def test_each_row_is_in_the_file_when_write_returns(self, tmp_path, suffix):
        target = tmp_path / f"s{suffix}"
        with RowFile.create(target, form_of(target)) as file:
            for number, row in enumerate(ROWS, start=1):
                assert file.has_rows == (number > 1)
                file.write(row, durable=number % 2 == 0)
                assert rows_of(target) == ROWS[:number]
                assert file.size == target.stat().st_size

    def test_open_appends_and_writes_the_header_with_the_first_row(self, tmp_path, suffix):
        target = tmp_path / "folder" / f"s{suffix}"
        with RowFile.open(target, form_of(target)) as file:
            assert (target.read_bytes(), file.has_rows) == (b"", False)
            file.write(ROWS[0])
        with RowFile.open(target, form_of(target)) as file:
            assert file.has_rows
            for row in ROWS[1:]:
                file.write(row)
        assert target.read_bytes() == written(tmp_path / f"whole{suffix}").read_bytes()

    def test_a_moved_or_closed_file_is_not_in_place(self, tmp_path, suffix):
        target = written(tmp_path / f"s{suffix}")
        with RowFile.open(target, form_of(target)) as file:
            assert file.is_in_place()
            target.rename(tmp_path / "moved")
            assert not file.is_in_place()
            target.touch()
            assert not file.is_in_place()
        assert not file.is_in_place()


class SmallDisk(io.FileIO):
    """A file on a disk that takes five bytes at a time, and `space` bytes in all."""

    space = 0

    def write(self, data: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.space == 0:
            raise OSError(28, "No space left on device")
        written = super().write(bytes(data[: min(5, self.space)]))
        self.space -= written
        return written


@SUFFIXES
class TestFullDisk:
    def test_a_row_that_does_not_fit_is_removed_and_written_when_there_is_space(self, tmp_path, suffix):
        target, whole = written(tmp_path / f"s{suffix}", ROWS[:1]), written(tmp_path / f"whole{suffix}", ROWS[:2])
        before, end = target.read_bytes(), target.stat().st_size
        missing = whole.stat().st_size - end
        for space in range(missing):
            disk = SmallDisk(target, "r+")
            disk.seek(end)
            disk.space = space
            with RowFile(target, form_of(target), disk, end) as file:
                with pytest.raises(OutputError, match="No space left on device; free some space"):
                    file.write(ROWS[1])
                assert target.read_bytes() == before
                disk.space = missing
                file.write(ROWS[1])
            assert target.read_bytes() == whole.read_bytes()
            target.write_bytes(before)

    def test_a_disk_that_cannot_remove_the_row_either_closes_the_file(self, tmp_path, suffix):
        class Failing(SmallDisk):
            def truncate(self, size: int | None = None) -> int:  # noqa: ARG002
                raise OSError(5, "Input/output error")

        target = written(tmp_path / f"s{suffix}", ROWS[:1])
        disk = Failing(target, "r+")
        disk.seek(end := target.stat().st_size)
        disk.space = 3
        file = RowFile(target, form_of(target), disk, end)
        with pytest.raises(OutputError):
            file.write(ROWS[1])
        assert not file.is_in_place()
        with RowFile.open(target, form_of(target)) as again:
            again.write(ROWS[1])
        assert rows_of(target) == ROWS[:2]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_the_error_names_the_cause_and_the_remedy(self, tmp_path, suffix):
        target = tmp_path / f"s{suffix}"
        target.symlink_to("/dev/full")
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            written(target)


@SUFFIXES
class TestInterrupted:
    def test_a_file_cut_off_anywhere_is_continued_to_the_same_bytes(self, tmp_path, suffix):
        whole = written(tmp_path / f"whole{suffix}").read_bytes()
        target = tmp_path / f"s{suffix}"
        for length in range(len(whole) + 1):
            target.write_bytes(whole[:length])
            done = len(rows_of(target))
            with RowFile.open(target, form_of(target)) as file:
                assert whole.startswith(target.read_bytes())
                assert file.has_rows == (done > 0)
                for row in ROWS[done:]:
                    file.write(row)
            assert target.read_bytes() == whole, length

    @pytest.mark.parametrize("rows", [0, 1, 4])
    def test_zeros_that_a_power_cut_leaves_are_removed(self, tmp_path, suffix, rows):
        target = written(tmp_path / f"s{suffix}", ROWS[:rows])
        before = target.read_bytes()
        half = form_of(target).encode(ROWS[0])[:7] if rows else b""
        for tail in (b"\0" * 5000, half + b"\0" * 5000):
            target.write_bytes(before + tail)
            assert rows_of(target) == ROWS[:rows]
            RowFile.open(target, form_of(target)).close()
            assert target.read_bytes() == before

    def test_zeros_in_place_of_the_whole_file_are_removed(self, tmp_path, suffix):
        target = tmp_path / f"s{suffix}"
        target.write_bytes(b"\0" * 5000)
        with RowFile.open(target, form_of(target)) as file:
            file.write(ROWS[0])
        assert rows_of(target) == ROWS[:1]

    def test_damage_longer_than_a_row_is_not_removed(self, tmp_path, suffix):
        target = written(tmp_path / f"s{suffix}")
        target.write_bytes(before := target.read_bytes() + b'"' + b"x" * (1 << 21))
        with pytest.raises(UsageError, match=r"is damaged from byte \d+ on"):
            RowFile.open(target, form_of(target))
        assert target.read_bytes() == before


WRITE_UNTIL_KILLED = """
import sys
from pathlib import Path
from msc_edge.runtime.results.fields import Field
from msc_edge.runtime.results.formats import format_of
from msc_edge.runtime.results.row_file import RowFile

path = Path(sys.argv[1])
number = Field(name="number", type="integer", description="", value=lambda each: each)
text = Field(name="text", type="text", description="", value=lambda each: 'a "line\\nend"' * 50)
with RowFile.create(path, format_of(path, (number, text))) as file:
    for each in range(10**7):
        file.write(each)
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_in_place_of_a_row_file_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "s.csv"
    os.mkfifo(pipe)
    form = form_of(pipe)
    for use in (
        lambda: RowFile.create(pipe, form, overwrite=True),
        lambda: RowFile.open(pipe, form),
        lambda: list(read_rows(pipe, form)),
    ):
        with pytest.raises(UsageError, match=r"s\.csv: is a named pipe.*pass another name"):
            use()


def test_kill_9_leaves_complete_rows(tmp_path):
    path = tmp_path / "s.csv"
    number: Field[int] = Field(name="number", type="integer", description="", value=lambda each: each)
    text: Field[int] = Field(name="text", type="text", description="", value=lambda _: 'a "line\nend"' * 50)
    with subprocess.Popen([sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)]) as process:
        while not path.exists() or path.stat().st_size < 50_000:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    form = format_of(path, (number, text))
    with RowFile.open(path, form) as file:
        numbers = [row["number"] for row in read_rows(path, form)]
        assert numbers == list(range(len(numbers)))
        file.write(len(numbers))
    assert [row["number"] for row in read_rows(path, form)] == [*numbers, len(numbers)]


@SUFFIXES
class TestOtherFiles:
    @pytest.mark.parametrize(
        "text",
        [
            "name,points\na,1\n",
            "path\n",
            "x",
            "\n",
            "{}\n",
            "\ufeffpath,points",
            "PNG\0",
            '{"name": 1}\n',
            "[1]\n",
            '"path\n',
            "x" * (1 << 17),
        ],
        ids=range(11),
    )
    def test_a_file_with_other_content_is_not_changed(self, tmp_path, suffix, text):
        target = tmp_path / f"s{suffix}"
        target.write_text(text, encoding="utf-8")
        before = target.read_bytes()
        for action in (RowFile.open, lambda path, form: list(read_rows(path, form)), end_of_rows):
            with pytest.raises(UsageError, match="not a row file of msc-edge"):
                action(target, form_of(target))
        assert target.read_bytes() == before

    def test_a_missing_file_cannot_be_read(self, tmp_path, suffix):
        with pytest.raises(UsageError, match="cannot be read: No such file or directory; check the path"):
            list(read_rows(tmp_path / f"s{suffix}", form_of(tmp_path / f"s{suffix}")))

    @pytest.mark.parametrize(("old", "new"), [("a.png", '"a".png'), ("1", "one"), ("a.png", "a.png, b")])
    def test_an_edited_row_is_named_by_its_number(self, tmp_path, suffix, old, new):
        if suffix == ".jsonl":
            new = new.replace(", b", '", "b')
        target = written(tmp_path / f"s{suffix}", [("b.png", 2), ("a.png", 1), ("c.png", 3)])
        target.write_bytes(target.read_bytes().replace(old.encode(), new.encode()))
        with pytest.raises(UsageError, match="row 2 is damaged or was edited"):
            list(read_rows(target, form_of(target)))


class TestOtherColumns:
    @pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl", "rows.csv", "rows.jsonl"])
    def test_files_of_0_1_0_are_recognised_and_not_changed(self, written_by_0_1_0, tmp_path, name):
        target = tmp_path / name
        target.write_bytes(before := (written_by_0_1_0 / name).read_bytes())
        for action in (RowFile.open, end_of_rows, lambda path, form: list(read_rows(path, form))):
            with pytest.raises(OtherColumnsError, match="another version wrote it"):
                action(target, score_file_format(target))
        assert target.read_bytes() == before

    def test_a_file_without_score_and_verdict_is_not_of_another_version(self, tmp_path):
        target = tmp_path / "s.csv"
        target.write_text("path,score,points\na.png,1,2\n")
        with pytest.raises(UsageError, match="not a row file") as refused:
            RowFile.open(target, score_file_format(target))
        assert not isinstance(refused.value, OtherColumnsError)

    def test_it_is_moved_aside_under_a_name_of_its_own(self, written_by_0_1_0, tmp_path):
        target = tmp_path / "scores.csv"
        before = (written_by_0_1_0 / "scores.csv").read_bytes()
        moved = set()
        for _ in range(3):
            target.write_bytes(before)
            moved.add(move_aside(target))
            assert not target.exists()
        assert {path.parent for path in moved} == {tmp_path}
        assert all(path.suffix == ".csv" and path.name.startswith("scores.") for path in moved)
        assert {path.read_bytes() for path in moved} == {before}
        assert len(moved) == len(list(tmp_path.iterdir())) == 3

    def test_a_file_that_cannot_be_renamed_is_an_output_error(self, tmp_path):
        with pytest.raises(OutputError, match=r"cannot write .*other-columns\.csv: No such file"):
            move_aside(tmp_path / "missing.csv")
