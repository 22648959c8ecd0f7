import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.runtime.stream.control import answer, request_reload, take_requests

TIMEOUT = 30.0


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Act as the stream with this state folder: take requests on a thread, and answer them."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(*, loaded: bool, message: str, before: Callable[[], None] = lambda: None) -> list[str]:
        taken: list[str] = []

        def serve() -> None:
            while not stop.wait(0.01):
                for request in take_requests(tmp_path, "reload"):
                    taken.append(request)
                    before()
                    answer(tmp_path, request, done=loaded, message=message)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return taken

    yield start
    stop.set()
    for thread in threads:
        thread.join(TIMEOUT)


@pytest.mark.parametrize(
    ("loaded", "message", "exception"),
    [
        (True, "/srv/kits/bottles is active", None),
        (False, "the previous kit remains active: größer than 'α' \U0001f600", KitError),
    ],
)
def test_a_request_gets_the_message_of_the_stream(
    tmp_path: Path, answering: Callable[..., list[str]], loaded: bool, message: str, exception: type[Exception] | None
) -> None:
    taken = answering(loaded=loaded, message=message)
    if exception is None:
        assert request_reload(tmp_path, timeout=TIMEOUT) == message
    else:
        with pytest.raises(exception) as caught:
            request_reload(tmp_path, timeout=TIMEOUT)
        assert str(caught.value) == message
    assert len(taken) == 1
    assert list(tmp_path.iterdir()) == []


def test_simultaneous_requests_are_answered_each(tmp_path: Path, answering: Callable[..., list[str]]) -> None:
    taken = answering(loaded=True, message="active", before=lambda: time.sleep(0.02))
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(request_reload(tmp_path, timeout=TIMEOUT))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert answers == ["active"] * 8
    assert len(set(taken)) == 8, "each request has its own id"


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "reload-an-id.request").touch()
    assert take_requests(tmp_path, "config") == []
    assert take_requests(tmp_path, "reload") == ["reload-an-id"]
    assert take_requests(tmp_path, "reload") == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_the_name_of_a_request_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "reload-an-id.request").mkdir()
    assert take_requests(tmp_path, "reload") == []
    assert take_requests(tmp_path / "none", "reload") == []


def test_without_a_stream_the_request_is_withdrawn(tmp_path: Path) -> None:
    """Otherwise the next stream would reload its kit without need."""
    with pytest.raises(UsageError, match=f"{tmp_path}: no stream answered in 0.2 s; is a stream running"):
        request_reload(tmp_path, timeout=0.2)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such state folder; give the `state` or the --config"):
        request_reload(tmp_path / "none", timeout=3600)
    assert not (tmp_path / "none").exists()


def test_an_answer_is_complete_or_absent(tmp_path: Path) -> None:
    """The process that requested a reload may read it at any time."""
    message = "x" * 100_000
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            answer(tmp_path, "reload-an-id", done=True, message=message)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    read = 0
    try:
        deadline = time.monotonic() + TIMEOUT
        while read < 100 and time.monotonic() < deadline:
            if (tmp_path / "reload-an-id.answer").exists():
                read += json.loads((tmp_path / "reload-an-id.answer").read_text(encoding="utf-8"))["message"] == message
    finally:
        stop.set()
        thread.join(TIMEOUT)
    assert read == 100


def test_an_answer_of_a_stream_that_was_started_before_the_upgrade_is_understood(tmp_path: Path) -> None:
    """0.1.0 answers with "words"."""

    def answer_as_0_1_0(_: float) -> None:
        for request in take_requests(tmp_path, "reload"):
            (tmp_path / f"{request}.answer").write_text('{"loaded": true, "words": "the kit was loaded"}')

    assert request_reload(tmp_path, timeout=TIMEOUT, wait=answer_as_0_1_0) == "the kit was loaded"
