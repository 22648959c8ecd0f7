"""Attempts are counted across processes that ended, and for the same content of a file only."""

from pathlib import Path

import pytest

from msc_edge.runtime.stream.frame import ProcessedFile
from msc_edge.runtime.stream.sources import attempts as module
from msc_edge.runtime.stream.sources.attempts import Attempts


def file(name: bytes = b"part.jpg", size: int = 10, modified: int = 5) -> ProcessedFile:
    return ProcessedFile("/in", name, size, modified)


def test_each_process_that_ended_counts_once_until_the_file_is_not_worked_on_any_more(tmp_path: Path) -> None:
    for earlier in (0, 1, 2, 2, 2):
        attempts = Attempts(tmp_path, "/in")
        assert [attempts.begin(file()), attempts.begin(file())] == [earlier, earlier]


@pytest.mark.parametrize("other", [file(b"other.jpg"), file(size=11), file(modified=6)])
def test_another_file_or_content_starts_at_zero(tmp_path: Path, other: ProcessedFile) -> None:
    Attempts(tmp_path, "/in").begin(file())
    attempts = Attempts(tmp_path, "/in")
    assert attempts.begin(other) == 0
    attempts.end()
    assert attempts.begin(file()) == 1, "others that are worked on first do not clear it"
    attempts.end()
    assert list(tmp_path.iterdir()) == [], "nothing is remembered of files that were worked on to the end"


def test_an_end_in_order_does_not_count(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, "/in")
    attempts.begin(file())
    attempts.end()
    attempts.end()
    assert Attempts(tmp_path, "/in").begin(file()) == 0


def test_a_stop_on_request_counts_only_where_the_work_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow model may need longer than the time that a stop waits for it."""
    attempts = Attempts(tmp_path, "/in")
    attempts.begin(file())
    attempts.close()
    attempts.begin(file(b"next.jpg"))  # the loop of the source runs to its end meanwhile
    attempts = Attempts(tmp_path, "/in")
    assert [attempts.begin(file()), attempts.begin(file(b"next.jpg"))] == [0, 0]
    monkeypatch.setattr(module, "_HANGS_AFTER", 0.0)
    attempts.close()
    assert Attempts(tmp_path, "/in").begin(file(b"next.jpg")) == 1


def test_an_internal_error_counts_although_the_process_stops_in_order_after_it(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, "/in")
    attempts.begin(file())
    attempts.abort()
    attempts.end()
    attempts.close()
    assert Attempts(tmp_path, "/in").begin(file()) == 1


def test_sources_do_not_disturb_each_other(tmp_path: Path) -> None:
    Attempts(tmp_path, "/in").begin(file())
    Attempts(tmp_path, "/other").begin(file(b"other.jpg"))
    assert Attempts(tmp_path, "/in").begin(file()) == 1


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"{}", b"\xff", b'{"working": 3, "ended": []}', b'{"working": ["a", 1], "ended": [["x"]]}'),
        *(b"[" * 100_000, b'{"working": null, "ended": [[["61", 1, 2], Infinity]]}'),
    ],
)
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: bytes) -> None:
    Attempts(tmp_path, "/in").begin(file())
    (record,) = tmp_path.iterdir()
    record.write_bytes(content)
    assert Attempts(tmp_path, "/in").begin(file()) == 0


def test_a_state_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    attempts = Attempts(tmp_path / "state", "/in")
    assert attempts.begin(file()) == 0
