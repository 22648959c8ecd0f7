"""The processor: the cores this process may use, and what the system reports about it."""

import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from msc_edge.arguments import whole_argument

_MOST_THREADS = 4096


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may use, by its affinity and the quotas of its cgroups; not the cores of the machine.

    `root`: where /proc and the mounted cgroups are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_quota(root))))


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores that the cgroups of this process allow, such as 1.5; infinite without a limit.

    The smallest quota counts, from the cgroup of the process up to the top: a container, a unit with `CPUQuota=` and
    the slices around it may each have one. Versions 1 and 2 of cgroups, see cgroups(7).
    """
    return min((_quota_of(folder) for folder in _cgroup_folders(root)), default=math.inf)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """The folder of each cgroup that limits this process, and those of its ancestors."""
    paths: dict[str, PurePosixPath] = {}  # of this process: type of file system -> path below the top of the hierarchy
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            paths["cgroup"] = PurePosixPath(path)
        elif number == "0" and not controllers:
            paths["cgroup2"] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in paths:
            continue
        if kind[0] == "cgroup" and "cpu" not in kind[2].split(","):
            continue
        top = root / fields[4].replace("\\040", " ").lstrip("/")
        path, mounted = paths[kind[0]], PurePosixPath(fields[3])
        # In a container the mount may begin at its own cgroup, and the path at the top of the host or outside.
        below = (
            path.relative_to(mounted) if path.is_relative_to(mounted) and ".." not in path.parts else PurePosixPath()
        )
        folder = top / below
        yield folder
        while folder != top:
            folder = folder.parent
            yield folder


def _quota_of(folder: Path) -> float:
    """Cores that one cgroup allows."""
    limit = [*_lines(folder / "cpu.max"), ""][0].split()
    if not limit:
        limit = [*_lines(folder / "cpu.cfs_quota_us")[:1], *_lines(folder / "cpu.cfs_period_us")[:1]]
    try:
        quota, period = (int(value) for value in limit)
    except ValueError:  # "max", or no quota at all
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not this version of cgroups, or another system
        return []


def check_threads(threads: int | None) -> None:
    """UsageError for what is no number of threads; None is the default."""
    if threads is not None:
        whole_argument("threads", threads, least=1, most=_MOST_THREADS)


def processor_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The entries of the first core in Linux's cpuinfo; empty on other systems."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    return facts


def processor_name(facts: Mapping[str, str]) -> str:
    """The processor's name from `processor_facts`, or as Python reports it."""
    # ARM kernels name the board, under "Model" or "Hardware", instead of the processor.
    names = (facts.get(key) for key in ("model name", "Model", "Hardware"))
    return next((name for name in names if name), platform.processor() or platform.machine() or "unknown")
