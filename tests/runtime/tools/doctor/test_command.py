"""`msc-edge doctor`, on machines that lack one thing or another."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.errors import OutputError
from msc_edge.kit.layout import INDEX_FILES, MODEL_FILES
from msc_edge.runtime.tools.doctor import kit_checks, package_checks
from msc_edge.runtime.tools.doctor.checks import Check
from msc_edge.runtime.tools.doctor.command import doctor

NAMES = {"versions", "opencv", "hnswlib", "processor", "cores", "memory", "disk", "clock", "display", "cameras"}
# A process of its own that measures for a moment only.
PROGRAM = (
    "import sys\n"
    "try:\n    from msc_edge.runtime.tools.doctor import kit_checks; kit_checks.SECONDS = 0.02\n"
    "except Exception: pass  # a package is broken, which is what the test is about\n"
    "from msc_edge.cli import main; sys.argv[0] = 'msc-edge'; main()"
)


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short measurements, and no process that tries hnswlib."""

    def hnswlib() -> Check:
        return Check("hnswlib", "ok", "works")

    monkeypatch.setattr(kit_checks, "SECONDS", 0.02)
    monkeypatch.setattr(package_checks, "hnswlib", hnswlib)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "doctor", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=300
    )


def checks_of(done: Result | subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


class TestWithAKit:
    def test_this_machine_has_no_problem(self, toy_kit):
        done = run(toy_kit, "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        report = json.loads(done.stdout)
        assert report["ok"] is True
        assert all(check["state"] in ("ok", "note") for check in report["checks"])
        assert set(checks_of(done)) >= NAMES | {"kit", "limits", "latency, 1 thread"}
        assert all(set(check) == {"name", "state", "found", "remedy"} for check in report["checks"])

    def test_a_damaged_kit_is_exit_code_4_and_the_other_checks_run(self, kit, change_byte):
        change_byte(kit / MODEL_FILES["fp32"], 100)
        done = run(kit, "--json")
        assert (done.exit_code, done.stderr, json.loads(done.stdout)["ok"]) == (4, "", False)
        checks = checks_of(done)
        assert checks["kit"]["state"] == "problem"
        assert checks["versions"]["state"] == "ok"
        assert "not measured" in checks["latency"]["found"]

    @pytest.mark.parametrize("name", ["missing", "zero\x1b[31m"])
    def test_a_missing_kit_is_one_line(self, tmp_path, name):
        done = run(tmp_path / name)
        assert (done.exit_code, done.stderr) == (4, "")
        assert len([line for line in done.stdout.splitlines() if line.startswith("problem: kit: ")]) == 1
        assert "\x1b" not in done.stdout


def test_without_a_kit_each_check_is_a_line_and_the_summary_is_the_last():
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert all(line.split(": ")[0] in ("ok", "note") for line in lines)
    assert "note: latency: not measured, because no kit was given; remedy: msc-edge doctor KIT" in lines
    assert last == "no problem found"


def test_a_problem_of_the_machine_is_exit_code_2(monkeypatch):
    def versions() -> Check:
        return Check("versions", "problem", "broken", "repair it")

    monkeypatch.setattr(package_checks, "versions", versions)
    done = run()
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (2, "1 problem: versions")


class TestBrokenPackages:
    def package(self, folder: Path, name: str, code: str) -> str:
        (folder / f"{name}.py").write_text(code)
        return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])

    def test_an_opencv_that_cannot_be_imported(self, toy_kit, tmp_path):
        code = "raise ImportError('libGL.so.1: cannot open shared object file')"
        done = process(toy_kit, "--json", PYTHONPATH=self.package(tmp_path, "cv2", code))
        assert (done.returncode, done.stderr) == (4, "")
        checks = checks_of(done)
        for name in ("versions", "opencv"):
            assert checks[name]["state"] == "problem"
            assert "libGL.so.1" in checks[name]["found"]
        assert checks["kit"]["found"] == "cannot be checked while a package is broken"

    def test_an_onnxruntime_that_cannot_be_imported(self, tmp_path):
        code = "raise ImportError('DLL load failed')"
        done = process(PYTHONPATH=self.package(tmp_path, "onnxruntime", code))
        assert (done.returncode, done.stderr) == (2, "")
        assert "onnxruntime cannot be imported: DLL load failed" in done.stdout
        assert done.stdout.splitlines()[-1] == "1 problem: versions"

    def test_an_onnxruntime_that_is_too_old(self, tmp_path):
        done = process(PYTHONPATH=self.package(tmp_path, "onnxruntime", "__version__ = '1.19.2'"))
        assert (done.returncode, done.stderr) == (2, "")
        assert "problem: versions: onnxruntime 1.19.2 is older than 1.20; " in done.stdout

    def test_the_oldest_onnxruntime_is_that_of_the_package(self):
        requirements = metadata.requires("msc-edge") or []
        assert f"onnxruntime>={package_checks.OLDEST_ONNXRUNTIME}" in requirements

    def test_an_hnswlib_for_another_processor_does_not_crash_the_doctor(self, toy_kit, tmp_path):
        code = "import os, signal; os.kill(os.getpid(), getattr(signal, 'SIGILL', signal.SIGTERM))"
        done = process(toy_kit, "--json", PYTHONPATH=self.package(tmp_path, "hnswlib", code))
        assert (done.returncode, done.stderr) == (2, "")
        checks = checks_of(done)
        assert checks["hnswlib"]["state"] == "problem"
        assert (toy_kit / INDEX_FILES["fp32"]).is_file()
        assert checks["kit"]["state"] == "note"
        assert "frames a second" in checks["latency, 1 thread"]["found"]


def test_an_empty_environment_is_enough(tmp_path):
    # PYTHONPATH: where this checkout is.
    environment = {"PATH": "", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(
        [sys.executable, "-m", "msc_edge", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(checks_of(done)) >= NAMES


@pytest.mark.skipif(sys.platform != "linux", reason="hides parts of Linux")
def test_a_machine_without_sys_proc_and_shared_memory_is_checked(toy_kit):
    unshare = shutil.which("unshare")
    covers = " && ".join(f"mount -t tmpfs none {place}" for place in ("/sys", "/proc", "/dev/shm"))
    enter = [unshare or "unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if unshare is None or subprocess.run([*enter, covers], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare may not hide folders from a process here")
    command = [sys.executable, "-c", PROGRAM, "doctor", str(toy_kit), "--json"]
    done = subprocess.run(
        [*enter, f'{covers} && exec "$@"', "sh", *command], capture_output=True, text=True, check=False, timeout=300
    )
    # onnxruntime reports on standard error what it lacks; a traceback would be ours.
    assert "Traceback" not in done.stderr
    checks = checks_of(done)
    assert done.returncode == 0, checks
    assert "frames a second" in checks["latency, 1 thread"]["found"]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_table_of_its_width():
    output = in_terminal([sys.executable, "-c", PROGRAM, "doctor"], columns=80)
    assert "-> msc-edge doctor KIT" in output
    assert max(len(line.rstrip()) for line in output.splitlines()) <= 80
    assert output.splitlines()[-1].strip() == "no problem found"


def in_terminal(command: list[str], *, columns: int) -> str:
    """What a program prints to a terminal of this width, without colours."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "COLUMNS": str(columns), "NO_COLOR": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ) as running:
        os.close(theirs)
        parts = []
        while select.select([ours], [], [], 120)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux reports this when the other side is closed
                break
            if not part:
                break
            parts.append(part)
        os.close(ours)
    assert running.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_the_command_is_described_without_importing_what_the_checks_need():
    program = (
        "import sys, msc_edge.runtime.tools.doctor.command\n"
        "print([m for m in ('numpy', 'cv2', 'onnxruntime', 'pydantic', 'hnswlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("json", [False, True])
def test_output_that_cannot_be_printed_is_an_output_error(monkeypatch, json):
    # What is still buffered fails once more when the file is closed.
    with suppress(OSError), Path("/dev/full").open("w") as full, monkeypatch.context() as context:
        context.setattr("sys.stdout", full)
        with pytest.raises(OutputError, match="cannot write standard output: No space left"):
            doctor(None, json=json)
