"""The score file: one row an image, in a file that a broken-off run can be continued in.

Each row goes to the file as soon as it is known, in one piece. So a run that ends early (power, `kill`, a full disk)
leaves whole rows and at most one half-written last line, which `ScoreTable.resume` removes.
"""

import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from msc_edge.errors import UnreadableImageError, UsageError, writing
from msc_edge.runtime.batch import Row
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.rows import RowFormat, format_of, path_as_written, rows_with_ends

# Half a unit of the last digit written, and as much again for the rounding of another machine's arithmetic.
_LAST_DIGIT = 2e-6
# Scores of one kit agree far better than this on any machine; those of two kits hardly ever do.
_SAME_KIT = 1e-5

_ANOTHER_KIT = (
    "the file was written with another kit, another model of it (--precision, --backend) or other limits. Continue with "
    "those, give another --out, or pass --overwrite to begin anew"
)


class ScoreTable:
    """A score file that is being written. Close it, or use it as a context manager."""

    def __init__(self, path: Path, form: RowFormat, file: io.FileIO, *, whole: int, already: set[str]) -> None:
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
        form = format_of(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("wb" if overwrite else "xb", buffering=0)
            except FileExistsError:
                raise UsageError(
                    f"{path} exists already; pass --resume to add the images that it lacks, "
                    "or --overwrite to begin anew"
                ) from None
        table = cls(path, form, file, whole=0, already=set())
        table._append(form.header)
        return table

    @classmethod
    def resume(cls, path: str | Path, detector: Detector, paths: Iterable[Path]) -> Self:
        """Continue a score file with what `missing` says, or begin it when there is none.

        Rows that are there must have been written with this kit and these limits: the first one whose image is
        among `paths` is scored again, and the verdict of each is derived from its score again. UsageError when
        they differ, or when this is not a score file; the file is then as it was.
        """
        path = Path(path)
        form = format_of(path)
        with writing(path):
            exists = path.exists()
        if not exists:
            return cls.create(path)
        images = {path_as_written(each): each for each in paths}
        whole, already, compared = len(form.header), set(), False
        for end, row in rows_with_ends(path, form):
            whole = end
            already.add(row.path)
            if row.score is None:
                continue
            _check_judgement(path, row, detector)
            if not compared and row.path in images:
                compared = _check_score(path, row, detector, images[row.path])
        with writing(path):
            table = cls(path, form, path.open("r+b", buffering=0), whole=whole if already else 0, already=already)
            table._cut()
        if not already:  # the header itself may be half-written
            table._append(form.header)
        return table

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Those of `paths` that had no row when the file was opened; an unreadable image's row counts."""
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


def _check_score(path: Path, row: Row, detector: Detector, image: Path) -> bool:
    """Whether the image could be scored again. UsageError when its score is another one."""
    try:
        again = detector.score_file(image).score
    except UnreadableImageError:
        return False
    if row.score is None or abs(again - row.score) > _SAME_KIT:
        raise UsageError(
            f"{path}: {row.path} has score {row.score:.6f}, and this kit gives {again:.6f}: {_ANOTHER_KIT}"
        )
    return True
