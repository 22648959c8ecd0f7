"""What each step measured: metrics.csv, and the same for TensorBoard."""

import csv
import logging
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Generic, Self, TypeVar

from torch.utils.tensorboard import SummaryWriter

from msc_edge.errors import KitError, writing

METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class MetricsRow:
    """One row of metrics.csv. The same run gives the same rows: nothing here depends on the clock."""

    step: int
    loss: float


@dataclass(frozen=True)
class StepMetrics(MetricsRow):
    """A step of fine-tuning."""

    mean_pairwise_cosine: float
    effective_rank: float


Row = TypeVar("Row", bound=MetricsRow)


class MetricsLog(Generic[Row]):
    """Appends rows of one kind to metrics.csv and to TensorBoard's log, each as it comes.

    `keep_steps`: rows up to this step, of a run that was broken off, stay; later ones, which the resumed run will
    compute again, are removed; `kept` has those that stayed. With `enabled=False`, on all ranks but the first, it
    does nothing.
    """

    def __init__(self, folder: Path, row: type[Row], *, keep_steps: int, enabled: bool = True) -> None:
        self._path = folder / METRICS
        self._row = row
        self._columns = [field.name for field in fields(row)]
        self._keep_steps = keep_steps
        self._enabled = enabled
        self._file: IO[str] | None = None
        self._board: SummaryWriter | None = None
        self.kept: list[Row] = []

    def __enter__(self) -> Self:
        if self._enabled:
            with writing(self._path):
                self.kept = [row for row in read_metrics(self._path, self._row) if row.step <= self._keep_steps]
                self._file = self._path.open("w", newline="", encoding="utf-8")
                csv.writer(self._file, lineterminator="\n").writerow(self._columns)
                self._board = SummaryWriter(str(self._path.parent / TENSORBOARD), purge_step=self._keep_steps + 1)
            for row in self.kept:
                self._write(row)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file and self._board:
            self._file.close()
            self._board.close()

    def add(self, metrics: Row) -> None:
        """Write one step."""
        if self._board:
            self._write(metrics)
            for name in self._columns[1:]:
                self._board.add_scalar(f"train/{name}", getattr(metrics, name), metrics.step)

    def warn(self, sentence: str) -> None:
        """OnEvent the user something that the figures show."""
        if self._enabled:
            logging.getLogger("msc_edge").warning(sentence)

    def flush(self) -> None:
        """Put on disk what was written."""
        if self._file and self._board:
            self._file.flush()
            self._board.flush()

    def _write(self, metrics: Row) -> None:
        with writing(self._path):
            csv.writer(self._file, lineterminator="\n").writerow(astuple(metrics))  # pyright: ignore[reportArgumentType]
            self._file.flush()  # pyright: ignore[reportOptionalMemberAccess]


def read_metrics(path: Path, row: type[Row]) -> list[Row]:
    """The whole rows of metrics.csv; a half-written last one, of a killed run, is left out. KitError when damaged."""
    if not path.is_file():
        return []
    figures = [field.name for field in fields(row)][1:]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
        whole = [read for read in rows if None not in read.values()]
        return [row(int(read["step"]), *(float(read[name]) for name in figures)) for read in whole]
    except (ValueError, KeyError, csv.Error) as error:  # not text, not numbers, other columns, not a table
        raise KitError(
            f"{path}: is damaged ({type(error).__name__}: {error}); move it away, and the run goes on without it"
        ) from error
