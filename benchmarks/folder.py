"""Scoring a folder: its wall time beside what decoding and scoring take on one thread, divided by the cores.

    python benchmarks/folder.py KIT PHOTOGRAPHS.zip [--files 2000] [--rounds 5]

The files are the photographs of the zip, scaled to mixed sizes, three in four as JPEG and the rest as PNG, written to a
temporary folder and read once before. Each round does both in turn. It also prints what a process holds in memory.
"""

import argparse
import resource
import tempfile
import time
import zipfile
from collections import deque
from pathlib import Path

import cv2
import numpy as np

from msc_edge.images import bytes_of, decode_image
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.batch import score_files

SIZES = [(320, 240), (640, 480), (800, 600), (1024, 768), (1280, 720), (1920, 1080)]


def write_files(photographs: Path, folder: Path, count: int) -> list[Path]:
    """`count` image files of mixed sizes."""
    paths = []
    with zipfile.ZipFile(photographs) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))
        for number in range(count):
            data = np.frombuffer(archive.read(names[number % len(names)]), np.uint8)
            size = SIZES[number % len(SIZES)]
            image = cv2.resize(decode_image(data)[..., ::-1], size, interpolation=cv2.INTER_CUBIC)
            path = folder / f"{number:05d}{'.png' if number % 4 == 3 else '.jpg'}"
            cv2.imwrite(str(path), image)
            paths.append(path)
    return paths


def one_after_another(detector: Detector, paths: list[Path]) -> tuple[float, float]:
    """Seconds that decoding, and scoring, take on this thread."""
    decoding = scoring = 0.0
    for path in paths:
        data = bytes_of(path)
        begun = time.perf_counter()
        image = decode_image(data, detector.manifest.decode)
        decoded = time.perf_counter()
        detector.score(image)
        decoding += decoded - begun
        scoring += time.perf_counter() - decoded
    return decoding, scoring


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "int8"], default="fp32")
    options = parser.parse_args()
    cores = usable_cores()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_files(options.photographs, Path(scratch), options.files)
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        print(f"{len(paths)} files, {megabytes:.0f} MB; {cores} cores; {options.precision}", flush=True)
        detector = Detector.load(options.kit, threads=1, precision=options.precision)
        ratios = []
        for _ in range(options.rounds):
            decoding, scoring = one_after_another(detector, paths)
            begun = time.perf_counter()
            deque(score_files(detector, paths), maxlen=0)
            wall = time.perf_counter() - begun
            ratios.append(wall / ((decoding + scoring) / cores))
            print(
                f"one thread: decoding {decoding:.2f} s, scoring {scoring:.2f} s; folder {wall:.2f} s, "
                f"{len(paths) / wall:.0f} images a second; ratio {ratios[-1]:.3f}",
                flush=True,
            )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"median ratio {np.median(ratios):.3f}; at most {memory:.0f} MB resident")


if __name__ == "__main__":
    main()
