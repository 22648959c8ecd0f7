import math
import os
import subprocess
import sys

import pytest

from msc_edge.runtime.processor import cpu_quota, processor_facts, processor_name, usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_a_process_bound_to_one_core_uses_one():
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from msc_edge.runtime.processor import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_at_least_one_core_is_usable_and_no_more_than_there_are():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "34 24 0:29 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
UNIT = "sys/fs/cgroup/system.slice/system-msc.slice/msc-edge@line3.service"


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "expected"),
    [
        ("0::/\n", V2, {}, math.inf),
        ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # A unit with CPUQuota=200%, and the slices around it.
        ("0::/system.slice/system-msc.slice/msc-edge@line3.service\n", V2, {f"{UNIT}/cpu.max": "200000 100000\n"}, 2),
        (
            "0::/system.slice/system-msc.slice/msc-edge@line3.service\n",
            V2,
            {
                f"{UNIT}/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/system-msc.slice/cpu.max": "300000 50000\n",
                "sys/fs/cgroup/system.slice/cpu.max": "100000 50000\n",
            },
            2,
        ),
        ("0::/other.service\n", V2, {f"{UNIT}/cpu.max": "100000 100000\n"}, math.inf),
        # Version 1: other controllers have other paths, -1 is no limit.
        (
            "9:memory:/big\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/x\n",
            MEMORY + V1,
            {
                "sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        # A container without its own view of cgroups: its cgroup is mounted as the top.
        (
            "4:cpu,cpuacct:/docker/ab\n",
            V1.replace(" / ", " /docker/ab ", 1),
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            "0::/docker/ab/job\n",
            V2.replace(" / ", " /docker/ab ", 1),
            {"sys/fs/cgroup/job/cpu.max": "50000 100000"},
            0.5,
        ),
        ("0::/../outside\n", V2, {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        # Both versions at once: the CPU is controlled by one of them.
        (
            "4:cpu,cpuacct:/a\n0::/system.slice\n",
            V1 + V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
            {
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        ("", "", {}, math.inf),
        ("garbage\n:::\n\n", "garbage\n - \n", {}, math.inf),
        ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "a b c\n"}, math.inf),
        ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "100000 0\n"}, math.inf),
    ],
)
def test_the_smallest_quota_of_a_cgroup_and_its_ancestors_counts(tmp_path, cgroup, mounts, files, expected):
    files = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts, **files}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path) == expected
    assert usable_cores(tmp_path) == max(1, int(min(usable_cores(tmp_path / "no cgroups"), expected)))


def test_facts_are_those_of_the_first_core(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_bytes(b"processor\t: 0\nmodel name\t: A: B\xff\nflags\t\t: avx2\n\nprocessor\t: 1\nmodel name\t: C\n")
    assert processor_facts(cpuinfo) == {"processor": "0", "model name": "A: B\ufffd", "flags": "avx2", "": ""}
    assert processor_facts(tmp_path / "missing") == {}


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"model name": "Xeon", "Model": "board"}, "Xeon"),
        ({"Hardware": "BCM2835", "Model": "Raspberry Pi 4"}, "Raspberry Pi 4"),
        ({"Hardware": "BCM2835"}, "BCM2835"),
    ],
)
def test_the_name_is_the_processors_or_the_boards(facts, name):
    assert processor_name(facts) == name


def test_without_facts_python_gives_the_name():
    assert processor_name({})
