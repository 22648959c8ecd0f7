"""The metrics of each training step, in metrics.csv and for TensorBoard."""

import csv
import logging
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Generic, Self, TypeVar

from torch.utils.tensorboard import SummaryWriter

from msc_edge.errors import KitError, writing
from msc_edge.train.run_folder import METRICS, TENSORBOARD


@dataclass(frozen=True)
class MetricsRow:
    """One row of metrics.csv. It contains no times, so equal runs write equal rows."""

    step: int
    loss: float


@dataclass(frozen=True)
class StepMetrics(MetricsRow):
    """The metrics of one step of fine-tuning."""

    mean_pairwise_cosine: float
    effective_rank: float


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
                self.restored = [row for row in read_metrics(self._path, self._row) if row.step <= self._keep_steps]
                self._file = self._path.open("w", newline="", encoding="utf-8")
                csv.writer(self._file, lineterminator="\n").writerow(self._columns)
                self._board = SummaryWriter(str(self._path.parent / TENSORBOARD), purge_step=self._keep_steps + 1)
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
                self._board.add_scalar(f"train/{name}", getattr(metrics, name), metrics.step)

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

    Raises KitError for a damaged file.
    """
    if not path.is_file():
        return []
    names = [field.name for field in fields(row)][1:]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        complete = [read for read in rows if None not in read.values()]
        return [row(int(read["step"]), *(float(read[name]) for name in names)) for read in complete]
    except (ValueError, KeyError, csv.Error) as error:  # not text, not numbers, other columns, not a table
        raise KitError(
            f"{path}: is damaged ({type(error).__name__}: {error}); move it away, then resume without it"
        ) from error
