import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.runtime.stream.control import answer, request_reload, take_requests

PATIENCE = 30.0


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Be the stream that works in `tmp_path`: take requests on a thread, and answer them so."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(*, loaded: bool, words: str, after: Callable[[], None] = lambda: None) -> list[str]:
        taken: list[str] = []

        def serve() -> None:
            while not stop.wait(0.01):
                for asked in take_requests(tmp_path):
                    taken.append(asked)
                    after()
                    answer(tmp_path, asked, loaded=loaded, words=words)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return taken

    yield start
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("loaded", "words", "exception"),
    [
        (True, "/srv/kits/bottles is in force", None),
        (False, "the kit before stays in force: größer than 'α' \U0001f600", KitError),
    ],
)
def test_the_stream_is_asked_and_its_sentence_comes_back(
    tmp_path: Path, answering: Callable[..., list[str]], loaded: bool, words: str, exception: type[Exception] | None
) -> None:
    taken = answering(loaded=loaded, words=words)
    if exception is None:
        assert request_reload(tmp_path, timeout=PATIENCE) == words
    else:
        with pytest.raises(exception) as caught:
            request_reload(tmp_path, timeout=PATIENCE)
        assert str(caught.value) == words
    assert len(taken) == 1, "and once"
    assert list(tmp_path.iterdir()) == []


def test_one_asks_after_the_other(tmp_path: Path, answering: Callable[..., list[str]]) -> None:
    taken = answering(loaded=True, words="in force")
    assert [request_reload(tmp_path, timeout=PATIENCE) for _ in range(3)] == ["in force"] * 3
    assert len(set(taken)) == 3, "each request has an id of its own"


def test_several_may_ask_at_once_and_each_is_answered(tmp_path: Path, answering: Callable[..., list[str]]) -> None:
    taken = answering(loaded=True, words="in force", after=lambda: time.sleep(0.05))
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: said.append(request_reload(tmp_path, timeout=PATIENCE))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert said == ["in force"] * 8
    assert len(set(taken)) == 8


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "reload-an-id.request").touch()
    assert take_requests(tmp_path) == ["an-id"]
    assert take_requests(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_request_is_none(tmp_path: Path) -> None:
    (tmp_path / "reload-an-id.request").mkdir()
    assert take_requests(tmp_path) == []
    assert take_requests(tmp_path / "none") == []


def test_where_no_stream_runs_it_is_said_and_no_request_stays_behind(tmp_path: Path) -> None:
    """One that stayed would make the next stream load its kit for nobody."""
    with pytest.raises(UsageError, match=f"{tmp_path}: no stream answered in 0.3 s; is one running"):
        request_reload(tmp_path, timeout=0.3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such state folder; give the `state` or the --config"):
        request_reload(tmp_path / "none", timeout=3600)
    assert not (tmp_path / "none").exists()


def test_an_answer_is_whole_or_absent(tmp_path: Path) -> None:
    """Whoever waits for it reads it at any moment."""
    words = "x" * 100_000
    stop = threading.Event()

    def write_on() -> None:
        while not stop.is_set():
            answer(tmp_path, "an-id", loaded=True, words=words)

    thread = threading.Thread(target=write_on, daemon=True)
    thread.start()
    read = 0
    try:
        end = time.monotonic() + PATIENCE
        while read < 200 and time.monotonic() < end:
            if (tmp_path / "reload-an-id.answer").exists():
                read += json.loads((tmp_path / "reload-an-id.answer").read_text(encoding="utf-8"))["words"] == words
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert read == 200


@pytest.mark.parametrize(
    ("loaded", "code", "where"),
    [(True, 0, "stdout"), (False, 4, "stderr")],
)
def test_the_command_tells_by_its_exit_code(
    tmp_path: Path, answering: Callable[..., list[str]], loaded: bool, code: int, where: str
) -> None:
    answering(loaded=loaded, words="what the stream says")
    done = subprocess.run(
        [sys.executable, "-m", "msc_edge", "reload", "--state", tmp_path, "--timeout", "30"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == code
    assert "what the stream says" in getattr(done, where)


def test_the_command_tells_that_nobody_is_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "msc_edge", "reload", "--state", tmp_path, "--timeout", "0.2"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "no stream answered" in done.stderr
