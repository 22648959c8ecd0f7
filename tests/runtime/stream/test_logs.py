import io
import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from msc_edge.runtime.stream.logs import LOG, FailureLog, log_to

ESC = "\x1b"


@pytest.fixture
def text() -> io.StringIO:
    out = io.StringIO()
    log_to(logging.StreamHandler(out), "text")
    return out


@pytest.fixture
def lines() -> Any:
    """The log as JSON, one object per line."""
    out = io.StringIO()
    log_to(logging.StreamHandler(out), "json")
    return lambda: [json.loads(line) for line in out.getvalue().split("\n")[:-1]]


def moment_in(shown: str) -> datetime:
    assert shown.endswith("Z")
    return datetime.fromisoformat(shown)


def test_a_text_line_has_time_level_and_message(text: io.StringIO) -> None:
    LOG.warning("%s: no frame for %d s", "cam1", 20)
    moment, level, message = text.getvalue().split(maxsplit=2)
    assert abs(moment_in(moment) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (level, message) == ("warning", "cam1: no frame for 20 s\n")


def test_text_lines_have_columns(text: io.StringIO) -> None:
    LOG.info("MARK")
    LOG.warning("MARK")
    LOG.error("MARK")
    assert len({line.index("MARK") for line in text.getvalue().splitlines()}) == 1


@pytest.mark.parametrize(
    "value", ["a\nb", f"{ESC}[31mred{ESC}[0m", "a\rb", "a\0b", "\u2028", "\u202egnp.exe", "a\x85b", "tab\there"]
)
def test_no_value_can_break_or_colour_a_line(text: io.StringIO, value: str) -> None:
    """Names of files and messages of servers come from outside."""
    LOG.error("the file %s is unreadable", value)
    (line,) = text.getvalue().split("\n")[:-1]
    assert line.isprintable()
    assert line.endswith("is unreadable")


def test_other_scripts_are_unchanged(text: io.StringIO) -> None:
    LOG.info("größer 写真")
    assert "größer 写真" in text.getvalue()


def test_a_json_line_is_one_object(lines: Any) -> None:
    LOG.warning("%s: no frame", "cam1")
    LOG.info('größer "写真"\n\x1b[31m\u2028')
    first, second = lines()
    assert set(first) == {"time", "level", "message"}
    assert abs(moment_in(first["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (first["level"], first["message"]) == ("warning", "cam1: no frame")
    assert second["message"] == 'größer "写真"\n\x1b[31m\u2028'


def test_fields_are_beside_the_message(lines: Any) -> None:
    LOG.info("rejected", extra={"fields": {"kind": "reject", "score": 0.25, "id": "an-id"}})
    (entry,) = lines()
    assert entry["message"] == "rejected"
    assert (entry["kind"], entry["score"], entry["id"]) == ("reject", 0.25, "an-id")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_logged_with_its_traceback(form: Any) -> None:
    out = io.StringIO()
    log_to(logging.StreamHandler(out), form)
    try:
        raise ZeroDivisionError("the cause")
    except ZeroDivisionError:
        LOG.exception("internal error")
    logged = out.getvalue()
    if form == "json":
        (line,) = logged.splitlines()
        logged = json.loads(line)["traceback"]
    assert "Traceback" in logged
    assert "test_logs.py" in logged
    assert "ZeroDivisionError: the cause" in logged


def test_a_warning_of_the_rest_of_msc_edge_has_the_form_of_the_log_too(lines: Any) -> None:
    """For example that a threshold is far above the scores: a log collector must not meet a bare line."""
    logging.getLogger("msc_edge").warning("threshold %g is far above the scores", 9.0)
    (line,) = lines()
    assert (line["level"], line["message"]) == ("warning", "threshold 9 is far above the scores")


def test_debug_messages_are_omitted(text: io.StringIO) -> None:
    LOG.debug("a detail")
    LOG.info("a fact")
    assert "a detail" not in text.getvalue()
    assert "a fact" in text.getvalue()


def test_the_log_goes_to_the_last_handler_only(text: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    other = io.StringIO()
    log_to(logging.StreamHandler(other), "text")
    LOG.info("only there")
    assert (text.getvalue(), other.getvalue().count("only there")) == ("", 1)
    assert caplog.records == [], "not to the handlers of the root logger too"


def test_a_handler_of_the_streams_log_gets_no_messages_of_the_rest(text: io.StringIO) -> None:
    added = io.StringIO()
    LOG.addHandler(logging.StreamHandler(added))
    logging.getLogger("msc_edge").warning("of the rest")
    assert ("of the rest" in text.getvalue(), added.getvalue()) == (True, "")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_that_is_not_utf8_can_be_logged(form: str, tmp_path: Path) -> None:
    """To the standard error of a service: a pipe, in any locale."""
    code = (
        "import sys; from msc_edge.runtime.stream.logs import *; log_to(standard_error(), sys.argv[1]);"
        "LOG.info('%s is there', b'teil \\xff.png'.decode('utf-8', 'surrogateescape')); LOG.info('gr\\xf6\\xdfer')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, form],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    first, second = done.stderr.decode("ascii").splitlines()
    assert "teil" in first
    assert "is there" in first
    if form == "json":
        assert json.loads(first)["message"].startswith("teil ")
        assert json.loads(second)["message"] == "größer"
    else:
        assert "gr\\xf6" in second


def messages_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_failure_is_logged_once_until_recovery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LOG.name)
    failures = FailureLog("works again", level=logging.WARNING)
    failures.recovered()
    assert not failures.failing
    for _ in range(3):
        for message in ("full", "away"):
            failures.report_failure(message)
    assert failures.failing
    for _ in range(3):
        failures.recovered()
    assert not failures.failing
    failures.report_failure("full")
    assert messages_of(caplog) == [
        ("WARNING", "full"),
        ("WARNING", "away"),
        ("INFO", "works again"),
        ("WARNING", "full"),
    ]


def test_a_failure_that_several_threads_report_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog("works again")
    threads = [threading.Thread(target=lambda: [failures.report_failure("full") for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert messages_of(caplog) == [("ERROR", "full")]
