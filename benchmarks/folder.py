"""Scoring a folder: its wall time divided by (decoding + scoring on one thread) / cores.

    python benchmarks/folder.py KIT PHOTOGRAPHS.zip [--files 2000] [--rounds 5]

The files are the photographs of the zip, resized to mixed sizes, three quarters JPEG and one quarter PNG, in a
temporary folder. Each round measures one thread and then the folder; the result is the median ratio of the rounds. The
script also prints the peak resident memory of its process.
"""

import resource
import tempfile
import time
import zipfile
from collections import deque
from pathlib import Path

import cv2
import numpy as np
from common import parser_of, read_zipped, zipped_images

from msc_edge.images import bytes_of, decode_image
from msc_edge.runtime import Detector
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.processor import usable_cores

SIZES = [(320, 240), (640, 480), (800, 600), (1024, 768), (1280, 720), (1920, 1080)]


def write_files(photographs: Path, folder: Path, count: int) -> list[Path]:
    """Write `count` image files of mixed sizes."""
    paths = []
    with zipfile.ZipFile(photographs) as archive:
        names = zipped_images(archive)
        for number in range(count):
            photograph = read_zipped(archive, names[number % len(names)])[..., ::-1]
            image = cv2.resize(photograph, SIZES[number % len(SIZES)], interpolation=cv2.INTER_CUBIC)
            path = folder / f"{number:05d}{'.png' if number % 4 == 3 else '.jpg'}"
            cv2.imwrite(str(path), image)
            paths.append(path)
    return paths


def seconds_on_one_thread(detector: Detector, paths: list[Path]) -> tuple[float, float]:
    """Seconds of decoding and of scoring all files on this thread."""
    decoding = scoring = 0.0
    for path in paths:
        data = bytes_of(path)
        start = time.perf_counter()
        image = decode_image(data, detector.manifest.decode)
        decoded = time.perf_counter()
        detector.score(image)
        decoding += decoded - start
        scoring += time.perf_counter() - decoded
    return decoding, scoring


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("photographs", type=Path, metavar="PHOTOGRAPHS.zip", help="a zip of colour photographs")
    parser.add_argument("--files", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--precision", choices=["fp32", "int8"], default="fp32", help="the model of the kit; default: %(default)s"
    )
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
            decoding, scoring = seconds_on_one_thread(detector, paths)
            start = time.perf_counter()
            deque(score_images(detector, paths), maxlen=0)
            wall = time.perf_counter() - start
            ratios.append(wall / ((decoding + scoring) / cores))
            print(
                f"one thread: decoding {decoding:.2f} s, scoring {scoring:.2f} s; folder {wall:.2f} s, "
                f"{len(paths) / wall:.0f} images per second; ratio {ratios[-1]:.3f}",
                flush=True,
            )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"median ratio {np.median(ratios):.3f}; at most {memory:.0f} MB resident memory")


if __name__ == "__main__":
    main()
