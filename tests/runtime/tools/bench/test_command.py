"""`msc-edge bench` in this process."""

import json
import re

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.runtime.tools.bench import suite
from msc_edge.runtime.tools.bench.measure import Start
from msc_edge.runtime.tools.bench.suite import Bench


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "measure_start", lambda *_, threads: Start("fp32", threads, 0.1, 0.2, 0.3, None))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_json_holds_the_whole_bench(toy_kit, images):
    done = run(toy_kit, "--images", images[0].parent, "--threads", 1, "--seconds", 0.1, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert set(data) == set(Bench.__dataclass_fields__)
    assert data["files"][0]["unreadable"] == 2
    assert len(data["throughput"]) == 1


def test_tables_are_printed_and_count_the_measured_files(toy_kit, images, tmp_path):
    for number in range(1000):
        (tmp_path / f"{number}.png").symlink_to(images[0])
    done = run(toy_kit, "--images", tmp_path, "--threads", 1, "--seconds", 0.1)
    assert re.search(r"1000 image files, \d+ of them measured, one by one", done.stdout), done.stdout


def test_without_threads_one_to_all_cores_are_measured(toy_kit, monkeypatch):
    monkeypatch.setattr("msc_edge.runtime.processor.usable_cores", lambda: 6)
    data = json.loads(run(toy_kit, "--seconds", 0.1, "--json").stdout)
    assert [each["threads"] for each in data["throughput"]] == [1, 2, 4, 6]
    assert [each["threads"] for each in data["starts"]] == [1, 6]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["none"], 4, "cannot be opened"),
        (["KIT", "--images", "EMPTY"], 3, "no images found"),
        (["KIT", "--threads", "0"], 2, "--threads"),
        (["KIT", "--seconds", "0"], 2, "--seconds"),
    ],
)
def test_a_request_that_cannot_be_met(toy_kit, tmp_path, arguments, code, reason):
    places = {"KIT": toy_kit, "EMPTY": tmp_path}
    done = run(*(places.get(each, each) for each in arguments))
    assert (done.exit_code, reason in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
