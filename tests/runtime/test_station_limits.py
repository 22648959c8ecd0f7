"""Limits for a kit with what its station has learned: from held-out images, until a learned one is undone."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from msc_edge.calibration import Calibration
from msc_edge.cli import app
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.learning import guards
from msc_edge.runtime.results.image_result import read_score_file
from msc_edge.text import many

RATES = ("--reject-rate", "0.02", "--warn-rate", "0.05")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], terminal_width=300)


@pytest.fixture
def kit(patch_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guards, "MAX_LOST", 1.0)  # tested in tests/runtime/learning
    return Path(shutil.copytree(patch_kit, tmp_path / "line.kit"))


@pytest.fixture
def taught(kit: Path, toy: ModuleType, save: Callable, tmp_path: Path) -> Path:
    """The kit, with two learned images."""
    for number, defect in ((1, "stain"), (2, "scratch")):
        part = save(tmp_path / f"part{number}.png", toy.draw(100 + number, defect))
        assert run("learn", kit, "--add", part, "--reason", "new supplier").exit_code == 0
    return kit


@pytest.fixture
def line(toy: ModuleType, save: Callable, tmp_path: Path) -> Path:
    """144 normal images of a line on which one part in six has the stain that was learned."""
    for seed in range(1000, 1144):
        save(tmp_path / "normal" / f"{seed}.png", toy.draw(seed, "stain" if seed >= 1120 else None))
    return tmp_path / "normal"


def calibrated(kit: Path, line: Path, *options: object) -> Result:
    done = run("calibrate", kit, "--normal", line, "--learned", "--in-place", *RATES, *options)
    assert done.exit_code == 0, done.output
    return done


def limit(kit: Path, *, learned: bool = False) -> float:
    return Detector.load(kit, threads=1, learned=learned).limits.reject.score


def test_the_limits_are_those_of_the_held_out_images_and_leave_the_kit_as_it_is(taught: Path, line: Path) -> None:
    before = {path: path.read_bytes() for path in taught.rglob("*") if path.is_file()}
    done = calibrated(taught, line, "--reason", "new supplier")
    assert "with 2 images that this station has learned" in done.stdout
    assert re.search(r"sqlite has the new limits, and running streams use them within a second\.", done.stdout)
    assert {path: path.read_bytes() for path in taught.rglob("*") if path.is_file()} == before
    detector = Detector.load(taught, threads=1, learned=True)
    scores = [detector.score_file(path).score for path in sorted(line.iterdir())]
    own = Calibration(scores).limits(warn_rate=0.05, reject_rate=0.02)
    assert detector.limits == own
    assert sum(score > detector.limits.reject.score for score in scores) == 1, "of 144, the limit is the second"
    assert detector.score_file(next(line.iterdir())).p_value == detector.calibration.p_value(
        detector.score_file(next(line.iterdir())).score
    )
    assert limit(taught) == Detector.load(taught, threads=1).manifest.models["fp32"].calibration.limits.reject.score


def test_without_in_place_nothing_is_written(taught: Path, line: Path) -> None:
    done = run("calibrate", taught, "--normal", line, "--learned", *RATES)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "nothing was written: pass --in-place to use the new limits"
    assert limit(taught, learned=True) == limit(taught)


def test_learned_images_and_their_copies_are_left_out_and_counted(
    taught: Path, line: Path, toy: ModuleType, save: Callable
) -> None:
    save(line / "a learned one.png", toy.draw(101, "stain"))
    almost = toy.draw(102, "scratch")
    almost[0, 0] += 1
    save(line / "z almost.png", almost)
    done = calibrated(taught, line)
    assert re.search(
        r"left out, learned at this station or of the part of a learned image: 2 images, the first is .*a learned one",
        done.stderr,
    )
    with Kit.open(taught) as opened, AdditionsFile.open(taught, opened.identity) as file:
        limits = file.limits()
    assert limits is not None
    assert len(limits.calibrations["fp32"].scores) == 144


def test_limits_end_with_the_first_of_their_images_that_is_undone_and_count_again_when_it_is_back(
    taught: Path, line: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibrated(taught, line)
    station = limit(taught, learned=True)
    assert station != limit(taught)
    undone = run("learn", taught, "--undo", 1, "--reason", "was a stain after all")
    warning = (
        "count no more, because they were made with the learned images 1 (part1.png): scores are higher without. The "
        "limits of the kit count; for new ones run: msc-edge calibrate KIT --normal IMAGES --learned --in-place"
    )
    assert undone.exit_code == 0
    assert re.match(r"warning: the station limits of 2\d{3}-\S+ count no more", undone.stderr)
    assert warning in undone.stderr
    assert warning in run("learn", taught, "--list").stderr
    assert limit(taught, learned=True) == limit(taught)
    assert warning in caplog.text, "the log of scoring has it, too"
    assert run("learn", taught, "--add", tmp_path / "part1.png", "--reason", "no, it is normal").exit_code == 0
    assert limit(taught, learned=True) == station


def test_limits_still_count_when_more_is_learned(taught: Path, line: Path, toy: ModuleType, save: Callable) -> None:
    calibrated(taught, line)
    station = limit(taught, learned=True)
    part = save(line.parent / "third.png", toy.draw(103, "stain")[::-1, ::-1])
    assert run("learn", taught, "--add", part, "--reason", "new supplier").exit_code == 0
    assert len(Detector.load(taught, threads=1, learned=True).additions) == 3
    assert limit(taught, learned=True) == station


def test_limits_are_undone_by_their_name(taught: Path, line: Path) -> None:
    calibrated(taught, line, "--reason", "new lamp")
    listed = run("learn", taught, "--list").stdout
    assert re.search(r"\n      limits   with 2 learned images: 2\d{3}-\S+ by \S+: new lamp\n", listed)
    done = run("learn", taught, "--undo", "limits", "--reason", "wrong images")
    assert re.fullmatch(r"the station limits of \S+ count no more: the limits of the kit do\n", done.stdout)
    assert "limits   " not in run("learn", taught, "--list").stdout
    assert limit(taught, learned=True) == limit(taught)
    calibrated(taught, line)
    assert limit(taught, learned=True) != limit(taught)


def test_limits_of_the_line_come_before_those_of_the_station(taught: Path, line: Path) -> None:
    calibrated(taught, line)
    station = Detector.load(taught, threads=1, learned=True)
    additions = station.additions
    alone = Detector.load(taught, threads=1)
    by_hand = alone.with_limits(threshold=9.0).with_additions(additions)
    assert (by_hand.limits.reject.score, by_hand.limits.reject.target_rate) == (9.0, None)
    assert by_hand.limits.warn == station.limits.warn
    assert by_hand.limits == station.with_limits(threshold=9.0).limits
    by_rate = alone.with_limits(false_alarm_rate=0.1).with_additions(additions)
    assert by_rate.limits.reject == station.calibration.limit(0.1)
    assert alone.with_additions(additions).limits == station.limits


def test_a_second_calibration_compares_with_the_first(taught: Path, line: Path) -> None:
    calibrated(taught, line, "--reason", "first")
    first = limit(taught, learned=True)
    done = run("calibrate", taught, "--normal", line, "--learned")
    assert f"│ reject above        │ {first:.6f} │ {first:.6f} │".replace(" ", "") in done.stdout.replace(" ", "")
    with Kit.open(taught) as opened, AdditionsFile.open(taught, opened.identity) as file:
        limits = file.limits()
    assert limits is not None
    assert [each.count for each in limits.calibrations["fp32"].history] == [12], "the calibration of the kit"


def test_an_added_image_is_normal_by_the_limits_that_count(
    taught: Path, line: Path, toy: ModuleType, save: Callable
) -> None:
    part = save(line.parent / "like.png", toy.draw(3, None))
    calibrated(taught, line, "--reject-rate", "0.9", "--warn-rate", "0.9")
    station = Detector.load(taught, threads=1, learned=True)
    expected = station.score_file(part)
    done = run("learn", taught, "--add", part, "--reason", "r")
    assert f"limit {station.limits.reject.score:.6g}" in done.output
    assert ("is normal already" in done.output) == (expected.verdict == "normal")


def test_a_kit_that_its_station_has_taught_is_not_replaced_by_one_without(
    taught: Path, line: Path, tmp_path: Path
) -> None:
    refused = run("calibrate", taught, "--normal", line, "--in-place", *RATES)
    assert refused.exit_code == 2
    assert "this station has learned 2 images for it, and a kit with other limits is another kit" in refused.stderr
    assert run("calibrate", taught, "--normal", line, "--out", tmp_path / "new.kit", *RATES).exit_code == 0
    out = run("calibrate", taught, "--normal", line, "--learned", "--out", tmp_path / "other.kit")
    assert out.exit_code == 2
    assert "msc-edge export --from-station for a kit with both" in out.stderr


def test_nothing_learned_has_no_limits_of_its_own(kit: Path, taught: Path, line: Path) -> None:
    for number in (1, 2):
        assert run("learn", taught, "--undo", number, "--reason", "r").exit_code == 0
    done = run("calibrate", kit, "--normal", line, "--learned")
    assert done.exit_code == 2
    assert "--learned: nothing that this station has learned for" in done.stderr


def test_rows_say_what_was_learned(taught: Path, line: Path, tmp_path: Path) -> None:
    rows, state = tmp_path / "scores.csv", set()
    for steps in range(2):
        done = run("score", taught, line, "--learned", "--out", rows, "--overwrite")
        assert done.exit_code == 0
        results = [row.result for row in read_score_file(rows) if row.result]
        ((count, sha256),) = {(each.learned, each.learned_sha256) for each in results}
        assert sha256 == Detector.load(taught, threads=1, learned=True).additions.sha256
        assert f"learned: {many(count, 'image')} of this station, SHA-256 {(sha256 or '')[:12]}" in done.stderr
        assert count == 2
        state.add(sha256)
        if not steps:
            calibrated(taught, line)
    assert len(state) == 2, "the station limits are part of it"
    refused = run("score", taught, line, "--out", rows, "--resume")
    assert refused.exit_code == 2
    assert "now limit" in refused.stderr or "now what was learned nothing is given" in refused.stderr
    run("score", taught, line, "--out", rows, "--overwrite")
    assert {(row.result.learned, row.result.learned_sha256) for row in read_score_file(rows) if row.result} == {
        (0, None)
    }


def test_a_score_file_is_continued_with_the_same_additions_only(taught: Path, line: Path, tmp_path: Path) -> None:
    rows = tmp_path / "scores.csv"
    assert run("score", taught, line / "1000.png", "--learned", "--out", rows).exit_code == 0
    assert run("score", taught, line, "--learned", "--out", rows, "--resume").exit_code == 0
    refused = run("score", taught, line, "--out", rows, "--resume")
    assert refused.exit_code == 2
    assert re.search(
        r"was scored with what was learned SHA-256 \w{12}, and now what was learned nothing is", refused.stderr
    )


def test_without_anything_learned_the_option_is_refused(kit: Path, line: Path) -> None:
    done = run("score", kit, line, "--learned")
    assert done.exit_code == 2
    assert "this station has learned nothing for it" in done.stderr


def test_a_packed_kit_has_the_station_limits(taught: Path, line: Path, tmp_path: Path) -> None:
    calibrated(taught, line, "--reason", "new supplier")
    done = run("export", "--from-station", taught, "--out", tmp_path / "new.kit")
    assert done.exit_code == 0, done.output
    station, packed = Detector.load(taught, threads=1, learned=True), Detector.load(tmp_path / "new.kit", threads=1)
    assert packed.limits == station.limits
    assert packed.regions == station.regions
    info = packed.manifest.models["fp32"].calibration
    assert (info.reason, len(info.history)) == ("new supplier", 1)


def test_an_evaluation_says_what_was_learned(
    taught: Path, line: Path, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    calibrated(taught, line)
    for seed in range(4000, 4006):
        save(tmp_path / "data/test/good" / f"{seed}.png", toy.draw(seed))
        save(tmp_path / "data/test/empty" / f"{seed}.png", toy.draw(seed, "empty"))
    shutil.copy(tmp_path / "part1.png", tmp_path / "data/test/good")
    options = ("--resamples", "100", "--out", tmp_path / "evaluation")
    done = run("evaluate", taught, tmp_path / "data", "--learned", *options)
    assert done.exit_code == 0, done.output
    state = Detector.load(taught, threads=1, learned=True)
    found = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    assert (found["learned"], found["learned_sha256"]) == (2, state.additions.sha256)
    assert found["reject"]["score"] == state.limits.reject.score
    assert f"learned: 2 images of this station, SHA-256 {found['learned_sha256'][:12]}" in done.stdout
    assert "caution: found in the kit's memory bank, or learned: 1 image of the data set" in done.stdout
    page = (tmp_path / "evaluation/report.html").read_text()
    assert "with 2 images that this station has learned and its own limits, SHA-256" in page
    alone = run("evaluate", taught, tmp_path / "data", *options, "--overwrite")
    assert alone.exit_code == 0
    found = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    assert (found["learned"], found["learned_sha256"]) == (0, None)
    assert "has learned" not in (tmp_path / "evaluation/report.html").read_text()


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("calibrations", "no JSON"),
        ("calibrations", "{}"),
        ("calibrations", "[]"),
        ("calibrations", '{"fp32": {"scores": [1.0]}}'),
        ("learned", "7"),
        ("time", "yesterday"),
    ],
)
def test_damaged_limits_are_named_and_never_left_out(taught: Path, line: Path, column: str, text: str) -> None:
    calibrated(taught, line)
    (file,) = taught.parent.glob("*.sqlite")
    database = sqlite3.connect(file)
    with database:
        database.execute(f"UPDATE limits SET {column} = ?", (text,))
    database.close()
    done = run("score", taught, line / "1000.png", "--learned")
    assert done.exit_code == 4
    assert f"{file}: what this station has learned is damaged (" in done.stderr
