"""The machine: processor, cores, memory, disk, clock, display and cameras.

Where a check takes a path, it is the root of what the check reads, so that tests can pass files of another machine.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from msc_edge.runtime.processor import processor_facts, processor_name, usable_cores
from msc_edge.runtime.station import state_folder
from msc_edge.runtime.tools.doctor.checks import Check, run_checks
from msc_edge.text import size

# Displayed name -> the names that Linux and numpy use, in lower case without underscores.
_FEATURES = {
    "x86": {
        "AVX2": {"avx2"},
        "AVX-512": {"avx512f"},
        "VNNI": {"avx512vnni", "avxvnni"},
        "AMX": {"amxint8", "amxbf16"},
        "bf16": {"avx512bf16", "amxbf16"},
    },
    "ARM": {
        "NEON": {"neon", "asimd"},
        "dot product": {"asimddp"},
        "i8mm": {"i8mm"},
        "bf16": {"bf16"},
    },
}
_ENOUGH_MEMORY = 500e6  # bytes: scoring takes about 200 MB, the process of each camera about 100 MB more
_ENOUGH_DISK = 2.5e9  # bytes: limit of saved frames, result files and outbox together, by default
_LITTLE_DISK = 250e6  # bytes: limit of the outbox


def machine_checks() -> Iterator[Check]:
    """Every check of this machine, one after another. None of them raises."""
    return run_checks(processor, cores, memory, disk, clock, display, cameras)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """The processor's name, and which of the instructions that accelerate a network it has."""
    facts = processor_facts(cpuinfo)
    name = processor_name(facts)
    features = (facts.get("flags") or facts.get("Features") or "").split() or _numpy_features()
    present = {feature.lower().replace("_", "") for feature in features}
    if not present:
        return Check("processor", "note", f"{name}; its instruction sets cannot be determined here")
    family = "ARM" if present & _FEATURES["ARM"]["NEON"] else "x86"
    has = [shown for shown, names in _FEATURES[family].items() if names & present]
    lacks = [shown for shown in _FEATURES[family] if shown not in has]
    found = f"{name}: has {', '.join(has) or 'none of the instruction sets that accelerate a network'}"
    found += f"; not {', '.join(lacks)}" if lacks and has else ""
    if family == "x86" and "AVX2" not in has:
        remedy = "measure with your kit: msc-edge doctor KIT; if that is too slow, use a PC with AVX2"
        return Check("processor", "note", f"{found}; without AVX2 scoring is slow", remedy)
    return Check("processor", "ok", found)


def _numpy_features() -> list[str]:
    with suppress(Exception):  # not a public name of numpy, so it may move
        found = import_module("numpy._core._multiarray_umath").__cpu_features__
        return [name for name, present in found.items() if present]
    return []


def cores() -> Check:
    """The cores that this process may use, compared with those of the machine."""
    usable = usable_cores()
    total = os.cpu_count() or usable
    if usable < total:
        remedy = "to use more: change CPUAffinity= or CPUQuota= of the service, or --cpus of the container"
        return Check("cores", "note", f"{usable} of {total} may be used by this process", remedy)
    if total == 1:
        return Check("cores", "note", "1: decoding the camera's stream and scoring share it")
    return Check("cores", "ok", f"{total}, all of them may be used")


def memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Check:
    """Free memory, by the machine and by the limit of the container."""
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return Check("memory", "note", "cannot be determined here; about 500 MB should be free")
    within = ""
    with suppress(OSError, ValueError):  # "max", or no cgroup v2 here
        left = int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
        if left < free:
            free, within = max(0, left), " within the limit of the container"
    found = f"{size(free)} free{within}"
    if free < _ENOUGH_MEMORY:
        return Check("memory", "note", f"{found}: less than 500 MB", "close other programs, or raise the limit")
    return Check("memory", "ok", found)


def disk(folder: Path | None = None) -> Check:
    """Free space where a stream keeps its state, and whether this user may write there."""
    if folder is None:
        folder = state_folder()
    existing = next(path for path in (folder, *folder.absolute().parents) if _exists(path))
    free = shutil.disk_usage(existing).free
    found = f"{size(free)} free for {folder}"
    if not os.access(existing, os.W_OK):
        remedy = "set `state` in the stream's configuration to a writable folder; the service of deploy/ has its own"
        return Check("disk", "note", f"{found}, but this user may not write there", remedy)
    if free < _ENOUGH_DISK:
        remedy = "free some space, or lower max_mb of [images] and [outbox] and rotate_mb of [results]"
        state = "problem" if free < _LITTLE_DISK else "note"
        return Check("disk", state, f"{found}: a stream may use 2.5 GB by default", remedy)
    return Check("disk", "ok", found)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that this user may not enter
        return False


def clock(now: float | None = None) -> Check:
    """Whether the clock, in seconds since 1970, was ever set."""
    moment = time.localtime(time.time() if now is None else now)
    found = time.strftime("%Y-%m-%d %H:%M:%S %z", moment)
    if moment.tm_year < 2025:
        remedy = "sudo timedatectl set-ntp true, or set it by hand; a PC without network needs a good clock battery"
        return Check("clock", "problem", f"{found}: was never set; events would have wrong times", remedy)
    return Check("clock", "ok", found)


def display(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether --show can open a window."""
    if sys.platform in ("win32", "darwin"):
        return Check("display", "ok", "the desktop's; a service has none")
    if name := environment.get("DISPLAY"):
        return Check("display", "ok", f"X display {name}")
    if name := environment.get("WAYLAND_DISPLAY"):
        remedy = "for --show: start XWayland, which sets DISPLAY"
        return Check("display", "note", f"Wayland {name} without DISPLAY, and OpenCV's windows need X", remedy)
    return Check("display", "note", "none (DISPLAY is not set): --show runs without a window")


def cameras(devices: Path = Path("/dev"), system: Path = Path("/sys")) -> Check:
    """The webcams, by number and name, and whether this user may open them. None is opened."""
    if sys.platform != "linux":
        found = "this system does not list webcams; they are numbered from 0"
        where = "Settings > Bluetooth & devices > Cameras" if sys.platform == "win32" else "System Information > Camera"
        return Check("cameras", "note", found, f"see {where}, then try each one: msc-edge stream KIT 0 --show")
    nodes = sorted(
        (path for path in devices.glob("video*") if path.name[5:].isdecimal()), key=lambda path: int(path.name[5:])
    )
    if not nodes:
        remedy = "for a webcam: connect it; pass it to a container with --device /dev/video0"
        return Check("cameras", "note", "no webcam; network cameras and folders do not need one", remedy)
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    found = ", ".join(f"{node} ({_camera_name(system, node.name)})" for node in nodes)
    if closed:
        remedy = f"sudo usermod -aG video {_user()}, then log in again"
        names = ", ".join(node.name for node in closed)
        return Check("cameras", "problem", f"{found}; this user may not open {names}", remedy)
    return Check("cameras", "ok", found)


def _camera_name(system: Path, node: str) -> str:
    entry = system / "class" / "video4linux" / node
    try:
        name = (entry / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "name unknown"
    with suppress(OSError, ValueError):
        if int((entry / "index").read_text()) > 0:  # usually a node with metadata instead of images
            return f"{name}, second node"
    return name


def _user() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or "$USER"
