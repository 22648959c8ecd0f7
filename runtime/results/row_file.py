"""An append-only file of rows that stays whole after `kill -9`, a power cut or a full disk.

Each row goes to the file in one piece as soon as it is known. A process that dies leaves complete rows and at most one
incomplete last row, which the next opening removes.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from msc_edge.errors import OtherColumnsError, UsageError, writing
from msc_edge.runtime.results.formats import RowFormat

Record = TypeVar("Record")

_MAX_ROW_BYTES = 1 << 20  # a row has a few paths, of at most 4096 characters each, and a reason
_RESULT_COLUMNS = {"score", "verdict"}  # columns that every version of msc-edge has written
_MOMENT = "%Y-%m-%dT%H-%M-%S-%f"  # to the microsecond: a later file must not replace an earlier one


class RowFile(Generic[Record]):
    """A row file open for appending. Close it, or use it as a context manager. Used by one thread at a time."""

    def __init__(self, path: Path, form: RowFormat[Record], file: io.FileIO, end: int) -> None:
        """Use RowFile.create or RowFile.open."""
        self.path = path
        self._form = form
        self._file = file
        self._end = end  # position after the last complete row

    @classmethod
    def create(cls, path: Path, form: RowFormat[Record], *, overwrite: bool = False) -> Self:
        """Create the file and write its header.

        UsageError when the file exists and `overwrite` is not set, OutputError when it cannot be written.
        """
        _refuse_pipes(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("wb" if overwrite else "xb", buffering=0)
            except FileExistsError:
                raise UsageError(
                    f"{path} exists already; pass --resume to add the missing images, or --overwrite to replace it"
                ) from None
            created = cls(path, form, file, 0)
            try:
                created._append(form.header)
            except BaseException:
                file.close()
                raise
        return created

    @classmethod
    def open(cls, path: Path, form: RowFormat[Record]) -> Self:
        """Open an existing file, or create an empty one, and remove an incomplete last row.

        The header of a new file is written with its first row. Raises OtherColumnsError, UsageError when the file
        is not a row file (it stays as it is), OutputError when it cannot be written.
        """
        _refuse_pipes(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
            try:
                end = end_of_rows(path, form)
                if file.seek(0, os.SEEK_END) > end:
                    file.truncate(end)
            except BaseException:
                file.close()
                raise
        return cls(path, form, file, end)

    @property
    def size(self) -> int:
        """Bytes of complete rows, the header included."""
        return self._end

    @property
    def has_rows(self) -> bool:
        """Whether the file has a row."""
        return self._end > len(self._form.header)

    def is_in_place(self) -> bool:
        """Whether the file is still open and still the one under its path: it may be moved, or its disk removed."""
        with suppress(OSError, ValueError):  # ValueError: it was closed
            return os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        return False

    def write(self, record: Record, *, durable: bool = False) -> None:
        """Append a row; with `durable` it is on disk when this returns.

        OutputError when it cannot be written: the file then ends with the row before, and the next row can be written.
        """
        self.write_encoded(self._form.encode(record), durable=durable)

    def write_encoded(self, row: bytes, *, durable: bool = False) -> None:
        """The same for a row that the format has encoded already."""
        with writing(self.path):
            self._append(row if self._end else self._form.header + row)
            if durable:
                os.fsync(self._file.fileno())

    def _append(self, data: bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:  # a disk that is almost full takes a part first
                rest = rest[self._file.write(rest) :]
        except BaseException:  # Ctrl-C too
            try:
                self._file.truncate(self._end)
                self._file.seek(self._end)
            except OSError:
                self._file.close()  # `is_in_place` is false from now on, and the next opening removes the rest
            raise
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_of_rows(path: Path, form: RowFormat[Any]) -> int:
    """The position in a file after its last complete row; 0 for an empty file.

    Raises OtherColumnsError, UsageError when the file is not a row file, OSError from the disk.
    """
    with path.open("rb") as file:
        _check_beginning(path, form, file)
        end = 0
        for line in form.lines(file):
            end += len(line)
        file.seek(end)
        rest = file.read(_MAX_ROW_BYTES + 1).rstrip(b"\0")  # after a power cut unwritten bytes may be zeros
    # A stray quote makes all rows after it look like one incomplete row: they must not be removed.
    if len(rest) > _MAX_ROW_BYTES or any(_is_row(line, form) for line in rest.splitlines(keepends=True)[1:]):
        raise _not_a_row_file(path, f"is damaged from byte {end} on")
    return end


def read_rows(path: Path, form: RowFormat[Any]) -> Iterator[dict[str, Any]]:
    """The complete rows of a file, in its order; numbers have the digits that were written.

    Raises OtherColumnsError, and UsageError when the file cannot be read, is not a row file or was edited.
    """
    _refuse_pipes(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    with file:
        _check_beginning(path, form, file)
        file.seek(len(form.header))
        for number, line in enumerate(form.lines(file), start=1):
            try:
                yield form.decode(line)
            except ValueError as error:
                raise UsageError(
                    f"{path}: row {number} is damaged or was edited ({error}); pass another --out, or --overwrite to "
                    "replace the file"
                ) from error


def move_aside(path: Path) -> Path:
    """Rename a row file that has other columns, beside itself, and return its new path. OutputError from the disk."""
    moment = datetime.now(UTC).strftime(_MOMENT)
    aside = path.with_name(f"{path.stem}.{moment}.other-columns{path.suffix}")
    with writing(aside):
        path.rename(aside)
    return aside


def _refuse_pipes(path: Path) -> None:
    """UsageError for a named pipe: opening one waits for another program, and what it held cannot be read again."""
    with suppress(OSError, ValueError):  # reported when it is opened
        if stat.S_ISFIFO(path.stat().st_mode):
            raise UsageError(f"{path}: is a named pipe, and rows need a regular file; pass another name")


def _check_beginning(path: Path, form: RowFormat[Any], file: io.BufferedReader) -> None:
    """Check the header, or the first row where the format has no header; leaves the file at its beginning."""
    # Limited: an arbitrary file may have one line of many gigabytes.
    first = file.readline(_MAX_ROW_BYTES)
    file.seek(0)
    if not first.endswith(b"\n"):
        # No complete line: empty, or the process died within the header or the first row.
        begin = file.read(len(form.first_bytes)).rstrip(b"\0")
        file.seek(0)
        if form.first_bytes.startswith(begin) and not (form.header == b"" and _is_other_record(first, form)):
            return
        raise _not_a_row_file(path, f"does not begin with {form.first_bytes.decode().strip()}")
    try:
        columns = form.columns(first)
    except ValueError:
        columns = ()
    if columns == form.names and first.startswith(form.first_bytes):  # not with the line ends of another program
        return
    if columns != form.names and set(columns) >= _RESULT_COLUMNS:
        raise OtherColumnsError(
            f"{path}: has other columns than this msc-edge writes; another version wrote it. Move it away, or pass "
            "another name"
        )
    raise _not_a_row_file(path, f"does not begin with {form.first_bytes.decode().strip()}")


def _is_row(line: bytes, form: RowFormat[Any]) -> bool:
    try:
        form.decode(line)
    except ValueError:
        return False
    return line.endswith(b"\n")


def _is_other_record(line: bytes, form: RowFormat[Any]) -> bool:
    """Whether a line without its line end is a record of another program, and not the incomplete one of a row."""
    try:
        return form.columns(line) != form.names
    except ValueError:
        return False


def _not_a_row_file(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path}: not a row file of msc-edge: it {reason}; pass another name, or move the file away")
