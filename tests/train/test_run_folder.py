import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.train.run_folder import CHECKPOINT, exclusive_run_folder

RECORD = "run.json"

HOLD = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from msc_edge.train.run_folder import CHECKPOINT, exclusive_run_folder
with ExitStack() as stack:
    for out in map(Path, sys.argv[1:]):
        stack.enter_context(exclusive_run_folder(out, record="run.json", hint="", resume=False))
        if out.name == "started":
            (out / CHECKPOINT).touch()
    print("locked", flush=True)
    time.sleep(600)
"""


def exclusive(out: Path, *, resume: bool = False) -> AbstractContextManager[None]:
    return exclusive_run_folder(out, record=RECORD, hint="export it", resume=resume)


def test_only_one_training_at_a_time_uses_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with exclusive(out):
        for resume in (False, True):
            with pytest.raises(UsageError, match=r"run: another training is running"), exclusive(out, resume=resume):
                pass
        (out / "mine").touch()
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    started, bare = tmp_path / "started", tmp_path / "bare"
    command = [sys.executable, "-c", HOLD, str(started), str(bare)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        for out in (started, bare):
            for resume in (False, True):
                with pytest.raises(UsageError, match="another training is running"), exclusive(out, resume=resume):
                    pass
        process.kill()

    with pytest.raises(UsageError, match="is not empty; resume the training there with --resume"), exclusive(started):
        pass
    with exclusive(started, resume=True):
        pass
    assert [path.name for path in started.iterdir()] == [CHECKPOINT]
    with exclusive(bare):
        (bare / "mine").touch()
    assert [path.name for path in bare.iterdir()] == ["mine"]


def test_all_processes_of_one_training_use_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive(tmp_path / "run"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        (tmp_path / "run" / "metrics.csv").touch()
        with exclusive(tmp_path / "run"):
            pass
        monkeypatch.delenv("LOCAL_RANK")
        with pytest.raises(UsageError, match="is running"), exclusive(tmp_path / "run"):
            pass


@pytest.mark.parametrize("files", [[], ["mine"]])
def test_an_error_removes_an_empty_folder_only(files: list[str], tmp_path: Path) -> None:
    def fail() -> None:
        for name in [*files, "nowhere/else"]:
            (tmp_path / "run" / name).touch()

    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "run"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == (["run", *files] if files else [])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, UsageError])
@pytest.mark.parametrize("steps", [0, 20])
def test_an_error_leaves_a_training_with_steps_or_nothing_of_it(
    steps: int, kind: type[BaseException], tmp_path: Path
) -> None:
    out, error = tmp_path / "run", kind("a mistake in a loss")

    def fail() -> None:
        for name in (CHECKPOINT, "metrics.csv", "bank.npy", "mine"):
            (out / name).touch()
        raise error

    with (
        pytest.raises(kind),
        exclusive_run_folder(
            out, record=RECORD, hint="", resume=False, steps_in=lambda _: steps, files=("bank.npy", "patches")
        ),
    ):
        fail()
    left = {path.name for path in out.iterdir()}
    assert left == ({CHECKPOINT, "metrics.csv", "bank.npy", "mine"} if steps else {"mine"})
    noted = "".join(getattr(error, "__notes__", []))
    assert ("--resume" in noted) == (steps > 0 and not isinstance(error, UsageError))


def test_a_finished_run_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / RECORD).touch()
    with pytest.raises(UsageError, match="already finished; export it"), exclusive(tmp_path, resume=True):
        pass
    with pytest.raises(UsageError, match="is not empty; choose another name"), exclusive(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]
