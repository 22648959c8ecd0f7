"""The rejects and warnings of the page: what was found, filtered, and in which order."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.page.store import Store

PAGE_SIZE = 48
_VERDICTS = ("", "reject", "warn")
_MARKS = ("", "none", "false_alarm", "defect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which findings to show; empty: all. UsageError for values that are none."""

    source: str = ""
    verdict: str = ""
    mark: str = ""
    """`none`: those without a mark."""
    since: float | None = None
    until: float | None = None
    """Of the capture, seconds since 1970."""

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS or self.mark not in _MARKS:
            raise UsageError("the filter of the gallery is not one that the page makes; remove it from the address")

    @property
    def query(self) -> dict[str, str]:
        """The parameters of an address with this filter."""
        given = {"source": self.source, "verdict": self.verdict, "mark": self.mark}
        times = {"since": self.since, "until": self.until}
        return {name: text for name, text in given.items() if text} | {
            name: f"{value:.0f}" for name, value in times.items() if value is not None
        }

    def condition(self) -> tuple[str, list[Any]]:
        """As a condition of SQL, and its values."""
        parts, values = ["1"], []
        for column, value in (("source", self.source), ("verdict", self.verdict)):
            if value:
                parts.append(f"{column} = ?")
                values.append(value)
        if self.mark == "none":
            parts.append("mark IS NULL")
        elif self.mark:
            parts.append("mark = ?")
            values.append(self.mark)
        for sign, value in ((">=", self.since), ("<", self.until)):
            if value is not None:
                parts.append(f"time {sign} ?")
                values.append(value)
        return " AND ".join(parts), values


class Gallery:
    """Reads findings. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, wanted: Filter, *, before: int | None = None, count: int = PAGE_SIZE) -> Sequence[dict[str, Any]]:
        """The latest findings, those with a number below `before` if it is given; the newest first."""
        condition, values = wanted.condition()
        if before is not None:
            condition, values = f"{condition} AND number < ?", [*values, before]
        with self._store.reading() as database:
            rows = database.execute(
                f"SELECT * FROM findings WHERE {condition} ORDER BY number DESC LIMIT ?", (*values, count)
            ).fetchall()
        return [_finding(row) for row in rows]

    def count(self, wanted: Filter) -> int:
        """How many there are."""
        condition, values = wanted.condition()
        with self._store.reading() as database:
            return database.execute(f"SELECT count(*) FROM findings WHERE {condition}", values).fetchone()[0]

    def get(self, number: int) -> dict[str, Any] | None:
        """One finding; None where there is none of this number."""
        with self._store.reading() as database:
            row = database.execute("SELECT * FROM findings WHERE number = ?", (number,)).fetchone()
        return _finding(row) if row else None

    def beside(self, number: int, wanted: Filter, direction: Literal["newer", "older"]) -> int | None:
        """The number of the next newer or older finding; None for the last one."""
        condition, values = wanted.condition()
        sign, function = (">", "min") if direction == "newer" else ("<", "max")
        with self._store.reading() as database:
            return database.execute(
                f"SELECT {function}(number) FROM findings WHERE {condition} AND number {sign} ?", (*values, number)
            ).fetchone()[0]

    def sources(self) -> list[str]:
        """The names of all sources that have a finding."""
        with self._store.reading() as database:
            return [name for (name,) in database.execute("SELECT DISTINCT source FROM findings ORDER BY source")]


def _finding(row: Any) -> dict[str, Any]:
    found = dict(row)
    return found | {"regions": json.loads(found["regions"]), "nearest": json.loads(found["nearest"])}
