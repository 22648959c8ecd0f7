"""Row files: CSV and JSON lines, both derived from the fields of a record.

Both are UTF-8 with `\\n` line ends. A value that a record does not have is empty in CSV and null in JSON lines. Bytes
of a path that are not valid text become backslash escapes, so every file name can be written. Texts that a spreadsheet
would take for a formula, and control characters, are written harmlessly (`msc_edge.text`), and are read as they were.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from msc_edge.errors import UsageError
from msc_edge.runtime.results.fields import Field
from msc_edge.text import csv_cell, csv_text, harmless_json, strict_json, valid_text

Record = TypeVar("Record")
Record_contra = TypeVar("Record_contra", contravariant=True)


class RowFormat(Protocol[Record_contra]):
    """How records become lines of a file, and lines become values again."""

    names: tuple[str, ...]
    """The names of the columns."""
    header: bytes
    """The first line of a file; empty where the format has none."""
    first_bytes: bytes
    """What every file with these columns begins with."""

    def encode(self, record: Record_contra) -> bytes:
        """One record as a line with its line end."""
        ...

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """The complete lines of an open file, each with its line end; an incomplete last line is left out."""
        ...

    def decode(self, line: bytes) -> dict[str, Any]:
        """The values of a complete line, by name. ValueError when it is not a row with these columns."""
        ...

    def columns(self, line: bytes) -> tuple[str, ...]:
        """The column names that the first line of a file states. ValueError when it states none."""
        ...


class CsvFormat(Generic[Record]):
    """RFC 4180 with `\\n` line ends and a header line."""

    def __init__(self, fields: Sequence[Field[Record]]) -> None:
        self._fields = tuple(fields)
        self.names = tuple(field.name for field in fields)
        self.header = f"{','.join(self.names)}\n".encode()
        self.first_bytes = self.header

    def encode(self, record: Record) -> bytes:
        """See RowFormat."""
        return f"{','.join(_quoted(_text(field, record)) for field in self._fields)}\n".encode()

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """See RowFormat."""
        record: list[bytes] = []
        quotes = 0
        for line in file:
            record.append(line)
            quotes += line.count(b'"')
            # A quoted field may hold line ends. Outside of a quoted field the number of quotes so far is even.
            if quotes % 2 == 0 and line.endswith(b"\n"):
                yield b"".join(record)
                record.clear()

    def decode(self, line: bytes) -> dict[str, Any]:
        """See RowFormat."""
        texts = _csv_texts(line)
        if len(texts) != len(self._fields):
            raise ValueError(f"{len(texts)} columns instead of {len(self._fields)}")
        return {
            field.name: _parsed(field, text) if text else None for field, text in zip(self._fields, texts, strict=True)
        }

    def columns(self, line: bytes) -> tuple[str, ...]:
        """See RowFormat."""
        return tuple(_csv_texts(line))


class JsonLinesFormat(Generic[Record]):
    """One JSON object a line, with the fields in their order."""

    def __init__(self, fields: Sequence[Field[Record]]) -> None:
        self._fields = tuple(fields)
        self.names = tuple(field.name for field in fields)
        self.header = b""
        self.first_bytes = f'{{"{self.names[0]}": '.encode()

    def encode(self, record: Record) -> bytes:
        """See RowFormat."""
        values = json_values(self._fields, record)
        return f"{harmless_json(json.dumps(values, ensure_ascii=False, allow_nan=False))}\n".encode()

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """See RowFormat."""
        return (line for line in file if line.endswith(b"\n"))

    def decode(self, line: bytes) -> dict[str, Any]:
        """See RowFormat."""
        values = _json_object(line)
        if tuple(values) != self.names:
            raise ValueError("other columns")
        for field in self._fields:
            _check(field, values[field.name])
        return values

    def columns(self, line: bytes) -> tuple[str, ...]:
        """See RowFormat."""
        return tuple(_json_object(line))


_FORMATS = {".csv": CsvFormat, ".jsonl": JsonLinesFormat}


def format_of(path: Path, fields: Sequence[Field[Record]]) -> RowFormat[Record]:
    """The format that the suffix of a path selects. UsageError for any other suffix."""
    try:
        return _FORMATS[path.suffix.lower()](fields)
    except KeyError:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(_FORMATS)}") from None


def json_values(fields: Sequence[Field[Record]], record: Record) -> dict[str, Any]:
    """The values of a record by name, as a line of JSON holds them: numbers have the digits of rows."""
    return {field.name: _json_value(field, record) for field in fields}


def path_as_written(path: str | Path) -> str:
    """A path as rows hold it: valid Unicode, the same one under every locale."""
    return valid_text(str(path))


def rounded(value: float, decimals: int) -> str:
    """A number as rows hold it, with `decimals` digits after the point; zero has no sign."""
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def _text(field: Field[Record], record: Record) -> str:
    value = field.value(record)
    if value is None:
        return ""
    if field.type == "objects":
        return harmless_json(json.dumps(_valid(value), ensure_ascii=False, allow_nan=False))
    if field.decimals is not None:
        return rounded(value, field.decimals)
    return csv_cell(valid_text(str(value))) if field.type == "text" else str(value)


def _json_value(field: Field[Record], record: Record) -> object:
    value = field.value(record)
    if value is None or field.type == "integer":
        return value
    if field.type == "objects":
        return _valid(value)
    return float(rounded(value, field.decimals)) if field.decimals is not None else valid_text(str(value))


def _valid(value: Any) -> Any:
    """A JSON value whose texts are valid Unicode."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, Mapping):
        return {key: _valid(each) for key, each in value.items()}
    return [_valid(each) for each in value] if isinstance(value, list | tuple) else value


def _quoted(text: str) -> str:
    # Not csv.writer: until Python 3.13 it leaves a lone carriage return unquoted, which ends a row for its reader.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _csv_texts(line: bytes) -> list[str]:
    try:
        (texts,) = csv.reader(io.StringIO(line.decode(), newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return texts


def _json_object(line: bytes) -> dict[str, Any]:
    document = strict_json(line)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


_PARSERS: dict[str, Callable[[str], Any]] = {"text": csv_text, "integer": int, "number": float, "objects": strict_json}


def _parsed(field: Field[Any], text: str) -> Any:
    value = _PARSERS[field.type](text)
    _check(field, value)
    return value


def _check(field: Field[Any], value: object) -> None:
    """ValueError for a value of another type, or one that is not among the choices of its field."""
    types: dict[str, tuple[type, ...]] = {"text": (str,), "integer": (int,), "number": (float, int), "objects": (list,)}
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, types[field.type]):
        raise ValueError(f"{field.name} is not of type {field.type}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{field.name} is {value}")
    if field.choices and value not in field.choices:
        raise ValueError(f"{field.name} is {value!r:.40}, expected one of {', '.join(field.choices)}")
