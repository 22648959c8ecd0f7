"""How a scored image is written down, as CSV or as JSON lines, and read again.

Both are UTF-8 with `\\n` line ends. Fields that a row does not have are empty in CSV and null in JSON lines. A byte of
a path that is not valid text is written as a backslash escape, so that any file name can be written down.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO, get_args

from msc_edge.calibration import Verdict
from msc_edge.errors import UsageError
from msc_edge.runtime.batch import Row
from msc_edge.text import valid_text

COLUMNS = tuple(field.name for field in fields(Row))
_DECIMALS = {"score": 6, "p_value": 6, "milliseconds": 1}


def path_as_written(path: str | Path) -> str:
    """A path as it stands in a score file: valid Unicode, and the same one whatever locale the process runs in."""
    return valid_text(str(path))


def csv_line(row: Row) -> str:
    """One row as a line of CSV (RFC 4180, but `\\n`), without its line end."""
    return ",".join(quoted(_as_text(row, column)) for column in COLUMNS)


def json_line(row: Row) -> str:
    """One row as a JSON object in one line, without its line end."""
    values = {
        column: (float(text) if column in _DECIMALS else text) if (text := _as_text(row, column)) else None
        for column in COLUMNS
    }
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


CSV_HEADER = ",".join(COLUMNS)


def _as_text(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return ""
    return rounded(value, _DECIMALS[column]) if column in _DECIMALS else path_as_written(value)


def rounded(value: float, decimals: int) -> str:
    """A number as it stands in a row, with so many decimals; zero has no sign."""
    # Adding 0.0 makes 0 of -0.
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def quoted(text: str) -> str:
    """A field of CSV, in quotes where it needs them."""
    # Not csv.writer: until Python 3.13 it left a lone carriage return unquoted, which ends a row for its reader.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


@dataclass(frozen=True)
class RowFormat:
    """How rows are written to one kind of file, and read from it."""

    header: bytes
    begins: bytes
    """What every file of this kind begins with."""
    line: Callable[[Row], str]
    lines: Callable[[BinaryIO], Iterator[bytes]]
    """Whole lines after the header, each with its line end; a half-written last one is left out."""
    values: Callable[[str], list[object]]
    """The fields of one line, in the order of COLUMNS."""


def csv_lines(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines of CSV, each with its line end; a half-written last one is left out."""
    record: list[bytes] = []
    quotes = 0
    for line in file:
        record.append(line)
        quotes += line.count(b'"')
        # A quoted field may hold line ends. Outside of it the number of quotes so far is even.
        if quotes % 2 == 0 and line.endswith(b"\n"):
            yield b"".join(record)
            record.clear()


def json_lines(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines of JSON lines, each with its line end; a half-written last one is left out."""
    return (line for line in file if line.endswith(b"\n"))


def _csv_values(line: str) -> list[object]:
    (texts,) = csv.reader(io.StringIO(line, newline=""), strict=True)
    if len(texts) != len(COLUMNS):
        raise ValueError(f"{len(texts)} fields")
    return [
        (float(text) if column in _DECIMALS else text) if text else None
        for column, text in zip(COLUMNS, texts, strict=True)
    ]


def _json_values(line: str) -> list[object]:
    document = json.loads(line)
    if not isinstance(document, dict) or tuple(document) != COLUMNS:
        raise ValueError("other names")
    return list(document.values())


_FORMATS = {
    ".csv": RowFormat(
        header=f"{CSV_HEADER}\n".encode(),
        begins=f"{CSV_HEADER}\n".encode(),
        line=csv_line,
        lines=csv_lines,
        values=_csv_values,
    ),
    ".jsonl": RowFormat(
        header=b"",
        begins=f'{{"{COLUMNS[0]}": '.encode(),
        line=json_line,
        lines=json_lines,
        values=_json_values,
    ),
}


def format_of(path: Path) -> RowFormat:
    """The format that the suffix of a path chooses. UsageError for any other suffix."""
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(_FORMATS)}") from None


def read_rows(path: str | Path) -> Iterator[Row]:
    """The whole rows of a score file, in its order; numbers have the digits that were written.

    Raises UsageError when the file is not a score file.
    """
    path = Path(path)
    for _, row in rows_with_ends(path, format_of(path)):
        yield row


def rows_with_ends(path: Path, form: RowFormat) -> Iterator[tuple[int, Row]]:
    """Each whole row, with the position in the file where it ends; see read_rows."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        begin = file.read(len(form.begins))
        if not form.begins.startswith(begin):
            raise UsageError(
                f"{path}: this is not a score file: it does not begin with {form.begins.decode().strip()}; "
                "give another --out, or pass --overwrite to replace it"
            )
        if begin != form.begins:  # cut off before the first row
            return
        end = file.seek(len(form.header))
        for number, line in enumerate(form.lines(file), start=1):
            end += len(line)
            try:
                row = _row(form.values(line.decode()))
            except (ValueError, TypeError, csv.Error) as error:
                raise UsageError(
                    f"{path}: row {number} is not as msc-edge writes it ({error}); was the file edited? "
                    "Give another --out, or pass --overwrite to replace it"
                ) from error
            yield end, row


def _row(values: list[object]) -> Row:
    row = Row(*values)  # pyright: ignore[reportArgumentType]  (checked below)
    numbers, words = (row.score, row.p_value, row.milliseconds), (row.verdict, row.nearest)
    if not isinstance(row.path, str) or not all(isinstance(text, str | None) for text in (row.nearest, row.error)):
        raise ValueError("a field that should be text is not")
    if row.error is None:
        if not all(isinstance(number, float) for number in numbers) or row.verdict not in get_args(Verdict):
            raise ValueError("no score")
    elif any(value is not None for value in (*numbers, *words)):
        raise ValueError("a score and an error")
    return row
