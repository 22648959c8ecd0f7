import sqlite3
from pathlib import Path

import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.stream.page.store import FILE, Store


def test_the_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match=r"page\.sqlite: written by a newer msc-edge \(version 99 .* up to 1"):
        Store(tmp_path)


def test_a_file_that_is_no_database_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError, match="move the file away for an empty gallery"):
        Store(tmp_path)


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def interrupted() -> None:
        with store.transaction(durable=True) as database:
            database.execute("INSERT INTO counts VALUES (1, 'a', 'normal', 1)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with pytest.raises(OutputError, match="cannot be written"), store.transaction(durable=True) as database:
        database.execute("INSERT INTO counts VALUES (1, 'a', 'normal', 'text')")
    with store.reading() as database:
        assert database.execute("SELECT count(*) FROM counts").fetchone()[0] == 0
    store.close()
