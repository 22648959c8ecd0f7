"""A process that starts, opens a kit, scores one image, and prints how long each step took.

    python -m msc_edge.runtime.tools.bench.cold_start KIT PRECISION THREADS IMAGE.npy

It prints one line of JSON: seconds to `import`, to `load` the kit and to score the `first` image, and the `resident`
memory at the end in MiB, or null where the system does not report it.
"""

import time

_START = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from msc_edge.runtime import Detector  # noqa: E402


def resident() -> float | None:
    """Memory that this process holds, in MiB; None where Linux's procfs is missing."""
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
    before = time.perf_counter()
    detector.score(frame)
    scored = time.perf_counter()
    times = {"import": imported - _START, "load": loaded - imported, "first": scored - before, "resident": resident()}
    print(json.dumps(times))  # noqa: T201


if __name__ == "__main__":
    main()
