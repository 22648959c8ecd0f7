"""Which images the guard against a covered lens refuses to learn: false alarms it must not, covered lenses it must.

    python benchmarks/empty_frames.py --shared ../shared [--sets tile papers] [--start 20 100]

A kit is made from a few normal images, drawn at random (`msc-edge train --steps 0` and `export`). The guard is asked
about each other normal image, each test defect (a harmless stain looks like one), and changed copies of normal images
that a line may see: another light, a moved part, a dark stain, a corner in the shadow. All of them may be learned. Then
about frames of a covered lens: black, white and grey, with and without the noise of a sensor, almost no light, three
kinds of noise, and parts out of focus (Gaussian, and a disc as of a lens); and about another object: images of the
other data set, and drawn parts. None of these may be learned. Printed is how many of each are refused.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from common import SHARED, LabelledImages, magnetic_tile, papers, parser_of, run_msc_edge

from msc_edge.demo.parts import KINDS, draw_part
from msc_edge.errors import UsageError
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.learning.guards import Guards

_COPIED = 8  # normal images, for changed copies
_OTHERS = 20  # images of another data set
_MOST = 200  # normal images, and defects


def light(image: np.ndarray, factor: float) -> np.ndarray:
    """With more or less light."""
    return np.clip(image * factor, 0, 255).astype(np.uint8)


def moved(image: np.ndarray) -> np.ndarray:
    """By a twentieth of its size."""
    height, width = image.shape[:2]
    shift = np.array([[1, 0, 0.05 * width], [0, 1, 0.05 * height]])
    return cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)


def stained(image: np.ndarray) -> np.ndarray:
    """A dark stain on 3 % of its area, or less."""
    height, width = image.shape[:2]
    stain = image.copy()
    cv2.circle(stain, (width // 3, height // 3), int(0.1 * min(height, width)), (60, 40, 30), -1)
    return stain


def shadowed(image: np.ndarray) -> np.ndarray:
    """A corner in the shadow."""
    height, width = image.shape[:2]
    shade = image.copy()
    shade[: height // 3, : width // 3] //= 2
    return shade


def disc(image: np.ndarray, share: float) -> np.ndarray:
    """Out of focus as by a lens: a disc of this share of the shorter side."""
    radius = max(1, int(share * min(image.shape[:2])))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.float32)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def noisy(level: int, deviation: float) -> Callable[[np.ndarray], np.ndarray]:
    """A frame of one grey level with the noise of a sensor."""

    def frame(image: np.ndarray) -> np.ndarray:
        return np.clip(np.random.default_rng(1).normal(level, deviation, image.shape), 0, 255).astype(np.uint8)

    return frame


HARMLESS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "light x 0.8": lambda image: light(image, 0.8),
    "light x 1.25": lambda image: light(image, 1.25),
    "moved by 5 %": moved,
    "dark stain": stained,
    "shadow": shadowed,
}
COVERED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "black": noisy(0, 0),
    "black, noise of a sensor": noisy(4, 3),
    "white": noisy(255, 0),
    "grey": noisy(100, 0),
    "grey, noise of a sensor": noisy(100, 5),
    "light x 0.05": lambda image: light(image, 0.05),
    "noise": lambda image: np.random.default_rng(2).integers(0, 256, image.shape, dtype=np.uint8),
    "strong noise of a sensor": noisy(128, 30),
    "blur of 2 %": lambda image: cv2.GaussianBlur(image, (0, 0), 0.02 * min(image.shape[:2])),
    "blur of 5 %": lambda image: cv2.GaussianBlur(image, (0, 0), 0.05 * min(image.shape[:2])),
    "disc of 5 %": lambda image: disc(image, 0.05),
    "disc of 10 %": lambda image: disc(image, 0.1),
}


def refused(guards: Guards, image: np.ndarray) -> bool:
    """Whether the guard refuses an image."""
    try:
        guards.refuse_empty_frame(image)
    except UsageError:
        return True
    return False


def counts(images: LabelledImages, others: list[Path], start: int) -> Iterator[tuple[str, int, int]]:
    """For a kit of `start` images: what, how many are refused, of how many."""
    order = np.random.default_rng(0).permutation(len(images.train))
    chosen, left = ([images.train[place] for place in part] for part in (order[:start], order[start:]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "normal").mkdir()
        for path in chosen:
            (folder / "normal" / path.name).symlink_to(path.resolve())
        run_msc_edge("train", "--normal", folder / "normal", "--out", folder / "run", "--steps", 0)
        run_msc_edge("export", folder / "run", "--out", folder / "kit", "--precision", "fp32")
        kit = Detector.load(folder / "kit")
        normal = [read_image(path) for path in [*images.normal, *left][:_MOST]]
        height, width = normal[0].shape[:2]
        guards = Guards(kit, (height, width))

        def count(frames: list[np.ndarray]) -> tuple[int, int]:
            return sum(refused(guards, frame) for frame in frames), len(frames)

        yield "normal", *count(normal)
        spread = np.linspace(0, len(images.anomalous) - 1, min(_MOST, len(images.anomalous))).astype(int)
        yield "defect", *count([read_image(images.anomalous[place]) for place in spread])
        for name, change in (*HARMLESS.items(), *COVERED.items()):
            yield name, *count([change(image) for image in normal[:_COPIED]])
        drawn = [draw_part(KINDS[seed % len(KINDS)], np.random.default_rng(seed)) for seed in range(_OTHERS)]
        foreign = [cv2.resize(image, (width, height)) for image in [*map(read_image, others), *drawn]]
        yield "another object", *count(foreign)


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--sets", nargs="*", choices=("tile", "papers"), default=["tile", "papers"])
    parser.add_argument("--start", type=int, nargs="+", default=[20, 100], help="normal images of the kit")
    options: argparse.Namespace = parser.parse_args()
    tile, paper = magnetic_tile(options.shared), papers(options.shared)
    found: dict[str, tuple[int, int]] = {}
    for start in options.start:
        members = [("tile", tile, next(iter(paper.values())).normal)] if "tile" in options.sets else []
        if "papers" in options.sets:
            members += [("papers", each, tile.normal) for each in paper.values() if start < len(each.train)]
        for name, images, others in members:
            for what, some, of in counts(images, others[:_OTHERS], start):
                before = found.get(key := f"{name}, kit of {start} | {what}", (0, 0))
                found[key] = (before[0] + some, before[1] + of)
            print(f"{name}, kit of {start}: done", file=sys.stderr, flush=True)
    print("| kit | image | refused |\n|---|---|---|")
    for key, (some, of) in found.items():
        print(f"| {key} | {some} of {of} |")


if __name__ == "__main__":
    main()
