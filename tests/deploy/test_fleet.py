"""deploy/fleet: alert rules that Prometheus' own tool tests, and a dashboard, both of metrics that streams have."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from msc_edge.runtime.stream.sinks.metrics import Metrics

FLEET = Path(__file__).parents[2] / "deploy" / "fleet"


def loaded(name: str) -> Any:
    return YAML(typ="safe").load((FLEET / name).read_text(encoding="utf-8"))


def promtool(*arguments: str) -> str:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("needs promtool, of Debian's package prometheus")
    done = subprocess.run([tool, *arguments], cwd=FLEET, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_configuration_is_valid_with_its_rules() -> None:
    rules = len(loaded("alerts.yml")["groups"][0]["rules"])
    assert f"{rules} rules found" in promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_must_and_a_station_that_works_raises_none() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")
    rules = [each["alert"] for each in loaded("alerts.yml")["groups"][0]["rules"]]
    tests = loaded("alerts_test.yml")["tests"]
    assert [each["name"] for each in tests[1:]] == rules
    assert tests[0]["promql_expr_test"] == [{"expr": "ALERTS", "eval_time": "80m", "exp_samples": []}]


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """The labels of each series of a stream, by name; of all its stages, statuses and channels."""
    metrics = Metrics()
    metrics.add_source("cam")
    metrics.add_triggers(["scored"])
    metrics.set_backlog({"mqtt": 0}, {"mqtt": 0})
    metrics.set_drift("cam", 1.0)
    metrics.set_kits([("sha", "edge-small")])
    metrics._stages.labels("total").observe(0.1)
    metrics._last_frame.labels("cam").set(1)
    found: dict[str, set[str]] = {}
    for line in metrics.as_text().decode().splitlines():
        if found_here := re.match(r"(msc_edge_\w+)(?:\{(.*)\})? ", line):
            labels = set(re.findall(r"(\w+)=", found_here[2] or ""))
            found.setdefault(found_here[1], set()).update(labels)
    return found


def check_names(expression: str, series: dict[str, set[str]]) -> None:
    for name, selector in re.findall(r"(msc_edge_\w+)(?:\{([^}]*)\})?", expression):
        assert name in series, expression
        of_selector = set(re.findall(r"(\w+)(?:=|!=|=~)\"", selector))
        assert of_selector <= series[name] | {"station", "job"}, expression


def test_alerts_and_dashboard_name_series_that_streams_have(series: dict[str, set[str]]) -> None:
    rules = loaded("alerts.yml")["groups"][0]["rules"]
    panels = json.loads((FLEET / "dashboard.json").read_text())["panels"]
    expressions = [rule["expr"] for rule in rules] + [each["expr"] for panel in panels for each in panel["targets"]]
    assert len(expressions) > 25
    for expression in expressions:
        check_names(expression, series)


def test_every_series_is_in_the_dashboard_or_an_alert(series: dict[str, set[str]]) -> None:
    texts = (FLEET / "alerts.yml").read_text() + (FLEET / "dashboard.json").read_text()
    unused = {name for name in series if name not in texts and not name.endswith(("_count", "_sum"))}
    assert unused == {
        "msc_edge_events_total",  # each kind has a series of its own
        "msc_edge_frames_skipped_total",  # wanted by max_fps
        "msc_edge_trigger_answer_seconds_bucket",
    }


def test_grafana_reads_the_dashboard_without_an_unknown_field() -> None:
    """Through the types that Grafana publishes."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    own = json.loads((FLEET / "dashboard.json").read_text())
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(own)))
    assert lost(own, read) == []


def lost(own: Any, read: Any, path: str = "") -> list[str]:
    """The places whose values are missing or others in what was read."""
    if isinstance(own, dict) and isinstance(read, dict):
        return [
            place
            for key, value in own.items()
            for place in ([f"{path}/{key}"] if key not in read else lost(value, read[key], f"{path}/{key}"))
        ]
    if isinstance(own, list) and isinstance(read, list) and len(own) == len(read):
        pairs = enumerate(zip(own, read, strict=True))
        return [place for number, pair in pairs for place in lost(*pair, f"{path}/{number}")]
    return [] if own == read else [path]


def test_panels_do_not_overlap_and_each_says_what_it_shows() -> None:
    panels = json.loads((FLEET / "dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["description"].endswith(".")
    assert len({panel["id"] for panel in panels}) == len(panels)
