"""`msc-edge learn`."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.runtime import Detector
from msc_edge.runtime.learning import guards


@pytest.fixture
def kit(patch_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit that may be taught; the guard of synthetic anomalies is tested in tests/runtime/learning."""
    monkeypatch.setattr(guards, "MAX_LOST", 1.0)
    return Path(shutil.copytree(patch_kit, tmp_path / "patches.kit"))


@pytest.fixture
def image(tmp_path: Path, toy: ModuleType, save: Callable) -> Path:
    """A part that the kit rejects."""
    return save(tmp_path / "part.png", toy.draw(100, "stain"))


def learn(kit: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["learn", str(kit), *map(str, arguments)], terminal_width=200)


def test_add_list_and_undo(kit: Path, image: Path) -> None:
    done = learn(kit, "--add", image, "--reason", "new supplier", "--by", "Anna")
    assert (done.exit_code, done.stderr) == (0, "")
    learned, defects, synthetic = done.stdout.splitlines()
    assert re.fullmatch(
        r"part\.png: learned as number 1, with \d+ patches: reject -> normal, score [\d.]+ -> [-\d.]+, limit [\d.]+",
        learned,
    )
    assert defects == "  confirmed defects: none that the kit rejects"
    assert re.fullmatch(r"  synthetic anomalies rejected by the kit: \d+; before \d+, now \d+ of them", synthetic)
    listed = learn(kit, "--list")
    assert re.search(r"1  learned  part\.png: 2\d{3}-\S+ by Anna: new supplier", listed.stdout)
    undone = learn(kit, "--undo", 1, "--reason", "was a stain", "--by", "Ben")
    assert (undone.exit_code, undone.stdout) == (0, "part.png: number 1 counts no more\n")
    assert re.search(r"; undone 2\d{3}-\S+ by Ben: was a stain", learn(kit, "--list").stdout)
    assert learn(kit, "--undo", 1, "--reason", "again").exit_code == 2


def test_several_images_are_undone_at_once(kit: Path, image: Path, toy: ModuleType, save: Callable) -> None:
    other = save(image.with_name("other.png"), toy.draw(101, "scratch"))
    assert learn(kit, "--add", image, "--add", other, "--reason", "r").exit_code == 0
    assert learn(kit, "--undo", 1, "--undo", 2, "--reason", "r").stdout.count("counts no more") == 2
    assert "0 learned images" in learn(kit, "--list").stdout


def test_a_kept_defect_that_the_kit_does_not_reject_is_said_to_guard_little(
    kit: Path, image: Path, toy: ModuleType, save: Callable
) -> None:
    done = learn(kit, "--defect", save(image.with_name("faint.png"), toy.draw(200)), "--reason", "faint")
    assert done.stdout == (
        "faint.png: kept as number 1, a confirmed defect; the kit does not reject it (normal), so it guards little\n"
    )


def test_a_zipped_kit_learns_too(kit: Path, image: Path) -> None:
    zipped = Path(shutil.make_archive(str(kit), "zip", kit))
    assert learn(zipped, "--add", image, "--reason", "r").exit_code == 0
    (file,) = zipped.parent.glob("patches.kit.zip.additions-*.sqlite")
    assert Detector.load(zipped).kit.sha256.startswith(file.name.split("-")[1][:12])


def test_nothing_learned_is_no_error(kit: Path) -> None:
    done = learn(kit, "--list")
    assert (done.exit_code, done.stdout) == (0, f"{kit}: this station has learned nothing for it\n")
    assert learn(kit, "--undo", 1, "--reason", "r").exit_code == 2


def test_one_image_that_is_refused_does_not_stop_the_others(kit: Path, image: Path, tmp_path: Path) -> None:
    done = learn(kit, "--add", tmp_path / "absent.png", "--add", image, "--reason", "r")
    assert done.exit_code == 2
    assert "part.png: learned as number 1" in done.stdout
    refused, error = done.stderr.splitlines()
    assert refused.startswith("refused: ")
    assert "absent.png: cannot be opened" in refused
    assert error == "error: 1 of 2 images were refused; the others count, or are normal already"
    assert learn(kit, "--add", tmp_path / "absent.png", "--reason", "r").exit_code == 3


def test_an_image_that_is_normal_already_is_not_refused(
    kit: Path, image: Path, toy: ModuleType, save: Callable
) -> None:
    normal = save(image.with_name("normal.png"), toy.draw(200))
    done = learn(kit, "--add", normal, "--reason", "r")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(
        r"normal\.png: is normal already \(score .*, limit .*\); there is nothing to learn\n", done.stdout
    )
    assert list(kit.parent.glob("*.sqlite")) == [], "nothing was learned"
    done = learn(kit, "--add", normal, "--add", image, "--reason", "r")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "normal.png: is normal already" in done.stdout
    assert "part.png: learned as number 1" in done.stdout


def test_what_was_refused_leaves_no_file(kit: Path, image: Path, save: Callable) -> None:
    refused = learn(kit, "--add", save(image.with_name("black.png"), np.zeros((48, 64, 3), np.uint8)), "--reason", "r")
    assert refused.exit_code == 2
    assert "black.png: is not learned: it looks more like a black frame (distance " in refused.stderr
    assert list(kit.parent.glob("*.sqlite")) == []


def test_a_damaged_file_ends_a_command_as_a_damaged_kit_does(kit: Path, image: Path) -> None:
    assert learn(kit, "--add", image, "--reason", "r").exit_code == 0
    (file,) = kit.parent.glob("*.sqlite")
    file.write_bytes(b"no database")
    commands = (["--list"], ["--undo", 1, "--reason", "r"], ["--add", image, "--add", image, "--reason", "r"])
    for arguments in commands:
        done = learn(kit, *arguments)
        assert done.exit_code == 4
        assert done.stderr.startswith(
            f"error: {file}: what this station has learned is damaged (file is not a database)"
        )


@pytest.mark.parametrize("what", ["one", "-1", "1.5", "limit"])
def test_only_numbers_and_limits_can_be_undone(kit: Path, image: Path, what: str) -> None:
    assert learn(kit, "--add", image, "--reason", "r").exit_code == 0
    done = learn(kit, f"--undo={what}", "--undo", 1, "--reason", "r")
    assert done.exit_code == 2
    assert f"--undo {what}: expected the number of an image, as --list shows it, or limits" in done.stderr
    assert "; undone" not in learn(kit, "--list").stdout
    none = learn(kit, "--undo", "limits", "--reason", "r")
    assert none.exit_code == 2
    assert "has no station limits" in none.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to do: --add, --defect, --undo, --list"),
        (["--list", "--undo", "1"], "--undo and --list exclude each other"),
        (["--add", "part.png"], "--add needs a --reason, for the record, such as 'new supplier'"),
        (["--undo", "1", "--reason", " "], "--undo needs a --reason"),
    ],
)
def test_what_to_do_is_named_once(kit: Path, arguments: list[str], message: str) -> None:
    done = learn(kit, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(kit.parent.glob("*.sqlite")) == []


def test_names_and_reasons_cannot_change_a_terminal(kit: Path, image: Path) -> None:
    renamed = image.rename(image.with_name("part\x1b[31m.png"))
    done = learn(kit, "--add", renamed, "--reason", "a\x1b[2Jb", "--by", "x\ny")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout + learn(kit, "--list").stdout
