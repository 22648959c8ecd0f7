"""Each check on a machine that is described by files, as its kernel would describe it."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.station import state_folder
from msc_edge.runtime.tools.doctor.machine_checks import (
    cameras,
    clock,
    cores,
    disk,
    display,
    machine_checks,
    memory,
    processor,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux shows its devices as files")

# /proc/cpuinfo of a server, an old Atom, a Raspberry Pi 4 and a newer ARM board.
XEON = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold\nflags\t\t: sse2 avx2 avx512f avx512_vnni amx_int8 amx_bf16\n"
)
ATOM = "processor\t: 0\nmodel name\t: Intel(R) Atom(TM) CPU\nflags\t\t: sse2 ssse3\n"
PI4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm cpuid\n\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n"


class TestProcessor:
    @pytest.mark.parametrize(
        ("cpuinfo", "state", "found"),
        [
            (XEON, "ok", "Intel(R) Xeon(R) Gold: has AVX2, AVX-512, VNNI, AMX, bf16"),
            (
                ATOM,
                "note",
                "Intel(R) Atom(TM) CPU: has none of the instruction sets that accelerate a network; "
                "without AVX2 scoring is slow",
            ),
            (PI4, "ok", "Raspberry Pi 4 Model B: has NEON; not dot product, i8mm, bf16"),
        ],
        ids=["Xeon", "Atom", "Pi"],
    )
    def test_name_and_instruction_sets_are_those_of_the_kernel(self, tmp_path, cpuinfo, state, found):
        path = tmp_path / "cpuinfo"
        path.write_text(cpuinfo)
        assert (processor(path).state, processor(path).found) == (state, found)

    def test_an_arm_kernel_without_a_name_has_its_instruction_sets(self, tmp_path):
        path = tmp_path / "cpuinfo"
        path.write_text(ARM)
        assert processor(path).found.endswith("has NEON, dot product, i8mm, bf16")

    def test_without_cpuinfo_numpy_reports_the_same_of_avx2(self, tmp_path):
        check = processor(tmp_path / "missing")
        assert check.state in ("ok", "note")
        if Path("/proc/cpuinfo").is_file():
            assert ("has AVX2" in check.found) == ("has AVX2" in processor().found)


class TestCores:
    def test_they_are_those_that_scoring_uses(self):
        assert cores().found.startswith(str(usable_cores()))

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
    def test_a_process_bound_to_one_core_gets_a_note(self):
        core = min(os.sched_getaffinity(0))
        program = (
            f"import os; os.sched_setaffinity(0, [{core}]); "
            "from msc_edge.runtime.tools.doctor.machine_checks import cores; print(cores().state, cores().found)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"note 1 of {os.cpu_count()} may be used by this process"


@linux_only
class TestCameras:
    @pytest.fixture
    def machine(self, tmp_path):
        """A webcam with its two nodes, a camera without a name, and devices that are not cameras."""
        devices, system = tmp_path / "dev", tmp_path / "sys"
        devices.mkdir()
        for name in ("video0", "video1", "video10", "videodev", "vcs1"):
            (devices / name).touch()
        for node, index in (("video0", 0), ("video1", 1)):
            about = system / "class" / "video4linux" / node
            about.mkdir(parents=True)
            (about / "name").write_text("HD Pro Webcam C920\n")
            (about / "index").write_text(f"{index}\n")
        return devices, system

    def test_they_are_listed_in_the_order_of_their_numbers(self, machine):
        devices, system = machine
        check = cameras(devices, system)
        assert check.state == "ok"
        assert check.found == (
            f"{devices}/video0 (HD Pro Webcam C920), {devices}/video1 (HD Pro Webcam C920, second node), "
            f"{devices}/video10 (name unknown)"
        )

    def test_a_pc_without_a_camera_gets_a_note(self, tmp_path):
        assert cameras(tmp_path, tmp_path).state == "note"

    def test_one_that_this_user_may_not_open_is_a_problem_with_a_remedy(self):
        # Root may open everything, so root changes to another user first; in a folder that this user may enter.
        program = (
            "import os, sys; from pathlib import Path\n"
            "from msc_edge.runtime.tools.doctor.machine_checks import cameras\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "check = cameras(Path(sys.argv[1]), Path(sys.argv[1])); print(check.state, check.found, check.remedy)"
        )
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            place.chmod(0o755)
            (place / "video0").touch()
            (place / "video0").chmod(0)
            done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("problem ")
        assert "may not open video0" in done.stdout
        assert "usermod -aG video" in done.stdout


class TestMemory:
    @pytest.mark.parametrize(("kilobytes", "state"), [(8_000_000, "ok"), (200_000, "note")])
    def test_it_is_what_the_kernel_reports_as_available(self, tmp_path, kilobytes, state):
        (tmp_path / "meminfo").write_text(f"MemTotal: 9000000 kB\nMemAvailable:   {kilobytes} kB\n")
        assert memory(tmp_path / "meminfo", tmp_path).state == state

    def test_a_container_may_have_less_than_the_machine(self, tmp_path):
        (tmp_path / "meminfo").write_text("MemAvailable: 8000000 kB\n")
        (tmp_path / "memory.max").write_text("536870912\n")
        (tmp_path / "memory.current").write_text("436870912\n")
        check = memory(tmp_path / "meminfo", tmp_path)
        assert (check.state, check.found) == (
            "note",
            "100.0 MB free within the limit of the container: less than 500 MB",
        )

    def test_a_container_without_a_limit_has_the_memory_of_the_machine(self, tmp_path):
        (tmp_path / "meminfo").write_text("MemAvailable: 8000000 kB\n")
        (tmp_path / "memory.max").write_text("max\n")
        (tmp_path / "memory.current").write_text("436870912\n")
        assert memory(tmp_path / "meminfo", tmp_path).found == "8.2 GB free"

    @pytest.mark.parametrize("content", [None, "", "MemTotal: 1 kB\n"])
    def test_where_it_cannot_be_determined_it_is_a_note(self, tmp_path, content):
        if content is not None:
            (tmp_path / "meminfo").write_text(content)
        assert memory(tmp_path / "meminfo", tmp_path).state == "note"


class TestDisk:
    def test_a_missing_folder_is_checked_by_its_nearest_parent(self, tmp_path):
        wanted = tmp_path / "not" / "yet"
        assert str(wanted) in disk(wanted).found
        assert not wanted.exists()

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that no user may write to")
    def test_a_full_or_closed_place_is_not_ok(self):
        assert disk(Path("/proc/self")).state != "ok"

    def test_the_folder_is_that_of_the_stream(self, monkeypatch, tmp_path):
        monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
        assert f"free for {tmp_path}/a" in disk().found
        monkeypatch.delenv("STATE_DIRECTORY")
        assert f"free for {state_folder()}" in disk().found

    @pytest.mark.parametrize(("free", "state"), [(10e9, "ok"), (1e9, "note"), (100e6, "problem")])
    def test_little_space_is_a_note_and_too_little_a_problem(self, monkeypatch, tmp_path, free, state):
        usage = shutil.disk_usage(tmp_path)._replace(free=int(free))
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
        assert disk(tmp_path).state == state


class TestClock:
    @pytest.mark.parametrize(("now", "state"), [(0, "problem"), (1_700_000_000, "problem"), (1_800_000_000, "ok")])
    def test_a_clock_before_2025_was_never_set(self, now, state):
        assert clock(now).state == state

    def test_the_clock_of_this_machine_is_set(self):
        assert clock().state == "ok"


class TestDisplay:
    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="this system always has a desktop")
    @pytest.mark.parametrize(
        ("environment", "state"),
        [
            ({"DISPLAY": ":0"}, "ok"),
            ({"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}, "ok"),
            ({"WAYLAND_DISPLAY": "wayland-0"}, "note"),
            ({"DISPLAY": ""}, "note"),
            ({}, "note"),
        ],
    )
    def test_windows_of_opencv_need_x(self, environment, state):
        assert display(environment).state == state


def test_every_problem_has_a_remedy_and_every_name_is_unique():
    checks = list(machine_checks())
    assert [check.name for check in checks] == ["processor", "cores", "memory", "disk", "clock", "display", "cameras"]
    assert [check for check in checks if check.state == "problem" and not check.remedy] == []
