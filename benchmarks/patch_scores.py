"""Patch scores made in other ways from the same patch distances, and the border of the map: AUROC and false alarms.

    python benchmarks/patch_scores.py --shared ../shared --work DIR

DIR is the --work folder of benchmarks/real_sets.py with the fp32 kits of frozen backbones.
- `maximum, S`: the largest value of the map after a blur of S positions (the product: 0.5).
- `mean of N`: the mean of the N largest distances.
- `border`: the maximum after a blur of 0.5, with every distance divided by the mean over the calibration images of its
  place: one of four corners, four borders, or the inside.
Each cell has the AUROC, and the share of normal test images above the largest score of the calibration images. The last
columns: the share of normal test images whose map peaks at the border, and the share of positions that lie there. Test
labels are used only to compute the figures.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import SHARED, LabelledImages, magnetic_tile, papers, parser_of
from sklearn.metrics import roc_auc_score

from msc_edge.anomaly_map import patch_score, smoothed
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_folder import RECORD
from msc_edge.train.run_record import IMAGE_TABLE

BLURS = (0.0, 0.5, 1.0)
COUNTS = (2, 5, 10)

Score = Callable[[np.ndarray], float]


def distances_of(detector: Detector, paths: list[Path]) -> np.ndarray:
    """Patch distances, float32 (n, rows, columns)."""
    found = [detector.run(read_image(path)).patch_distances for path in paths]
    return np.stack([each for each in found if each is not None])


def places(rows: int, columns: int) -> np.ndarray:
    """The place of each position, int (rows, columns): 4 is the inside, the others are corners and borders."""
    down, across = (np.array([0, *[1] * (count - 2), 2]) for count in (rows, columns))
    return 3 * down[:, None] + across


def scores_of(calibration: np.ndarray) -> dict[str, Score]:
    """The ways to score, by name; `calibration`: patch distances of the calibration images."""
    at = places(*calibration.shape[1:])
    means = np.array([calibration[:, at == place].mean() for place in range(9)])
    factors = (means[4] / means)[at].astype(np.float32)
    blurred = {f"maximum, {blur:g}": lambda grid, blur=blur: patch_score(grid, smoothing=blur) for blur in BLURS}
    means_of = {
        f"mean of {count}": lambda grid, count=count: float(np.sort(grid, axis=None)[-count:].mean())
        for count in COUNTS
    }
    return blurred | means_of | {"border": lambda grid: patch_score(grid * factors, smoothing=0.5)}


def measure(name: str, folder: Path, images: LabelledImages) -> list[float]:
    """Print the row of a set; returns its AUROCs."""
    detector = Detector.load(folder / "kit-fp32", threads=1, precision="fp32")
    root = Path(json.loads((folder / "run" / RECORD).read_text())["folder"])
    held_out = [
        root / each.path for each in read_image_table(folder / "run" / IMAGE_TABLE) if each.role == "calibration"
    ]
    calibration, test = distances_of(detector, held_out), distances_of(detector, images.test)
    truth = np.array(images.truth)
    cells, aurocs = [], []
    for score in scores_of(calibration).values():
        found = np.array([score(grid) for grid in test])
        above = float((found[~truth] > max(score(grid) for grid in calibration)).mean())
        aurocs.append(float(roc_auc_score(truth, found)))
        cells.append(f"{aurocs[-1]:.4f}, {above:.2f}")
    at = places(*test.shape[1:])
    peaks = [at[np.unravel_index(smoothed(grid, smoothing=0.5).argmax(), at.shape)] != 4 for grid in test[~truth]]
    print(f"| {name} | {' | '.join(cells)} | {np.mean(peaks):.2f} | {(at != 4).mean():.2f} |", flush=True)
    return aurocs


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--work", type=Path, required=True, help="the --work folder of benchmarks/real_sets.py")
    options = parser.parse_args()
    sets = {"magnetic_tile": magnetic_tile(options.shared)} | papers(options.shared)
    names = [*(f"maximum, {blur:g}" for blur in BLURS), *(f"mean of {count}" for count in COUNTS), "border"]
    print(f"| set | {' | '.join(names)} | peaks at the border | border |\n{'|---' * (len(names) + 3)}|")
    of_papers = []
    for name, images in sets.items():
        for folder in sorted(options.work.glob(f"{name}-edge-small-frozen*")):
            aurocs = measure(name, folder, images)
            if name != "magnetic_tile":
                of_papers.append(aurocs)
    if of_papers:
        means = " | ".join(f"{mean:.4f}" for mean in np.mean(of_papers, axis=0))
        print(f"| papers, mean of {len(of_papers)} | {means} | | |")


if __name__ == "__main__":
    main()
