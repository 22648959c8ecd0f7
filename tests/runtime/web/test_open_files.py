import resource
import subprocess
import sys

import pytest

from msc_edge.runtime.web.open_files import open_files_limit


def raised(soft: int, hard: int) -> list[int]:
    """The limits of a process that began with these and then raised them."""
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from msc_edge.runtime.web.open_files import raise_open_files_limit\n"
        "raise_open_files_limit(); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(each) for each in done.stdout.split()]


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(256, 1000, 1000), (256, 5000, 4096), (4500, 5000, 4500), (1000, 1000, 1000)]
)
def test_the_limit_is_raised_as_far_as_a_server_needs_and_the_system_permits(soft, hard, expected):
    assert raised(soft, hard) == [expected, hard]


def test_a_server_raises_its_limit(start, toy_kit):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        server = start(toy_kit)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] > 512


def test_the_limit_is_that_of_the_system():
    assert open_files_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
