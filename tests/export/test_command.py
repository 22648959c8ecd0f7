from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.kit import Kit


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_summary_says_what_the_kit_holds_and_what_it_cannot_promise(drawn_run: Path, tmp_path: Path) -> None:
    done = export(drawn_run, "--out", tmp_path / "new.kit", "--warn-rate", "0.2", "--reject-rate", "0.01")
    assert done.exit_code == 0, done.output
    with Kit.open(tmp_path / "new.kit") as kit:
        limits = kit.manifest.calibration.limits
    assert "32 normals, exact search" in done.stdout
    assert "no verdict changed" in done.stdout
    # Eight held-out pictures promise one ninth and no less: 20 % is kept, 1 % is not, for that takes 99 of them.
    assert f"warn: above {limits.warn.score:.6f}, flags 11.11% of good parts" in done.stdout
    assert f"reject: above {limits.reject.score:.6f}, flags 11.11% of good parts" in done.stdout
    assert "reject: 1.00% was asked for; that takes at least 99 held-out pictures, and there are 8" in done.stderr
    assert "20.00% was asked for" not in done.output


@pytest.mark.parametrize(
    ("options", "code"), [(["--warn-rate", "0"], 2), (["--reject-rate", "0.5"], 2), (["--normal", "nowhere"], 3)]
)
def test_what_cannot_be_done_leaves_with_its_code_in_one_line(
    options: list[str], code: int, drawn_run: Path, tmp_path: Path
) -> None:
    refused = export(drawn_run, "--out", tmp_path / "new.kit", *options)
    assert refused.exit_code == code
    assert refused.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_leaves_with_4(tmp_path: Path) -> None:
    assert export(tmp_path, "--out", tmp_path / "new.kit").exit_code == 4
