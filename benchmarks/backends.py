"""The backends onnxruntime and OpenVINO with the same kit: difference of embeddings and scores, and time.

    python benchmarks/backends.py KIT IMAGES...

Needs `pip install 'msc-edge[openvino]'`. Scores: of up to 90 of the images, evenly chosen. Time: a random frame in
memory, both backends in turns, median of 41.
"""

from functools import partial
from pathlib import Path

import numpy as np
from common import parser_of, random_frame
from scipy.stats import spearmanr
from timing import medians

from msc_edge.export.run_images import evenly
from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.interface import BackendName

BACKENDS: tuple[BackendName, BackendName] = ("onnxruntime", "openvino")


def main() -> None:
    """Compare and measure each model of the kit."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files or folders")
    options = parser.parse_args()
    paths = evenly(find_images(options.images).paths, 90)
    with Kit.open(options.kit) as kit:
        for precision in kit.manifest.precisions:
            images = [read_image(path, kit.manifest.decode) for path in paths]
            one, other = (Detector.of(kit, threads=1, precision=precision, backend=backend) for backend in BACKENDS)
            ours, theirs = (np.stack([each.run(image).embedding for image in images]) for each in (one, other))
            scores, others = (np.array([one.bank.score(row) for row in rows]) for rows in (ours, theirs))
            difference = np.abs(others - scores) / scores
            print(
                f"{precision}, {len(paths)} images: embeddings differ by at most {np.abs(ours - theirs).max():.1e}, "
                f"scores by {np.median(difference):.2%} (median) and {difference.max():.2%} (maximum); "
                f"rank correlation {np.asarray(spearmanr(scores, others))[0]:.4f}",
                flush=True,
            )
            for threads in (1, 2):
                detectors = {
                    backend: Detector.of(kit, threads=threads, precision=precision, backend=backend)
                    for backend in BACKENDS
                }
                for width, height in ((224, 224), (1280, 720), (1920, 1080)):
                    frame = random_frame(width, height)
                    found = medians({name: partial(each.embed, frame) for name, each in detectors.items()}, rounds=41)
                    first, second = (found[backend] for backend in BACKENDS)
                    print(
                        f"{precision}, {threads} threads, {width}x{height}: onnxruntime {first:.2f} ms, "
                        f"OpenVINO {second:.2f} ms, ratio {first / second:.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
