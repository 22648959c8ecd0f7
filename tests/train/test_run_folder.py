import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.run_folder import exclusive_run_folder

RECORD = "run.json"

HOLD = """
import sys, time
from pathlib import Path
from msc_edge.train.run_folder import exclusive_run_folder
with exclusive_run_folder(Path(sys.argv[1]), record="run.json", then="", resume=False):
    for name in sys.argv[2:]:
        Path(sys.argv[1], name).touch()
    print("held", flush=True)
    time.sleep(600)
"""


def claim(out: Path, *, resume: bool = False) -> AbstractContextManager[None]:
    return exclusive_run_folder(out, record=RECORD, then="export it", resume=resume)


def killed_while_it_held(out: Path, *files: str) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out), *files], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(UsageError, match="another training is at work there"), claim(out, resume=resume):
                pass
        process.kill()


def test_a_folder_is_had_by_one_training_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with claim(out):
        for resume in (False, True):
            with pytest.raises(UsageError, match=r"run: another training is at work there"), claim(out, resume=resume):
                pass
        (out / "mine").touch()
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    killed_while_it_held(tmp_path / "begun", CHECKPOINT)
    with (
        pytest.raises(UsageError, match="is not empty; continue the run there with --resume"),
        claim(tmp_path / "begun"),
    ):
        pass
    with claim(tmp_path / "begun", resume=True):
        pass
    assert [path.name for path in (tmp_path / "begun").iterdir()] == [CHECKPOINT]

    killed_while_it_held(tmp_path / "bare")
    with claim(tmp_path / "bare"):
        (tmp_path / "bare" / "mine").touch()
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["mine"]


def test_the_processes_of_one_training_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with claim(tmp_path / "run"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        (tmp_path / "run" / "metrics.csv").touch()
        with claim(tmp_path / "run"):
            pass
        monkeypatch.delenv("LOCAL_RANK")
        with pytest.raises(UsageError, match="at work"), claim(tmp_path / "run"):
            pass


@pytest.mark.parametrize("files", [[], ["mine"]])
def test_one_that_fails_leaves_no_empty_folder(files: list[str], tmp_path: Path) -> None:
    def fail() -> None:
        for name in [*files, "nowhere/else"]:
            (tmp_path / "run" / name).touch()

    with pytest.raises(FileNotFoundError), claim(tmp_path / "run"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == (["run", *files] if files else [])


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / RECORD).touch()
    with pytest.raises(UsageError, match="finished already; export it"), claim(tmp_path, resume=True):
        pass
    with pytest.raises(UsageError, match="is not empty; choose another name"), claim(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]
