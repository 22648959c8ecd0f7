"""A whole stream whose rows are on a disk that is full."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from msc_edge.runtime.stream.state import State


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_scoring_goes_on_while_the_disk_of_the_rows_is_full_and_a_stop_that_loses_rows_fails(
    stream: Callable,
    in_process: Callable,
    server: Any,
    until: Callable,
    rows_of: Callable,
    small_disk: Path,
    fill: Callable,
    toy: ModuleType,
    save: Callable,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    folder, rows, port = tmp_path / "in", small_disk / "rows.jsonl", free_port()
    folder.mkdir()
    server.start()
    url = f"http://127.0.0.1:{port}"
    running = stream(folder, "--jsonl", rows, "--webhook", server.url, "--http", str(port))
    running.wait_for("source_up")
    ballast = fill(small_disk)
    for number in range(4):
        save(folder / f"{number}.png", toy.draw(200 + number, "scratch"))
    running.wait_for("reject", 4)
    until(lambda: {entry["id"] for entry in running.entries("reject")} <= set(server.accepted()), "alarms arrive")
    until(lambda: "rows wait in memory: cannot write" in get(f"{url}/readyz"), "it is not ready")
    until(lambda: "msc_edge_rows_waiting 4.0" in get(f"{url}/metrics"), "they are counted")
    assert rows_of(rows) == []
    ballast.unlink()
    until(lambda: len(rows_of(rows)) == 4, "they are written")
    assert [row["id"] for row in rows_of(rows)] == [entry["id"] for entry in running.entries("reject")]
    until(lambda: "ready" in get(f"{url}/readyz").splitlines(), "it is ready")

    ballast = fill(small_disk)
    for number in range(4, 24):  # the first ones fit into the last page of the file
        save(folder / f"{number}.png", toy.draw(200 + number, "scratch"))
    running.wait_for("reject", 24)
    assert running.stop() == 5
    written = rows_of(rows)
    lost = 24 - len(written)
    assert lost > 0
    assert running.entries("results_lost")[-1]["count"] == lost
    last = running.log.read_text(encoding="utf-8").splitlines()[-1]
    assert last.startswith(
        f"error: {lost} rows are lost: cannot write {rows}: No space left on device; free some space"
    )
    with State.open(tmp_path / "state") as state:
        assert len(state.processed_files(str(folder))) == len(written)
    ballast.unlink()
    again = in_process(folder, results={"jsonl": str(rows)}, webhook={"url": server.url})
    until(lambda: len(rows_of(rows)) == 24, "the others are scored again")
    assert again.stop()
    assert {row["id"] for row in rows_of(rows)} == {entry["id"] for entry in running.entries("reject")}
    bodies = [json.loads(request.body) for request in server.requests]
    assert {body["kind"] for body in bodies} >= {"started", "reject", "results_lost", "stopped"}
