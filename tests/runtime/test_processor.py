import os
import subprocess
import sys

import pytest

from msc_edge.runtime.processor import processor_facts, processor_name, usable_cores


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
