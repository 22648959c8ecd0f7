"""The processor: the cores this process may use, and what the system reports about it."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msc_edge.errors import UsageError


def usable_cores() -> int:
    """Cores this process may use, by its affinity and its cgroup's quota; not the cores of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here
        pass
    return cores


def check_threads(threads: int | None) -> None:
    """UsageError for a number of threads below 1; None is the default."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; expected at least 1")


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
