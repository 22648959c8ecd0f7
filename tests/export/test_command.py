from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.kit.opening import Kit


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_summary_says_what_the_kit_holds_and_what_it_cannot_promise(drawn_run: Path, tmp_path: Path) -> None:
    done = export(drawn_run, "--out", tmp_path / "new.kit", "--warn-rate", "0.2", "--reject-rate", "0.01")
    assert done.exit_code == 0, done.output
    with Kit.open(tmp_path / "new.kit") as kit:
        limits = kit.manifest.calibration.limits
    assert "32 normals, exact search" in done.stdout
    assert "no verdict changed" in done.stdout
    # Eight held-out images promise one ninth and no less: 20 % is kept, 1 % is not, for that takes 99 of them.
    assert limits.warn.score == limits.reject.score
    assert "warn: never given" in done.stdout
    # Beta(1, 8): 1 - 0.95 ** (1 / 8) and 1 - 0.05 ** (1 / 8).
    expected = "expected to flag 11.1 % of good images (0.64 to 31.2 % with 90 % certainty)"
    assert f"reject: score above {limits.reject.score:.6f}, {expected}" in done.stdout
    assert "caution: reject does NOT keep to the 1 % that was asked for: that takes at least 99" in done.stderr
    assert "and the kit has 8" in done.stderr
    assert done.stderr.count("caution") == 1
    assert (
        "int8: rank correlation with float 0.99" in done.stdout
        or "int8: rank correlation with float 1.0" in done.stdout
    )


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
