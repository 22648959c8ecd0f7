"""Records of what the stream has found: rejects and warnings, and counts of all frames."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msc_edge.errors import KitError, OutputError
from msc_edge.kit.container import read_file
from msc_edge.kit.layout import thumbnail_file
from msc_edge.runtime.stream.line.values import Outcome
from msc_edge.runtime.stream.page.snapshot import Counts, Finding, Snapshot
from msc_edge.runtime.stream.page.store import Store

_MOST_FINDINGS = 100_000  # without a mark; the oldest are removed beyond
_MOST_WAITING = 2000  # findings, while the disk takes none
_COUNTED_MINUTES = 400 * 24 * 60  # minutes until counts are removed
_BIN = 15
"""Minutes of one bar of the page."""


class Records:
    """Stores snapshots and counts. `add` is called by one thread, the rest by several."""

    def __init__(self, folder: Path) -> None:
        """Open the records in the state folder; see `Store`."""
        self.store = Store(folder)
        self.failure = ""
        """Why the last snapshot could not be stored; empty where it was."""
        self._findings: list[Finding] = []
        self._counts: Counts = {}

    def add(self, snapshot: Snapshot) -> None:
        """Store what is new. On a full disk it waits in memory, and is stored with a later snapshot."""
        self._findings += snapshot.recent.findings
        for key, outcomes in (snapshot.recent.counts or {}).items():
            counts = self._counts.setdefault(key, {})
            for outcome, count in outcomes.items():
                counts[outcome] = counts.get(outcome, 0) + count
        if not self._findings and not self._counts:
            return
        try:
            self._store()
        except OutputError as error:
            self.failure = str(error)
            del self._findings[:-_MOST_WAITING]
        else:
            self.failure, self._findings, self._counts = "", [], {}

    def _store(self) -> None:
        with self.store.transaction(durable=False) as database:
            for finding in self._findings:
                database.execute(_INSERT, _row(finding))
                self._store_thumbnail(database, finding)
            database.executemany(
                "INSERT INTO counts VALUES (?, ?, ?, ?) "
                "ON CONFLICT (minute, source, outcome) DO UPDATE SET count = count + excluded.count",
                [
                    (minute, source, outcome, count)
                    for (source, minute), outcomes in self._counts.items()
                    for outcome, count in outcomes.items()
                ],
            )
            if self._findings:
                database.execute(
                    "DELETE FROM findings WHERE mark IS NULL AND number <= (SELECT max(number) FROM findings) - ?",
                    (_MOST_FINDINGS,),
                )
                database.execute("DELETE FROM counts WHERE minute < ?", (int(time.time() // 60) - _COUNTED_MINUTES,))

    def _store_thumbnail(self, database: Any, finding: Finding) -> None:
        """Keep the nearest normal image: the kit may be replaced while the finding is looked at."""
        facts = finding.facts
        if facts is None or facts.thumbnail is None:
            return
        key = finding.kit, finding.nearest[0].row
        if database.execute("SELECT 1 FROM thumbnails WHERE kit = ? AND row = ?", key).fetchone():
            return
        with suppress(KitError):  # it was replaced in this moment
            jpeg = read_file(facts.path, thumbnail_file(key[1]), facts.thumbnail)
            database.execute("INSERT INTO thumbnails VALUES (?, ?, ?)", (*key, jpeg))

    def thumbnail(self, kit: str, row: int) -> bytes | None:
        """JPEG of a normal image; None where it is not kept."""
        with self.store.reading() as database:
            found = database.execute("SELECT jpeg FROM thumbnails WHERE kit = ? AND row = ?", (kit, row)).fetchone()
        return found[0] if found else None

    def counts(self, since: float, until: float) -> Sequence[Mapping[str, Any]]:
        """Frames in a time, in seconds since 1970, by quarter of an hour from `since`: its start, source and counts."""
        first = int(since // 60)
        with self.store.reading() as database:
            rows = database.execute(
                "SELECT (minute - ?) / ? AS bin, source, outcome, sum(count) FROM counts "
                "WHERE minute >= ? AND minute < ? GROUP BY bin, source, outcome ORDER BY bin, source",
                (first, _BIN, first, int(until // 60) + 1),
            ).fetchall()
        bins: dict[tuple[int, str], dict[Outcome, int]] = {}
        for place, source, outcome, count in rows:
            bins.setdefault((place, source), {})[outcome] = count
        return [
            {"time": 60 * (first + _BIN * place), "source": source, **outcomes}
            for (place, source), outcomes in bins.items()
        ]

    def close(self) -> None:
        """Close the file."""
        self.store.close()


_COLUMNS = (
    *("id", "source", "frame", "time", "verdict", "score", "limit_score", "image_score", "patch_score", "p_value"),
    *("decided_by", "is_least_p_value", "calibration_images", "independent", "regions", "nearest", "model", "kit"),
    *("height", "width", "image", "path"),
)
_INSERT = f"INSERT OR IGNORE INTO findings ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def _row(finding: Finding) -> tuple[Any, ...]:
    facts = finding.facts
    return (
        finding.id,
        finding.source,
        finding.frame,
        finding.time,
        finding.verdict,
        finding.score,
        finding.limit,
        finding.image_score,
        finding.patch_score,
        finding.p_value,
        facts.decided_by if facts else None,
        int(facts.is_least_p_value) if facts else 0,
        facts.calibration_images if facts else None,
        facts.independent if facts else None,
        json.dumps([asdict(region) for region in finding.regions]),
        json.dumps([asdict(each) for each in finding.nearest]),
        finding.model,
        finding.kit,
        finding.height,
        finding.width,
        finding.image,
        finding.path,
    )
