import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.train.one_vs_rest.protocol import ProtocolOptions


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", "one-vs-rest", *map(str, arguments)])


@pytest.fixture
def given(data: Path, options: ProtocolOptions) -> list[object]:
    return [
        *("--train", data / "train", "--test", data / "test", "--backbone", options.backbone),
        *(
            "--weights",
            options.weights,
            "--stop-at",
            options.stop_at,
            "--image-size",
            32,
            "--classes",
            "red",
            "--accelerator",
            "cpu",
        ),
    ]


def test_the_options_are_used_and_the_table_is_printed(given: list[object], tmp_path: Path) -> None:
    done = run(*given, "--out", tmp_path / "out", "--images", 6, "--method", "dn2", "--dtype", "fp32", "--steps", 0)
    assert done.exit_code == 0, done.output
    assert done.stdout == (tmp_path / "out" / "table.md").read_text()
    assert "| red |" in done.stdout
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["images"], settings["dtype"], settings["preset"], settings["steps"]) == ("6", "fp32", "paper", "0")


def test_a_repeated_command_says_that_it_keeps_finished_jobs(given: list[object], tmp_path: Path) -> None:
    same = [*given, "--out", tmp_path / "out", "--images", 6, "--method", "dn2", "--dtype", "fp32"]
    first, again = run(*same), run(*same)
    assert "kept" not in first.stderr
    assert f"{tmp_path / 'out'}: 1 finished job will be kept; after a change of the code" in again.stderr
    assert again.stdout == first.stdout


def test_old_names_of_options_are_deprecated(given: list[object], tmp_path: Path) -> None:
    done = run(*given, "--out", tmp_path / "out", "--pictures", 6, "--precision", "fp32", "--method", "dn2")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[:2] == [
        "warning: --pictures is deprecated; use --images",
        "warning: --precision is deprecated; use --dtype",
    ]
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["images"], settings["dtype"]) == ("6", "fp32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--method magic", "--method magic: expected one of dn2, contrastive, v1, v2"),
        ("--dataset svhn", "expected either --train DIR and --test DIR, or --dataset NAME"),
        ("--learning-rate 0", "--learning-rate 0.0: expected a number above 0"),
        ("--classes mauve", "--classes mauve: not in"),
    ],
)
def test_an_invalid_option_exits_with_2(arguments: str, message: str, given: list[object], tmp_path: Path) -> None:
    refused = run(*given, "--out", tmp_path / "out", *arguments.split())
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not (tmp_path / "out").exists()
