"""The score file: one row a picture, as CSV or as JSON lines, which a broken-off run can be continued in.

Both are UTF-8 with `\\n` line ends. Fields that a row does not have are empty in CSV and null in JSON lines. A byte of
a path that is not valid text is written as a backslash escape, so that any file name can be written down.

Each row goes to the file as soon as it is known, in one piece. So a run that ends early (power, `kill`, a full disk)
leaves whole rows and at most one half-written last line, which `ScoreTable.resume` removes.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO, Self, get_args

from msc_edge.calibration import Verdict
from msc_edge.errors import UnreadableImageError, UsageError, writing
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.folder import Row

COLUMNS = tuple(field.name for field in fields(Row))
_DECIMALS = {"score": 6, "p_value": 6, "milliseconds": 1}

# Half a unit of the last digit written, and as much again for the rounding of another machine's arithmetic.
_LAST_DIGIT = 2e-6
# Scores of one kit agree far better than this on any machine; those of two kits hardly ever do.
_SAME_KIT = 1e-5

_ANOTHER_KIT = (
    "the file was written with another kit, or with other limits. Continue with those, give another --out, "
    "or pass --overwrite to begin anew"
)


def path_as_written(path: str | Path) -> str:
    """A path as it stands in a score file: any string that the operating system gives becomes valid Unicode."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def csv_line(row: Row) -> str:
    """One row as a line of CSV (RFC 4180, but `\\n`), without its line end."""
    return ",".join(_quoted(_as_text(row, column)) for column in COLUMNS)


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
    if column in _DECIMALS:
        # Adding 0.0 makes 0 of -0.
        return f"{round(value, _DECIMALS[column]) + 0.0:.{_DECIMALS[column]}f}"
    return path_as_written(value)


def _quoted(text: str) -> str:
    # Not csv.writer: until Python 3.13 it left a lone carriage return unquoted, which ends a row for its reader.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


@dataclass(frozen=True)
class _Format:
    """How rows are written to one kind of file, and read from it."""

    header: bytes
    begins: bytes
    """What every file of this kind begins with."""
    line: Callable[[Row], str]
    lines: Callable[[BinaryIO], Iterator[bytes]]
    """Whole lines after the header, each with its line end; a half-written last one is left out."""
    values: Callable[[str], list[object]]
    """The fields of one line, in the order of COLUMNS."""


def _csv_lines(file: BinaryIO) -> Iterator[bytes]:
    record: list[bytes] = []
    quotes = 0
    for line in file:
        record.append(line)
        quotes += line.count(b'"')
        # A quoted field may hold line ends. Outside of it the number of quotes so far is even.
        if quotes % 2 == 0 and line.endswith(b"\n"):
            yield b"".join(record)
            record.clear()


def _json_lines(file: BinaryIO) -> Iterator[bytes]:
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
    ".csv": _Format(
        header=f"{CSV_HEADER}\n".encode(),
        begins=f"{CSV_HEADER}\n".encode(),
        line=csv_line,
        lines=_csv_lines,
        values=_csv_values,
    ),
    ".jsonl": _Format(
        header=b"",
        begins=f'{{"{COLUMNS[0]}": '.encode(),
        line=json_line,
        lines=_json_lines,
        values=_json_values,
    ),
}


def _format_of(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(_FORMATS)}") from None


def read_rows(path: str | Path) -> Iterator[Row]:
    """The whole rows of a score file, in its order; numbers have the digits that were written.

    Raises UsageError when the file is not a score file.
    """
    path = Path(path)
    for _, row in _rows_with_ends(path, _format_of(path)):
        yield row


def _rows_with_ends(path: Path, form: _Format) -> Iterator[tuple[int, Row]]:
    """Each whole row, with the position in the file where it ends."""
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


class ScoreTable:
    """A score file that is being written. Close it, or use it as a context manager."""

    def __init__(self, path: Path, form: _Format, file: io.FileIO, *, whole: int, already: set[str]) -> None:
        """Use ScoreTable.create or ScoreTable.resume."""
        self.path = path
        self.rows = len(already)
        """Rows in the file."""
        self._form = form
        self._file = file
        self._whole = whole  # bytes, up to the end of the last whole row
        self._already = already

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False) -> Self:
        """Begin a score file. UsageError when it exists and `overwrite` is not set, OutputError from the disk."""
        path = Path(path)
        form = _format_of(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("wb" if overwrite else "xb", buffering=0)
            except FileExistsError:
                raise UsageError(
                    f"{path} exists already; pass --resume to add the pictures that it lacks, "
                    "or --overwrite to begin anew"
                ) from None
        table = cls(path, form, file, whole=0, already=set())
        table._append(form.header)
        return table

    @classmethod
    def resume(cls, path: str | Path, detector: Detector, paths: Iterable[Path]) -> Self:
        """Continue a score file with what `missing` says, or begin it when there is none.

        Rows that are there must have been written with this kit and these limits: the first one whose picture is
        among `paths` is scored again, and the verdict of each is derived from its score again. UsageError when
        they differ, or when this is not a score file; the file is then as it was.
        """
        path = Path(path)
        form = _format_of(path)
        with writing(path):
            exists = path.exists()
        if not exists:
            return cls.create(path)
        pictures = {path_as_written(each): each for each in paths}
        whole, already, compared = len(form.header), set(), False
        for end, row in _rows_with_ends(path, form):
            whole = end
            already.add(row.path)
            if row.score is None:
                continue
            _check_judgement(path, row, detector)
            if not compared and row.path in pictures:
                compared = _check_score(path, row, detector, pictures[row.path])
        with writing(path):
            table = cls(path, form, path.open("r+b", buffering=0), whole=whole if already else 0, already=already)
            table._cut()
        if not already:  # the header itself may be half-written
            table._append(form.header)
        return table

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Those of `paths` that had no row when the file was opened; an unreadable picture's row counts."""
        return [path for path in paths if path_as_written(path) not in self._already]

    def write(self, row: Row) -> None:
        """Add a row. OutputError when it cannot be written; the file then ends with the row before."""
        self._append(f"{self._form.line(row)}\n".encode())
        self.rows += 1

    def _append(self, data: bytes) -> None:
        with writing(self.path):
            try:
                rest = memoryview(data)
                while rest:  # a disk that is filling up takes a part first
                    rest = rest[self._file.write(rest) :]
            except BaseException:  # Ctrl-C too
                with suppress(OSError):  # what is on a failing disk cannot be helped
                    self._cut()
                raise
        self._whole += len(data)

    def _cut(self) -> None:
        """End the file after its last whole row."""
        self._file.seek(self._whole)
        self._file.truncate()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_judgement(path: Path, row: Row, detector: Detector) -> None:
    """The written score, give or take its last digit, must lead to the written verdict and p-value."""
    score, p_value = row.score or 0.0, row.p_value or 0.0
    near = (score - _LAST_DIGIT, score, score + _LAST_DIGIT)
    verdicts = {detector.limits.verdict(each) for each in near}
    largest, _, least = (detector.calibration.p_value(each) for each in near)
    if row.verdict not in verdicts or not least - _LAST_DIGIT <= p_value <= largest + _LAST_DIGIT:
        raise UsageError(
            f"{path}: {row.path} has score {score:.6f}, p-value {p_value:.6f} and verdict {row.verdict}, and with "
            f"this kit and these limits it would be p-value {detector.calibration.p_value(score):.6f} and verdict "
            f"{detector.limits.verdict(score)}: {_ANOTHER_KIT}"
        )


def _check_score(path: Path, row: Row, detector: Detector, picture: Path) -> bool:
    """Whether the picture could be scored again. UsageError when its score is another one."""
    try:
        again = detector.score_file(picture).score
    except UnreadableImageError:
        return False
    if row.score is None or abs(again - row.score) > _SAME_KIT:
        raise UsageError(
            f"{path}: {row.path} has score {row.score:.6f}, and this kit gives {again:.6f}: {_ANOTHER_KIT}"
        )
    return True
