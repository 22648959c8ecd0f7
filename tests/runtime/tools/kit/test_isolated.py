import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.runtime.tools.kit.isolated import isolated

KIT = Path("some.kit")


@pytest.fixture(autouse=True)
def _this_module_can_be_imported_by_a_new_process(monkeypatch, pytestconfig):
    # At the end: in the top folder msc_edge/ would hide the installed package.
    monkeypatch.setattr(sys, "path", [*sys.path, str(pytestconfig.rootpath)])


def process_ids(kit: Path) -> Iterator[int]:
    yield os.getpid()
    yield len(kit.name)


def refuses(kit: Path) -> Iterator[str]:
    yield "first"
    raise UsageError(f"{kit}: refused")


def ended_by(number: int, kit: Path) -> Iterator[str]:
    yield kit.name
    os.kill(os.getpid(), number)


def crashes(kit: Path) -> Iterator[str]:
    return ended_by(signal.SIGSEGV, kit)


def killed(kit: Path) -> Iterator[str]:
    return ended_by(signal.SIGKILL, kit)


def unpacks_and_crashes(kit: Path) -> Iterator[str]:
    Path(tempfile.mkdtemp(), kit.name).touch()
    return ended_by(signal.SIGSEGV, kit)


def runs_out_of_memory(kit: Path) -> Iterator[str]:
    yield kit.name
    bytearray(1 << 62)


def never_ends(kit: Path) -> Iterator[int]:
    yield os.getpid()
    signal.pause()
    yield len(kit.name)


def test_the_work_runs_in_another_process():
    number, length = isolated(process_ids, KIT)
    assert (number == os.getpid(), length) == (False, len(KIT.name))


def test_its_error_is_raised_here_after_what_it_yielded():
    items = isolated(refuses, KIT)
    assert next(items) == "first"
    with pytest.raises(UsageError, match=r"^some\.kit: refused$"):
        next(items)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (runs_out_of_memory, r"^some\.kit: there is not enough memory to open it"),
        (crashes, r"crashes the process \(SIGSEGV\); do not use this kit"),
        (killed, "ended by SIGKILL; check the"),
    ],
)
def test_a_process_that_cannot_go_on_is_a_kit_error(work, reason):
    items = isolated(work, KIT)
    assert next(items) == "some.kit"
    with pytest.raises(KitError, match=reason):
        next(items)


def test_nothing_of_a_process_that_crashed_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    items = isolated(unpacks_and_crashes, KIT)
    assert next(items) == "some.kit"
    assert list(tmp_path.rglob(KIT.name))
    with pytest.raises(KitError, match="SIGSEGV"):
        next(items)
    assert not list(tmp_path.iterdir())


def test_a_kit_that_gives_no_result_in_time_is_refused_and_its_process_ended():
    with pytest.raises(KitError, match=r"^some\.kit: .* gave no result for 0\.1 seconds; do not use .* --timeout"):
        list(isolated(never_ends, KIT, timeout=0.1))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("timeout", [1e7, 1e300, float("inf")])
def test_a_timeout_longer_than_the_system_can_wait_is_shortened(timeout):
    assert list(isolated(process_ids, KIT, timeout=timeout))[1] == len(KIT.name)


def test_closing_ends_the_process():
    items = isolated(never_ends, KIT)
    number = next(items)
    items.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_sigterm_removes_what_was_unpacked(toy_kit, tmp_path):
    kit = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "msc_edge", "doctor", kit]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(temporary)}) as doctor:
        while not list(temporary.glob("msc-edge-kit-*")):  # it stays there while frames are scored, for seconds
            assert doctor.poll() is None
            time.sleep(0.05)
        doctor.terminate()
        doctor.communicate()
    assert doctor.returncode == 143
    assert not list(temporary.glob("msc-edge-kit-*"))


def test_verify_reports_native_code_that_crashes(toy_kit, tmp_path):
    """An hnswlib that was built for another processor does this, with any kit."""
    code = "import os, signal\nclass Index:\n    def __init__(self, **_): os.kill(os.getpid(), signal.SIGILL)\n"
    (tmp_path / "hnswlib.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "msc_edge", "verify", str(toy_kit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"error: {toy_kit}: opening and scoring it crashes the process (SIGILL); do not use this kit\n"
    )
