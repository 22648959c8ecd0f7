"""What the system tells of the processor."""

import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def about_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The first core's entries in Linux's cpuinfo; none on other systems."""
    about: dict[str, str] = {}
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            about.setdefault(key.strip(), value.strip())
    return about


def processor_name(about: Mapping[str, str]) -> str:
    """Its name, from what `about_processor` found, or as Python knows it."""
    # ARM kernels name the board, under "Model" or "Hardware", and not the processor.
    named = (about.get(key) for key in ("model name", "Model", "Hardware"))
    return next((value for value in named if value), platform.processor() or platform.machine() or "unknown")
