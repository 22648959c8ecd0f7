"""What `msc-edge doctor` looks at on a machine. Each check looks at one thing; kit_checks.py has those of a kit.

Nothing heavy is imported with this module: a package that cannot be imported is what a check is there to find.
Where a check takes a path, it is the root of what it reads, so that it can be pointed at another machine's.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from msc_edge import __version__
from msc_edge.runtime.processor import processor_facts, processor_name
from msc_edge.runtime.station import state_folder
from msc_edge.runtime.tools.doctor.check import Check, checked
from msc_edge.text import size

_OPENCV_NAMES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# What is shown, and how Linux and numpy spell it: in small letters, without underscores.
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
_ENOUGH_MEMORY = 500e6  # bytes: scoring takes about 200 MB, each camera's process about 100 MB more
_ENOUGH_DISK = 2.5e9  # bytes: what saved frames, result files and the outbox may take by default
_LITTLE_DISK = 250e6  # bytes: the outbox alone
# An index of three vectors is built and asked: this runs the instructions that the wheel was built for.
_TRY_HNSWLIB = (
    "import hnswlib, numpy; i = hnswlib.Index('cosine', 64); i.init_index(3); "
    "i.add_items(numpy.eye(3, 64, dtype='float32')); i.knn_query(numpy.eye(1, 64, dtype='float32'), k=1)"
)


def machine_checks() -> Iterator[Check]:
    """Every check of this machine, one after another. None of them raises."""
    for name, check in (
        ("versions", versions),
        ("processor", processor),
        ("cores", cores),
        ("opencv", opencv),
        ("hnswlib", hnswlib),
        ("display", display),
        ("cameras", cameras),
        ("memory", memory),
        ("disk", disk),
        ("clock", clock),
    ):
        yield checked(name, check)


def versions() -> Check:
    """The versions at work, and whether what scoring needs can be imported at all."""
    good = [f"msc-edge {__version__}", f"Python {platform.python_version()}"]
    broken = []
    for shown, name in (("onnxruntime", "onnxruntime"), ("OpenCV", "cv2"), ("numpy", "numpy")):
        try:
            good.append(f"{shown} {import_module(name).__version__}")
        except Exception as error:  # numpy's on an old processor is a RuntimeError
            broken.append(f"{shown} cannot be imported: {str(error).strip().partition(chr(10))[0]}")
    good.append(platform.platform(terse=True))
    if not broken:
        return Check("versions", "ok", ", ".join(good))
    remedy = "install again: pip install --force-reinstall msc-edge"
    if sys.platform == "linux" and any(line.startswith("OpenCV") for line in broken):
        remedy += "; OpenCV's own needs on Debian and Ubuntu: apt install libgl1 libglib2.0-0 libxcb1"
    return Check("versions", "problem", "; ".join([*broken, ", ".join(good)]), remedy)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """The processor's name, and which of the instructions that speed up a network it has."""
    about = processor_facts(cpuinfo)
    name = processor_name(about)
    spelt = (about.get("flags") or about.get("Features") or "").split() or _numpy_features()
    has = {feature.lower().replace("_", "") for feature in spelt}
    if not has:
        return Check("processor", "note", f"{name}; its features cannot be found out here")
    family = "ARM" if has & _FEATURES["ARM"]["NEON"] else "x86"
    present = [shown for shown, names in _FEATURES[family].items() if names & has]
    absent = [shown for shown in _FEATURES[family] if shown not in present]
    found = f"{name}: has {', '.join(present) or 'none of what speeds up a network'}"
    found += f"; not {', '.join(absent)}" if absent and present else ""
    if family == "x86" and "AVX2" not in present:
        remedy = "measure with your kit: msc-edge doctor KIT; where that is too slow, take a PC with AVX2"
        return Check("processor", "note", f"{found}; without AVX2 scoring is slow", remedy)
    return Check("processor", "ok", found)


def _numpy_features() -> list[str]:
    with suppress(Exception):  # not a public name of numpy, so it may move
        found = import_module("numpy._core._multiarray_umath").__cpu_features__
        return [name for name, present in found.items() if present]
    return []


def cores() -> Check:
    """Cores that this process may use against those of the machine."""
    usable = import_module("msc_edge.runtime.processor").usable_cores()
    total = os.cpu_count() or usable
    if usable < total:
        remedy = "for more: the service's CPUAffinity= or CPUQuota=, or the container's --cpus"
        return Check("cores", "note", f"{usable} of the machine's {total} may be used here", remedy)
    if total == 1:
        return Check("cores", "note", "one: decoding the camera's stream and scoring share it")
    return Check("cores", "ok", f"{total}, all of which may be used")


def opencv() -> Check:
    """Which OpenCV is installed, that it is one only, and what that build can do."""
    names: dict[str, str] = {}
    for distribution in metadata.distributions():
        with suppress(Exception):  # what an interrupted pip leaves behind has no name
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            if name in _OPENCV_NAMES:
                names.setdefault(name, distribution.version)
    shown = " and ".join(f"{name} {names[name]}" for name in sorted(names))
    if len(names) > 1:
        remedy = f"pip uninstall -y {' '.join(sorted(names))}, then: pip install opencv-python"
        return Check("opencv", "problem", f"{shown} are both installed: they overwrite each other's files", remedy)
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        reason = str(error).strip().partition("\n")[0]
        return Check("opencv", "problem", f"{shown or 'none is installed'}: {reason}", "see versions, above")
    if not names:
        remedy = "pip install opencv-python, and remove the other"
        return Check("opencv", "problem", f"none that pip installed; cv2 comes from {cv2.__file__}", remedy)
    has, lacks = _build_of(cv2)
    found = f"{shown}, with {', '.join(has) or 'nothing'}" + (f"; without {', '.join(lacks)}" if lacks else "")
    if not lacks:
        return Check("opencv", "ok", found)
    remedy = "pip install opencv-python instead: FFMPEG reads streams and videos, V4L2 or MSMF webcams, a GUI is --show"
    return Check("opencv", "note", found, remedy)


def _build_of(cv2: object) -> tuple[list[str], list[str]]:
    registry = cv2.videoio_registry  # pyright: ignore[reportAttributeAccessIssue]
    backends = {registry.getBackendName(number) for number in registry.getCameraBackends()}
    backends |= {registry.getBackendName(number) for number in registry.getStreamBackends()}
    webcams = {"linux": "V4L2", "win32": "MSMF", "darwin": "AVFOUNDATION"}.get(sys.platform, "V4L2")
    window = cv2.currentUIFramework()  # pyright: ignore[reportAttributeAccessIssue]
    parts = {"FFMPEG": "FFMPEG" in backends, webcams: webcams in backends, f"GUI {window}".strip(): bool(window)}
    return [name for name, there in parts.items() if there], [name for name, there in parts.items() if not there]


def hnswlib() -> Check:
    """Whether hnswlib is there, and runs here: it is tried in a process of its own."""
    if find_spec("hnswlib") is None:
        return Check("hnswlib", "note", "not installed: banks are searched exactly, with the same scores")
    tried = subprocess.run(
        [sys.executable, "-P", "-c", _TRY_HNSWLIB], capture_output=True, text=True, timeout=60, check=False
    )
    if tried.returncode == 0:
        return Check("hnswlib", "ok", f"{metadata.version('hnswlib')}, works")
    said = tried.stderr.strip().splitlines()
    # A wheel is built for the processor of the machine that built it, and ends the process on a lesser one.
    reason = said[-1] if said else f"it ends the process ({tried.returncode})"
    remedy = "pip uninstall hnswlib, or build its wheel for any processor: HNSWLIB_NO_NATIVE=1 pip wheel hnswlib"
    return Check("hnswlib", "problem", f"installed, and does not work here: {reason}", remedy)


def display(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether --show can open a window."""
    if sys.platform in ("win32", "darwin"):
        return Check("display", "ok", "the desktop's; a service has none")
    if shown := environment.get("DISPLAY"):
        return Check("display", "ok", f"X display {shown}")
    if shown := environment.get("WAYLAND_DISPLAY"):
        remedy = "for --show: start XWayland, which sets DISPLAY"
        return Check("display", "note", f"Wayland {shown} without DISPLAY, and OpenCV's windows need X", remedy)
    return Check("display", "note", "none (DISPLAY is not set): --show goes on without a window")


def cameras(devices: Path = Path("/dev"), system: Path = Path("/sys")) -> Check:
    """The webcams, by number and name, and whether this user may open them. None is opened."""
    if sys.platform != "linux":
        found = "this system does not list webcams to a program; they count from 0"
        where = "Settings > Bluetooth & devices > Cameras" if sys.platform == "win32" else "System Information > Camera"
        return Check("cameras", "note", found, f"see {where}, then try each: msc-edge stream KIT 0 --show")
    nodes = sorted(
        (path for path in devices.glob("video*") if path.name[5:].isdecimal()), key=lambda path: int(path.name[5:])
    )
    if not nodes:
        remedy = "for a webcam: plug it in; a container must be given it: --device /dev/video0"
        return Check("cameras", "note", "no webcam; cameras on the network and folders need none", remedy)
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    found = ", ".join(f"{node} ({_camera_name(system, node.name)})" for node in nodes)
    if closed:
        remedy = f"sudo usermod -aG video {_user()}, then log in again"
        names = ", ".join(node.name for node in closed)
        return Check("cameras", "problem", f"{found}; this user may not open {names}", remedy)
    return Check("cameras", "ok", found)


def _camera_name(system: Path, node: str) -> str:
    about = system / "class" / "video4linux" / node
    try:
        name = (about / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "name unknown"
    with suppress(OSError, ValueError):
        if int((about / "index").read_text()) > 0:  # such a node mostly carries metadata, and no images
            return f"{name}, its further node"
    return name


def _user() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or "$USER"


def memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> Check:
    """Memory that is free for use, by the machine and by the container's limit."""
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return Check("memory", "note", "cannot be found out here; about 500 MB should be free")
    by = ""
    with suppress(OSError, ValueError):  # "max", or no cgroup v2 here
        left = int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
        if left < free:
            free, by = max(0, left), " within the container's limit"
    found = f"{size(free)} free{by}"
    if free < _ENOUGH_MEMORY:
        return Check("memory", "note", f"{found}, which is little", "close other programs, or raise the limit")
    return Check("memory", "ok", found)


def disk(folder: Path | None = None) -> Check:
    """Space where a stream keeps its state, and whether this user may write there."""
    if folder is None:
        folder = state_folder()
    place = next(path for path in (folder, *folder.absolute().parents) if _is_there(path))
    free = shutil.disk_usage(place).free
    found = f"{size(free)} free for {folder}"
    if not os.access(place, os.W_OK):
        remedy = "give the stream a `state` folder that it may write to; the service of deploy/ has its own"
        return Check("disk", "note", f"{found}, where this user may not write", remedy)
    if free < _ENOUGH_DISK:
        remedy = "free some space, or lower max_mb of [images], [outbox] and rotate_mb of [results]"
        return Check("disk", "problem" if free < _LITTLE_DISK else "note", f"{found}, which is little", remedy)
    return Check("disk", "ok", found)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # behind a folder that this user may not enter
        return False


def clock(now: float | None = None) -> Check:
    """Whether the clock, seconds since 1970, was ever set."""
    moment = time.localtime(time.time() if now is None else now)
    found = time.strftime("%Y-%m-%d %H:%M:%S %z", moment)
    if moment.tm_year < 2025:
        remedy = "sudo timedatectl set-ntp true, or set it by hand; without network a PC needs a good clock battery"
        return Check("clock", "problem", f"{found}: was never set; events would have wrong times", remedy)
    return Check("clock", "ok", found)
