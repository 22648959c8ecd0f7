import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.kit.opening import Kit
from msc_edge.text import percent


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(text: str) -> str:
    return " ".join(text.split())


def test_old_and_new_limits_are_printed_side_by_side_with_the_false_alarms(toy_kit, fresh, tmp_path):
    done = run("calibrate", toy_kit, "--normal", fresh, "--out", tmp_path / "new.kit", "--reason", "new [bold]lamp")
    assert (done.exit_code, done.stderr) == (0, "")
    with Kit.open(toy_kit) as old, Kit.open(tmp_path / "new.kit") as new:
        before, after = (kit.model("fp32").calibration.limits for kit in (old, new))
    text = words(done.stdout)
    assert f"warn above │ {before.warn.score:.6f} │ {after.warn.score:.6f} │" in text
    assert f"reject above │ {before.reject.score:.6f} │ {after.reject.score:.6f} │" in text
    assert "reject 2 of 120 flagged, expected 7.7 %, 90 % interval 0 to 27: inside" in text
    assert f"score above {after.reject.score:.6f}; false-alarm rate: target 1 %, expected 0.83 %" in text
    assert "new.kit has the new limits; a running stream loads them with: msc-edge reload" in text
    facts = run("info", tmp_path / "new.kit").stdout
    assert "new [bold]lamp; 1 earlier calibration, the last 2026-01-01T00:00:00Z with 12 images" in facts
    assert f"reject above {before.reject.score:.6f}" in facts


def test_the_limit_of_the_map_is_among_the_limits(patch_kit, fresh, tmp_path):
    options = ("--reject-rate", "0.02", "--region-rate", "0.03")
    done = run("calibrate", patch_kit, "--normal", fresh, "--out", tmp_path / "new.kit", *options)
    assert done.exit_code == 0, done.stderr
    with Kit.open(patch_kit) as old, Kit.open(tmp_path / "new.kit") as new:
        before, after = (kit.model("fp32").calibration.regions for kit in (old, new))
    text = words(done.stdout)
    assert before
    assert after
    assert f"regions: target rate │ {percent(before.rate)} │ 3 % │" in text
    assert f"regions: map above │ {before.limit.score:.6f} │ {after.limit.score:.6f} │" in text
    above = sum(score > before.limit.score for score in after.patch_scores)
    assert f"regions {above} of 120 flagged, expected " in text
    for command in (
        ("info", tmp_path / "new.kit"),
        ("score", tmp_path / "new.kit", fresh, "--out", tmp_path / "s.csv"),
    ):
        done = run(*command)
        assert f"map above {after.limit.score:.6f}; share of normal images with any region: " in done.output
        assert f"map above {after.limit.score:.6f}; share" in text


def test_without_out_and_in_place_nothing_is_written(toy_kit, fresh):
    done = run("calibrate", toy_kit, "--normal", fresh)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("nothing was written: pass --out NEWKIT or --in-place")


def test_a_change_of_the_line_is_reported(toy_kit, toy, save, tmp_path):
    for seed in range(1000, 1100):
        image = toy.draw(seed)
        image[:, :24] //= 2
        save(tmp_path / "fresh" / f"{seed}.png", image)
    text = words(run("calibrate", toy_kit, "--normal", tmp_path / "fresh").stdout)
    assert "reject 100 of 100 flagged" in text
    assert "ABOVE; the line has changed, or not all of these images are normal" in text


def test_images_that_are_left_out_are_listed_on_standard_error(toy_kit, toy, save, tmp_path):
    for seed in range(1000, 1020):
        save(tmp_path / "in" / f"{seed}.png", toy.draw(seed))
    save(tmp_path / "in" / "trained.png", toy.draw(0))
    save(tmp_path / "in" / "twice.png", toy.draw(1000))
    for number in range(7):
        (tmp_path / "in" / f"bad {number}\x1b[31m.png").write_bytes(b"bad")
    done = run("calibrate", toy_kit, "--normal", tmp_path / "in", "--reject-rate", "0.05")
    assert done.exit_code == 0
    assert done.stderr.count("left out, unreadable: ") == 6
    assert "left out, unreadable: 2 more" in done.stderr
    assert "\x1b" not in done.stderr
    assert "left out, exact copies of others: 1" in done.stderr
    assert "left out, in the kit's memory bank: 1 image, the first is " in done.stderr
    assert "The 5 most anomalous of 20 images" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--normal", "nowhere"], 3),
        (["--normal", "FRESH", "--reject-rate", "0.001"], 3),
        (["--normal", "FRESH", "--reject-rate", "2"], 2),
        (["--normal", "FRESH", "--out", "KIT"], 2),
        (["--normal", "FRESH", "--in-place", "--out", "x"], 2),
        ([], 2),
    ],
)
def test_a_request_that_cannot_be_met_has_its_exit_code(arguments, code, kit, fresh):
    named = {"FRESH": fresh, "KIT": kit}
    assert run("calibrate", kit, *(named.get(each, each) for each in arguments)).exit_code == code


def test_a_folder_that_is_no_kit_is_exit_code_4(fresh, tmp_path):
    assert run("calibrate", tmp_path, "--normal", fresh).exit_code == 4


def test_it_needs_no_torch(toy_kit, fresh, tmp_path):
    program = (
        "import sys; from pathlib import Path; from msc_edge.runtime.tools.calibrate.recalibration import calibrate\n"
        f"calibrate(Path({str(toy_kit)!r}), Path({str(fresh)!r}), out=Path({str(tmp_path / 'new.kit')!r}))\n"
        "print([name for name in ('torch', 'scipy', 'sklearn', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
    assert Path(tmp_path / "new.kit" / "manifest.json").is_file()


def test_the_old_name_of_reason_works_with_a_warning(toy_kit, fresh, tmp_path):
    done = run("calibrate", toy_kit, "--normal", fresh, "--out", tmp_path / "new.kit", "--why", "new lamp")
    assert (done.exit_code, done.stderr) == (0, "warning: --why is deprecated; use --reason\n")
    with Kit.open(tmp_path / "new.kit") as kit:
        assert kit.model("fp32").calibration.reason == "new lamp"
    assert "--why" not in run("calibrate", "--help").stdout
