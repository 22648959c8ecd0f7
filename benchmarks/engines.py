"""A kit in OpenVINO beside onnxruntime: how far embeddings and scores are apart, and how long they take.

    python benchmarks/backends.py KIT IMAGE_TABLE...

Needs `pip install 'msc-edge[openvino]'`. Scores of up to 90 of the images, evenly chosen. Time: a random frame in
memory, both backends in turns, median of 41.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from msc_edge.export.run_images import evenly
from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.openvino_backend import BackendName

ENGINES: tuple[BackendName, BackendName] = ("onnxruntime", "openvino")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("images", nargs="+")
    options = parser.parse_args()
    paths = evenly(find_images(options.images).paths, 90)
    with Kit.open(options.kit) as kit:
        for precision in kit.manifest.precisions:
            images = [read_image(path, kit.manifest.decode) for path in paths]
            one, other = (Detector.of(kit, threads=1, precision=precision, backend=backend) for backend in ENGINES)
            ours, theirs = (np.stack([each.embed(image) for image in images]) for each in (one, other))
            scores, others = (np.array([one.bank.score(row) for row in rows]) for rows in (ours, theirs))
            off = np.abs(others - scores) / scores
            print(
                f"{precision}, {len(paths)} images: embeddings differ by at most {np.abs(ours - theirs).max():.1e}, "
                f"scores by {np.median(off):.2%} (median) and {off.max():.2%} (most); "
                f"rank correlation {np.asarray(spearmanr(scores, others))[0]:.4f}",
                flush=True,
            )
            for threads in (1, 2):
                detectors = [Detector.of(kit, threads=threads, precision=precision, backend=each) for each in ENGINES]
                for width, height in ((224, 224), (1280, 720), (1920, 1080)):
                    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
                    took = np.empty((41, 2))
                    for number in range(len(took)):
                        for which, detector in enumerate(detectors):
                            begun = time.perf_counter()
                            detector.embed(frame)
                            took[number, which] = 1000 * (time.perf_counter() - begun)
                    first, second = np.median(took, axis=0)
                    print(
                        f"{precision}, {threads} threads, {width}x{height}: onnxruntime {first:.2f} ms, "
                        f"OpenVINO {second:.2f} ms, ratio {first / second:.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
