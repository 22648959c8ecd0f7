"""Findings and counts: stored once, in their quarter of an hour, and kept while the disk is full."""

import time
from pathlib import Path

from msc_edge.runtime.results.result import NearestImage
from msc_edge.runtime.stream.page import records as module
from msc_edge.runtime.stream.page.gallery import Filter, Gallery
from msc_edge.runtime.stream.page.records import Records
from msc_edge.runtime.stream.page.snapshot import Counts, Finding, Recent, Snapshot, StationStatus

STATUS = StationStatus("line-3", 0.0, (), (), (), ())


def finding(id: str, path: str | None = None) -> Finding:
    return Finding(
        id=id,
        source="a",
        frame=0,
        time=time.time(),
        verdict="reject",
        score=2.0,
        limit=1.0,
        image_score=2.0,
        patch_score=None,
        p_value=None,
        regions=(),
        nearest=(NearestImage(0, "n.png", 0.5),),
        model="fp32",
        kit="kit",
        height=1,
        width=1,
        image=None,
        path=path,
        facts=None,
    )


def snapshot(*findings: Finding, counts: Counts | None = None) -> Snapshot:
    return Snapshot(STATUS, Recent(counts=counts, findings=findings))


def stored(records: Records) -> list[str]:
    return [each["id"] for each in Gallery(records.store).find(Filter())]


def test_a_finding_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for _ in range(2):
        records.add(snapshot(finding("1"), finding("2")))
    assert stored(records) == ["2", "1"]
    records.close()


def test_counts_are_added_and_given_by_quarters_of_an_hour(tmp_path: Path) -> None:
    records, since = Records(tmp_path), 60 * (int(time.time() // 60) - 60)
    minute = since // 60
    for _ in range(2):
        records.add(snapshot(counts={("a", minute): {"normal": 3}, ("a", minute + 14): {"reject": 1}}))
    records.add(snapshot(counts={("a", minute + 15): {"warn": 1}, ("b", minute - 1): {"normal": 9}}))
    assert records.counts(since, time.time()) == [
        {"time": since, "source": "a", "normal": 6, "reject": 2},
        {"time": since + 900, "source": "a", "warn": 1},
    ]
    records.close()


def test_the_oldest_without_a_mark_are_removed_beyond_the_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_FINDINGS", 3)
    records = Records(tmp_path)
    records.add(snapshot(finding("marked")))
    with records.store.transaction(durable=False) as database:
        database.execute("UPDATE findings SET mark = 'false_alarm'")
    for number in range(5):
        records.add(snapshot(finding(str(number))))
    assert stored(records) == ["4", "3", "2", "marked"]
    records.close()


def test_on_a_full_disk_findings_wait_and_are_stored_later(small_disk: Path, fill) -> None:
    records = Records(small_disk)
    records.add(snapshot(finding("before")))
    ballast = fill(small_disk)
    for number in range(40):
        records.add(snapshot(finding(str(number), path=1000 * "x"), counts={("a", number): {"reject": 1}}))
    assert "free some space there" in records.failure
    assert stored(records)[-1] == "before"
    ballast.unlink()
    records.add(snapshot(finding("after")))
    assert records.failure == ""
    assert len(stored(records)) == 42
    assert stored(records)[0] == "after"
    records.close()
