"""A running stream learns, and forgets, what a person says beside it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.runtime import Detector
from msc_edge.runtime.learning import guards


@pytest.fixture
def kit(patch_kit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(patch_kit, tmp_path / "patches.kit"))


@pytest.fixture
def learn(kit: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(guards, "MAX_LOST", 1.0)  # tested in tests/runtime/learning

    def run(*arguments: object) -> None:
        done = CliRunner().invoke(app, ["learn", str(kit), *map(str, arguments), "--reason", "test"])
        assert done.exit_code == 0, done.output

    return run


def test_a_false_alarm_passes_after_it_was_learned_and_is_rejected_again_when_that_is_undone(
    stream: Callable,
    kit: Path,
    learn: Callable,
    toy: ModuleType,
    save: Callable,
    rows_of: Callable,
    until: Callable,
    tmp_path: Path,
) -> None:
    folder, jsonl = tmp_path / "in", tmp_path / "rows.jsonl"
    folder.mkdir()
    part = save(tmp_path / "part.png", toy.draw(100, "stain"))
    running = stream(folder, "--jsonl", jsonl, kit=kit)
    running.wait_for("started")

    def scored_again(name: str) -> dict:
        shutil.copy(part, folder / name)
        return until(lambda: next((row for row in rows_of(jsonl) if row["path"].endswith(name)), None), name)

    alone = scored_again("1.png")
    assert alone["verdict"] == "reject"
    learn("--add", part)
    assert running.wait_for("learned")["message"].endswith(
        "1 learned image for the model fp32, before 0; added: 1 (part.png)"
    )
    learned = scored_again("2.png")
    assert learned["verdict"] == "normal"
    assert learned["nearest"] == "learned 1: part.png"
    learn("--undo", 1)
    assert running.wait_for("learned", 2)["message"].endswith(
        "0 learned images for the model fp32, before 1; undone: 1 (part.png)"
    )
    undone = scored_again("3.png")
    for name in ("verdict", "score", "image_score", "patch_score", "p_value", "nearest"):
        assert undone[name] == alone[name]
    learn("--add", part)
    running.wait_for("learned", 3)
    assert running.stop() == 0
    again = stream(folder, "--jsonl", jsonl, kit=kit)
    assert "1 learned image" in again.wait_for("learned")["message"]
    assert scored_again("4.png")["verdict"] == "normal", "from the first frame on"


def test_a_damaged_file_is_reported_and_the_line_goes_on(
    stream: Callable, kit: Path, learn: Callable, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    learn("--add", save(tmp_path / "part.png", toy.draw(100, "stain")))
    (file,) = tmp_path.glob("*.sqlite")
    content = file.read_bytes()
    running = stream(folder, kit=kit)
    running.wait_for("learned")
    file.write_bytes(b"not a database")
    refused = running.wait_for("learned_refused")
    assert (
        "what this station has learned cannot be read, and 1 learned image read before still count"
        in (refused["message"])
    )
    assert f"{file}: what this station has learned is damaged" in refused["message"]
    file.write_bytes(content)
    assert "1 learned image for the model fp32, before 1" in running.wait_for("learned", 2)["message"]


def test_station_limits_count_until_their_image_is_undone(
    stream: Callable,
    kit: Path,
    learn: Callable,
    toy: ModuleType,
    save: Callable,
    rows_of: Callable,
    until: Callable,
    tmp_path: Path,
) -> None:
    folder, jsonl = tmp_path / "in", tmp_path / "rows.jsonl"
    folder.mkdir()
    for seed in range(2000, 2060):
        save(tmp_path / "normal" / f"{seed}.png", toy.draw(seed, "stain" if seed % 6 == 0 else None))
    learn("--add", save(tmp_path / "part.png", toy.draw(100, "stain")))
    running = stream(folder, "--jsonl", jsonl, kit=kit)
    running.wait_for("learned")
    options = ["--normal", str(tmp_path / "normal"), "--learned", "--in-place", "--reject-rate", "0.1"]
    done = CliRunner().invoke(app, ["calibrate", str(kit), *options, "--warn-rate", "0.1"])
    assert done.exit_code == 0, done.output
    station = Detector.load(kit, threads=1, learned=True)
    changed = running.wait_for("learned", 2)["message"]
    limit = station.limits.reject.score
    assert changed.endswith(
        f"1 learned image for the model fp32, before 1; the station limits count: reject above {limit:.6g}"
    )
    save(folder / "1.png", toy.draw(100, "stain"))
    row = until(lambda: next(iter(rows_of(jsonl)), None), "a row")
    assert (row["learned"], row["learned_sha256"]) == (1, station.additions.sha256)
    assert row["limit"] == pytest.approx(limit, abs=1e-6)
    learn("--undo", 1)
    assert (
        "count no more, because they were made with the learned images 1 (part.png)"
        in (running.wait_for("learned", 3)["message"])
    )
    save(folder / "2.png", toy.draw(100, "stain"))
    row = until(lambda: next((row for row in rows_of(jsonl) if row["path"].endswith("2.png")), None), "a row")
    assert (row["learned"], row["learned_sha256"], row["verdict"]) == (0, None, "reject")
    assert row["limit"] == pytest.approx(Detector.load(kit, threads=1).limits.reject.score, abs=1e-6)
