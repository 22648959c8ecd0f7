"""The metrics of each training step, in metrics.csv and for TensorBoard."""

import csv
import logging
from dataclasses import MISSING, Field, astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar, get_args

from torch.utils.tensorboard import SummaryWriter

from msc_edge.errors import KitError, writing
from msc_edge.train.run_folder import METRICS, TENSORBOARD


@dataclass(frozen=True)
class MetricsRow:
    """One row of metrics.csv. It contains no times, so equal runs write equal rows."""

    step: int


@dataclass(frozen=True)
class StepMetrics(MetricsRow):
    """The metrics of one step of fine-tuning. Step 0 is the frozen backbone: it has a row if it was evaluated."""

    loss: float | None
    mean_pairwise_cosine: float | None
    effective_rank: float | None
    """None at step 0, as the two above."""
    auroc: float | None = None
    """Of checkpoint selection, on synthetic anomalies; None for a step that was not evaluated, as the two below."""
    auroc_error: float | None = None
    """Standard error of the difference from the best checkpoint before this one."""
    selected: int | None = None
    """1 if this step became the best checkpoint, else 0. The last step with 1 gives the weights of the run."""


Row = TypeVar("Row", bound=MetricsRow)


class MetricsLog(Generic[Row]):
    """Appends rows to metrics.csv and to the TensorBoard log; each row is written immediately.

    `keep_steps`: a resumed run keeps the rows up to this step, in `restored`, and removes later ones, because it
    computes them again. `enabled=False`, on all ranks but the first, turns every method into a no-op.
    """

    def __init__(self, folder: Path, row: type[Row], *, keep_steps: int, enabled: bool = True) -> None:
        self._path = folder / METRICS
        self._row = row
        self._columns = [field.name for field in fields(row)]
        self._keep_steps = keep_steps
        self._enabled = enabled
        self._file: IO[str] | None = None
        self._board: SummaryWriter | None = None
        self.restored: list[Row] = []

    def __enter__(self) -> Self:
        if self._enabled:
            with writing(self._path):
                rows = read_metrics(self._path, self._row) if self._keep_steps else []
                self.restored = [row for row in rows if row.step <= self._keep_steps]
                self._file = self._path.open("w", newline="", encoding="utf-8")
                csv.writer(self._file, lineterminator="\n").writerow(self._columns)
                first = self._keep_steps + 1 if self._keep_steps else 0  # the first step that is computed again
                self._board = SummaryWriter(str(self._path.parent / TENSORBOARD), purge_step=first)
            for row in self.restored:
                self._write(row)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file and self._board:
            self._file.close()
            self._board.close()

    def add(self, metrics: Row) -> None:
        """Write the metrics of one step."""
        if self._board:
            self._write(metrics)
            for name in self._columns[1:]:
                if (value := getattr(metrics, name)) is not None:
                    self._board.add_scalar(f"train/{name}", value, metrics.step)

    def warn(self, message: str) -> None:
        """Log a warning about the metrics."""
        if self._enabled:
            logging.getLogger("msc_edge").warning(message)

    def flush(self) -> None:
        """Flush both logs to disk."""
        if self._file and self._board:
            self._file.flush()
            self._board.flush()

    def _write(self, metrics: Row) -> None:
        with writing(self._path):
            csv.writer(self._file, lineterminator="\n").writerow(astuple(metrics))  # pyright: ignore[reportArgumentType]
            self._file.flush()  # pyright: ignore[reportOptionalMemberAccess]


def read_metrics(path: Path, row: type[Row]) -> list[Row]:
    """Read metrics.csv; no rows if there is no file. An incomplete last row, of a killed run, is skipped.

    A file of an older version lacks the columns that have defaults. Raises KitError for a damaged file.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        complete = [read for read in rows if None not in read.values()]
        return [row(**{field.name: _value(field, read) for field in fields(row)}) for read in complete]
    except (ValueError, KeyError, csv.Error) as error:  # not text, not numbers, other columns, not a table
        raise KitError(
            f"{path}: is damaged ({type(error).__name__}: {error}); move it away, then resume without it"
        ) from error


def _value(field: Field, read: dict[str, str]) -> Any:
    """The value of a field in a row that was read. KeyError without its column, ValueError for another text."""
    types = get_args(field.type) or (field.type,)
    text = read.get(field.name, "") if field.default is not MISSING else read[field.name]
    if not text and type(None) in types:
        return None
    return int(text) if int in types else float(text)
