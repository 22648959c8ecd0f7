"""A process that starts, opens a kit, scores one image, and tells how long that took.

    python -m msc_edge.runtime.tools.bench.cold_start KIT PRECISION THREADS IMAGE.npy

It prints one line of JSON: seconds to `import`, to `load` the kit and for the `first` image, and the `resident`
mebibytes at the end, or null where the system does not tell.
"""

import time

_BEGUN = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from msc_edge.runtime import Detector  # noqa: E402


def resident() -> float | None:
    """Mebibytes of memory that this process holds; None where Linux's procfs is not there to tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kibibytes) / 1024


def main() -> None:
    """Measure and print."""
    kit, precision, threads, image = sys.argv[1:]
    imported = time.perf_counter()
    detector = Detector.load(kit, precision=precision, backend="onnxruntime", threads=int(threads))  # pyright: ignore[reportArgumentType]
    loaded = time.perf_counter()
    frame = np.load(image)
    read = time.perf_counter()
    detector.score(frame)
    scored = time.perf_counter()
    took = {"import": imported - _BEGUN, "load": loaded - imported, "first": scored - read, "resident": resident()}
    print(json.dumps(took))  # noqa: T201


if __name__ == "__main__":
    main()
