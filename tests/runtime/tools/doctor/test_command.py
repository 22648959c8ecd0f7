"""`msc-edge doctor` as an operator runs it: another process, on machines that lack one thing or another."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msc_edge.kit.layout import INDEX, MODEL

PROGRAM = [sys.executable, "-m", "msc_edge", "doctor"]


def doctor(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        timeout=300,
    )


def checks_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    report = json.loads(done.stdout)
    return {check["name"]: check for check in report["checks"]}


def distribution(place: Path, name: str) -> None:
    """What pip leaves when it has installed a package."""
    folder = place / f"{name.replace('-', '_')}-4.13.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.13.0\n")


def package(place: Path, name: str, code: str) -> None:
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(code)


@pytest.fixture(scope="module")
def healthy(toy_kit: Path) -> subprocess.CompletedProcess[str]:
    return doctor(toy_kit, "--json")


class TestWithAKit:
    def test_this_machine_has_no_problem(self, healthy):
        assert (healthy.returncode, healthy.stderr) == (0, "")
        report = json.loads(healthy.stdout)
        assert report["ok"] is True
        assert all(check["state"] in ("ok", "note") for check in report["checks"])

    def test_the_kit_is_verified_its_promise_told_and_its_speed_measured(self, healthy):
        checks = checks_of(healthy)
        assert "thumbnails/00000.jpg was scored" in checks["kit"]["found"]
        assert "expected to flag 7.7 % of good images" in checks["limits"]["found"]
        assert checks["limits"]["state"] == "note"  # twelve images cannot promise the 1 % that was asked for
        assert "1280x720" in checks["latency, 1 thread"]["found"]

    def test_a_damaged_kit_is_exit_code_4_and_the_rest_is_still_told(self, kit, change_byte):
        change_byte(kit / MODEL, 100)
        done = doctor(kit, "--json")
        assert (done.returncode, done.stderr) == (4, "")
        checks = checks_of(done)
        assert checks["kit"]["state"] == "problem"
        assert "SHA-256 differs" in checks["kit"]["found"]
        assert checks["versions"]["state"] == "ok"
        assert "left out" in checks["latency"]["found"]

    @pytest.mark.parametrize("name", ["missing", "zero\x1b[31m"])
    def test_a_kit_that_is_not_there_is_one_line(self, tmp_path, name):
        done = doctor(tmp_path / name)
        assert (done.returncode, done.stderr) == (4, "")
        assert [line for line in done.stdout.splitlines() if line.startswith("problem: kit: ")]
        assert "\x1b" not in done.stdout


class TestWithoutAKit:
    def test_a_line_each_and_a_verdict_at_the_end(self):
        done = doctor()
        assert (done.returncode, done.stderr) == (0, "")
        *lines, last = done.stdout.splitlines()
        assert all(line.split(": ")[0] in ("ok", "note") for line in lines)
        assert "note: latency: left out, for no kit was given; to do: msc-edge doctor KIT" in lines
        assert last == "no problem found"

    def test_two_distributions_of_opencv_are_a_problem(self, tmp_path):
        distribution(tmp_path, "opencv-python-headless")
        done = doctor("--json", PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (2, "")
        check = checks_of(done)["opencv"]
        assert check["state"] == "problem"
        assert check["remedy"].startswith("pip uninstall -y opencv-python opencv-python-headless")

    def test_the_same_distribution_found_twice_is_one(self, tmp_path):
        distribution(tmp_path, "opencv-python")
        assert doctor(PYTHONPATH=str(tmp_path)).returncode == 0

    def test_what_a_broken_installation_leaves_is_passed_over(self, tmp_path):
        (tmp_path / "half-1.0.dist-info").mkdir()
        (tmp_path / "other-1.0.dist-info").mkdir()
        (tmp_path / "other-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00")
        assert doctor(PYTHONPATH=str(tmp_path)).returncode == 0

    def test_an_opencv_that_cannot_be_loaded_is_told_with_its_reason(self, toy_kit, tmp_path):
        package(tmp_path, "cv2", "raise ImportError('libGL.so.1: cannot open shared object file')")
        done = doctor(toy_kit, "--json", PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (4, "")
        checks = checks_of(done)
        for name in ("versions", "opencv"):
            assert checks[name]["state"] == "problem"
            assert "libGL.so.1" in checks[name]["found"]
        assert checks["kit"]["state"] == "problem"
        plain = doctor(PYTHONPATH=str(tmp_path))
        assert (plain.returncode, plain.stderr) == (2, "")
        assert plain.stdout.splitlines()[-1] == "2 problems: versions, opencv"

    def test_an_onnxruntime_that_cannot_be_loaded_does_not_stop_the_others(self, tmp_path):
        package(tmp_path, "onnxruntime", "raise ImportError('DLL load failed')")
        done = doctor("--json", PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (2, "")
        checks = checks_of(done)
        assert "DLL load failed" in checks["versions"]["found"]
        assert checks["clock"]["state"] == "ok"

    @pytest.mark.skipif(os.name != "posix", reason="ends a process by a signal")
    def test_an_hnswlib_built_for_another_processor_does_not_end_the_doctor(self, toy_kit, tmp_path):
        """Its wheel dies with SIGILL there; the kit is then timed with exact search."""
        package(tmp_path, "hnswlib", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
        done = doctor(toy_kit, "--json", PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (2, "")
        checks = checks_of(done)
        assert checks["hnswlib"]["state"] == "problem"
        assert "HNSWLIB_NO_NATIVE=1" in checks["hnswlib"]["remedy"]
        assert (toy_kit / INDEX).is_file()
        assert checks["kit"]["state"] == "note"
        assert "frames a second" in checks["latency, 1 thread"]["found"]

    def test_an_empty_environment_is_enough(self, tmp_path):
        done = subprocess.run(
            [*PROGRAM, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": ""},
            cwd=tmp_path,
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert set(checks_of(done)) >= {"versions", "cameras", "clock"}


@pytest.mark.skipif(sys.platform != "linux", reason="hides parts of Linux")
@pytest.mark.parametrize("hidden", [["/sys"], ["/sys", "/proc", "/dev/shm"]], ids=" ".join)
def test_a_machine_that_shows_nothing_of_itself_is_looked_at_all_the_same(hidden, toy_kit):
    unshare = shutil.which("unshare")
    covers = " && ".join(f"mount -t tmpfs none {place}" for place in hidden)
    enter = [unshare or "unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    if unshare is None or subprocess.run([*enter, covers], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not hide folders from a process here (unshare)")
    done = subprocess.run(
        [*enter, f'{covers} && exec "$@"', "sh", *PROGRAM, str(toy_kit), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    # onnxruntime says on standard error what it misses; a traceback would be ours.
    assert "Traceback" not in done.stderr
    checks = checks_of(done)
    assert done.returncode == 0, checks
    assert "frames a second" in checks["latency, 1 thread"]["found"]


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal of its own")
def test_at_a_terminal_it_is_a_table_as_wide_as_that():
    output = in_terminal(PROGRAM, columns=80)
    assert "-> msc-edge doctor KIT" in output
    assert max(len(line.rstrip()) for line in output.splitlines()) <= 80
    assert output.splitlines()[-1].strip() == "no problem found"


def in_terminal(command: list[str], *, columns: int) -> str:
    """What a program shows on a terminal of that width, without colours."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "COLUMNS": str(columns), "NO_COLOR": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        parts = []
        while select.select([ours], [], [], 120)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side has closed
                break
            if not part:
                break
            parts.append(part)
        os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_help_is_told_without_loading_what_the_checks_need():
    program = (
        "import sys, msc_edge.runtime.tools.doctor.command\n"
        "print([m for m in ('numpy', 'cv2', 'onnxruntime', 'pydantic', 'hnswlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_output_that_cannot_be_written_is_exit_code_5(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300
        )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
