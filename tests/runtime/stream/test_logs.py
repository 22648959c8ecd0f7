import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from msc_edge.runtime.stream.logs import LOG, log_to

ESC = "\x1b"


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    before = LOG.handlers, LOG.level, LOG.propagate
    yield
    LOG.handlers, LOG.level, LOG.propagate = before


@pytest.fixture
def text() -> io.StringIO:
    out = io.StringIO()
    log_to(logging.StreamHandler(out), "text")
    return out


@pytest.fixture
def lines() -> Any:
    """What was logged as JSON, one object a line."""
    out = io.StringIO()
    log_to(logging.StreamHandler(out), "json")
    return lambda: [json.loads(line) for line in out.getvalue().split("\n")[:-1]]


def moment_in(shown: str) -> datetime:
    assert shown.endswith("Z")
    return datetime.fromisoformat(shown)


def test_a_line_for_people_has_time_level_and_words(text: io.StringIO) -> None:
    LOG.warning("%s: no frame for %d s", "cam1", 20)
    moment, level, words = text.getvalue().split(maxsplit=2)
    assert abs(moment_in(moment) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (level, words) == ("warning", "cam1: no frame for 20 s\n")


def test_lines_for_people_stand_in_columns(text: io.StringIO) -> None:
    LOG.info("MARK")
    LOG.warning("MARK")
    LOG.error("MARK")
    assert len({line.index("MARK") for line in text.getvalue().splitlines()}) == 1


@pytest.mark.parametrize(
    "told", ["a\nb", f"{ESC}[31mred{ESC}[0m", "a\rb", "a\0b", "\u2028", "\u202egnp.exe", "a\x85b", "tab\there"]
)
def test_nothing_that_is_told_can_break_or_colour_a_line(text: io.StringIO, told: str) -> None:
    """Names of files and words of servers come from outside."""
    LOG.error("the file is named %s and that is all", told)
    (line,) = text.getvalue().split("\n")[:-1]
    assert line.isprintable()
    assert line.endswith("and that is all")


def test_other_scripts_are_left_as_they_are(text: io.StringIO) -> None:
    LOG.info("größer 写真")
    assert "größer 写真" in text.getvalue()


def test_a_line_for_machines_is_one_object(lines: Any) -> None:
    LOG.warning("%s: no frame", "cam1")
    LOG.info('größer "写真"\n\x1b[31m\u2028')
    first, second = lines()
    assert set(first) == {"time", "level", "message"}
    assert abs(moment_in(first["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (first["level"], first["message"]) == ("warning", "cam1: no frame")
    assert second["message"] == 'größer "写真"\n\x1b[31m\u2028'


def test_fields_stand_beside_the_message(lines: Any) -> None:
    LOG.info("rejected", extra={"fields": {"kind": "reject", "score": 0.25, "id": "an-id"}})
    (entry,) = lines()
    assert entry["message"] == "rejected"
    assert (entry["kind"], entry["score"], entry["id"]) == ("reject", 0.25, "an-id")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_defect_leaves_its_traceback(form: Any) -> None:
    out = io.StringIO()
    log_to(logging.StreamHandler(out), form)
    try:
        raise ZeroDivisionError("what was wrong")
    except ZeroDivisionError:
        LOG.exception("a defect")
    logged = out.getvalue()
    if form == "json":
        (line,) = logged.splitlines()
        logged = json.loads(line)["traceback"]
    assert "Traceback" in logged
    assert "test_logs.py" in logged
    assert "ZeroDivisionError: what was wrong" in logged


def test_details_for_developers_are_left_out(text: io.StringIO) -> None:
    LOG.debug("a detail")
    LOG.info("a fact")
    assert "a detail" not in text.getvalue()
    assert "a fact" in text.getvalue()


def test_the_log_goes_to_the_handler_that_was_given_last_and_nowhere_else(
    text: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    other = io.StringIO()
    log_to(logging.StreamHandler(other), "text")
    LOG.info("only there")
    assert (text.getvalue(), other.getvalue().count("only there")) == ("", 1)
    assert caplog.records == [], "not to the root's handlers: a line would be there twice"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_that_is_not_utf8_does_not_stop_the_log(form: str, tmp_path: Path) -> None:
    """Written to a real standard error, as a service's is: a pipe, in whatever locale."""
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
