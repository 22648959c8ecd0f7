"""After how many images `drift_suspected` comes, and how often without a drift, with real images.

    python benchmarks/drift_calls.py --shared ../shared [--orders 100] [--work DIR]

Half of the tiles of magnetic_tile make a kit (frozen, default options otherwise). The images of the others come in a
random order, one after the other, again and again in new orders. The first BEFORE come as they are; then one thing
changes, at once or over RAMP images, to its end:

- lamp fades: each pixel times 0.7. lens fogs: half of the contrast is lost to grey, and a blur of 1.5 pixels of a view
  of 224. camera shifts: 3 % of the longer side, at once.

Printed: the share of orders without a change that are called within ORDER images (at most 1 % is promised, over any
number of images), and of the orders with each change, the median and the largest number of images from its beginning
until the call, and those that were not called.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from common import SHARED, parser_of, run_msc_edge, tiles_of
from drift import moved, scaled
from false_alarms import normal_images

from msc_edge.drift import DriftTest, independent
from msc_edge.images import read_image
from msc_edge.runtime import Detector

BEFORE, RAMP, ORDER = 150, 200, 450
STEPS = 8  # severities from none to the end of a change


def fogged(image: np.ndarray, share: float) -> np.ndarray:
    """A part of the contrast is lost to grey, and edges are blurred."""
    deviation = 1.5 * share * max(image.shape[:2]) / 224
    blurred = cv2.GaussianBlur(image, (0, 0), deviation) if share else image
    return np.clip(np.rint(blurred + 0.5 * share * (128.0 - blurred)), 0, 255).astype(np.uint8)


def pushed(image: np.ndarray, share: float) -> np.ndarray:
    """The camera has moved to the side."""
    return moved(image, np.array([[1, 0, 0.03 * share * max(image.shape[:2])], [0, 1, 0]], np.float64))


CHANGES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "lamp fades": lambda image, share: scaled(image, 1 - 0.3 * share),
    "lens fogs": fogged,
    "camera shifts": pushed,
}


def kit_of(trained: list[Path], work: Path) -> Detector:
    """A kit of the images."""
    (work / "normal").mkdir()
    for path in trained:
        (work / "normal" / path.name).symlink_to(path.resolve())
    run_msc_edge("train", "--normal", work / "normal", "--out", work / "run", "--steps", 0)
    run_msc_edge("export", work / "run", "--out", work / "kit", "--precision", "fp32")
    return Detector.load(work / "kit", threads=2)


def called_after(detector: Detector, scores: np.ndarray) -> int | None:
    """The number of images until a drift is called."""
    test = DriftTest(independent(detector.calibration), detector.limits.reject.score)
    return next((number for number, score in enumerate(scores, start=1) if test.add(score)), None)


def measure(options: argparse.Namespace, work: Path) -> None:
    """Score all images at all severities, then put them in orders."""
    paths = normal_images(options.shared)
    tiles = tiles_of([path.name for path in paths])
    in_kit = np.isin(tiles, np.random.default_rng(0).permutation(tiles.max() + 1)[: (tiles.max() + 1) // 2])
    detector = kit_of([path for path, known in zip(paths, in_kit, strict=True) if known], work)
    images = [read_image(path) for path, known in zip(paths, in_kit, strict=True) if not known]
    print(f"{in_kit.sum()} images in the kit, {len(images)} others, {detector.calibration.independent:.0f} independent")
    plain = np.array([detector.score(image).score for image in images])
    random = np.random.default_rng(1)
    orders = [random.permutation(len(images))[:ORDER] for _ in range(options.orders)]
    calls = [called_after(detector, plain[order]) for order in orders]
    print(f"without a change: {sum(call is not None for call in calls)} of {len(orders)} orders called", flush=True)
    print("\n| change | images until the call: median | most | not called | called before it |\n|---|---|---|---|---|")
    for name, changed in CHANGES.items():
        scores = np.array(
            [plain]
            + [[detector.score(changed(image, step / STEPS)).score for image in images] for step in range(1, STEPS + 1)]
        )
        ramp = 1 if name == "camera shifts" else RAMP
        steps = np.ceil(np.clip((np.arange(ORDER) - BEFORE + 1) / ramp, 0, 1) * STEPS).astype(int)
        found = [called_after(detector, scores[steps[: len(order)], order]) for order in orders]
        delays = [call - BEFORE for call in found if call is not None and call > BEFORE]
        early = sum(call is not None and call <= BEFORE for call in found)
        median, most = (f"{np.median(delays):.0f}", max(delays)) if delays else ("", "")
        print(f"| {name} | {median} | {most} | {found.count(None)} of {len(orders)} | {early} |", flush=True)


def main() -> None:
    """Print the share of false calls, and a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--orders", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder for the kit; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        measure(options, Path(work))


if __name__ == "__main__":
    main()
