import logging
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from msc_edge.runtime.stream.sources.outage import Outage, OutageLog, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (86400, "24 h"), (190_000, "2 d")],
)
def test_a_duration_has_the_unit_that_matters(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_outage_says_how_long_since_when_and_why() -> None:
    since = datetime.now().astimezone() - timedelta(days=2, seconds=5)
    outage = Outage("lost", "no route to host", time.monotonic() - 2 * 86400 - 5, since)
    assert str(outage) == f"lost for 2 d, since {since:%Y-%m-%d %H:%M:%S}: no route to host"
    assert str(Outage("connecting")).startswith("connecting for 0 s, since ")


@pytest.mark.parametrize("step", [0, -7200])
def test_since_when_is_the_time_of_the_last_frame(step: float) -> None:
    outage = Outage.since_monotonic(time.monotonic() + step)
    assert abs((datetime.now().astimezone() - outage.since).total_seconds() + step) < 60
    assert outage.short() == f"lost for {duration(-step)}"


def test_an_outage_is_logged_at_each_new_reason_and_once_an_hour(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "msc_edge.stream")
    now = time.monotonic()
    clock = [now]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = OutageLog("left: rtsp://***@host/a")
    outage = Outage("connecting", started=now - 1)
    log.report(outage)
    assert caplog.text == "", "the reason is not known yet"
    # Reasons that alternate, three times a second, for three hours
    for second in range(3 * 3600):
        clock[0] = now + second
        for reason in ("refused", "no answer in time"):
            log.report(replace(outage, reason=reason))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 6
    assert lines[0].startswith("left: rtsp://***@host/a: refused; connecting for 1 s, since ")
    assert "; connecting for 2 h, since " in lines[-1]
    log.clear()
    log.report(replace(outage, reason="refused"))
    assert len(caplog.records) == 7, "a new outage"
