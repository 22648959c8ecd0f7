"""The packages that scoring needs: versions, OpenCV's build, hnswlib.

Nothing heavy is imported with this module: a package that cannot be imported is what these checks find.
"""

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec

from msc_edge import __version__
from msc_edge.runtime.tools.doctor.checks import Check, run_checks

_OPENCV_NAMES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
OLDEST_ONNXRUNTIME = "1.20"
"""As pyproject.toml states: the oldest version that the tests of the backends were run with."""
# Builds and searches an index of three vectors: this executes the instructions that the wheel was built for.
_TRY_HNSWLIB = (
    "import hnswlib, numpy; i = hnswlib.Index('cosine', 64); i.init_index(3); "
    "i.add_items(numpy.eye(3, 64, dtype='float32')); i.knn_query(numpy.eye(1, 64, dtype='float32'), k=1)"
)


def package_checks() -> Iterator[Check]:
    """Every check of the installed packages, one after another. None of them raises."""
    return run_checks(versions, opencv, hnswlib)


def versions() -> Check:
    """The installed versions, and whether the packages that scoring needs can be imported."""
    found = [f"msc-edge {__version__}", f"Python {platform.python_version()}"]
    broken = []
    for shown, name in (("onnxruntime", "onnxruntime"), ("OpenCV", "cv2"), ("numpy", "numpy")):
        try:
            version = import_module(name).__version__
            found.append(f"{shown} {version}")
            if name == "onnxruntime" and _numbers(version) < _numbers(OLDEST_ONNXRUNTIME):
                broken.append(f"onnxruntime {version} is older than {OLDEST_ONNXRUNTIME}")
        except Exception as error:  # numpy raises a RuntimeError on an old processor
            broken.append(f"{shown} cannot be imported: {_first_line(error)}")
    found.append(platform.platform(terse=True))
    if not broken:
        return Check("versions", "ok", ", ".join(found))
    remedy = "reinstall: pip install --force-reinstall msc-edge"
    if sys.platform == "linux" and any(line.startswith("OpenCV") for line in broken):
        remedy += "; libraries that OpenCV needs on Debian and Ubuntu: apt install libgl1 libglib2.0-0 libxcb1"
    return Check("versions", "problem", "; ".join([*broken, ", ".join(found)]), remedy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2])


def opencv() -> Check:
    """Which OpenCV is installed, whether it is the only one, and what its build supports."""
    names: dict[str, str] = {}
    for distribution in metadata.distributions():
        with suppress(Exception):  # the remains of an interrupted pip have no name
            name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
            if name in _OPENCV_NAMES:
                names.setdefault(name, distribution.version)
    installed = " and ".join(f"{name} {names[name]}" for name in sorted(names))
    if len(names) > 1:
        remedy = f"pip uninstall -y {' '.join(sorted(names))}, then: pip install opencv-python"
        return Check("opencv", "problem", f"{installed} are both installed: they overwrite each other's files", remedy)
    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        return Check(
            "opencv", "problem", f"{installed or 'not installed'}: {_first_line(error)}", "see the check versions"
        )
    if not names:
        remedy = "pip install opencv-python, and remove the other one"
        return Check("opencv", "problem", f"not installed by pip; cv2 comes from {cv2.__file__}", remedy)
    supported, missing = _build_of(cv2)
    found = f"{installed}, with {', '.join(supported) or 'nothing'}"
    if not missing:
        return Check("opencv", "ok", found)
    remedy = "pip install opencv-python: streams and videos need FFMPEG, webcams V4L2 or MSMF, --show a GUI"
    return Check("opencv", "note", f"{found}; without {', '.join(missing)}", remedy)


def _build_of(cv2: object) -> tuple[list[str], list[str]]:
    """What the build supports and what it lacks, of the parts that a stream may need."""
    registry = cv2.videoio_registry  # pyright: ignore[reportAttributeAccessIssue]
    backends = {registry.getBackendName(number) for number in registry.getCameraBackends()}
    backends |= {registry.getBackendName(number) for number in registry.getStreamBackends()}
    webcams = {"linux": "V4L2", "win32": "MSMF", "darwin": "AVFOUNDATION"}.get(sys.platform, "V4L2")
    window = cv2.currentUIFramework()  # pyright: ignore[reportAttributeAccessIssue]
    parts = {"FFMPEG": "FFMPEG" in backends, webcams: webcams in backends, f"GUI {window}".strip(): bool(window)}
    return [name for name, has in parts.items() if has], [name for name, has in parts.items() if not has]


def hnswlib() -> Check:
    """Whether hnswlib is installed and works here. It runs in a process of its own, which it may crash."""
    if find_spec("hnswlib") is None:
        return Check("hnswlib", "note", "not installed: exact search is used, with the same scores")
    tried = subprocess.run(
        [sys.executable, "-P", "-c", _TRY_HNSWLIB], capture_output=True, text=True, timeout=60, check=False
    )
    if tried.returncode == 0:
        return Check("hnswlib", "ok", f"{metadata.version('hnswlib')}, works")
    lines = tried.stderr.strip().splitlines()
    # A wheel is built for the processor of the machine that built it, and crashes on an older one.
    reason = lines[-1] if lines else f"it crashes the process (exit code {tried.returncode})"
    remedy = "pip uninstall hnswlib, or build a wheel for any processor: HNSWLIB_NO_NATIVE=1 pip wheel hnswlib"
    return Check("hnswlib", "problem", f"installed, but does not work here: {reason}", remedy)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
