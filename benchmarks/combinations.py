"""Ways to combine image score and patch score into one: image AUROC and observed false-alarm rate of each.

    python benchmarks/combinations.py --work DIR

DIR is the --work folder of benchmarks/real_sets.py: its runs give the scores of the calibration images, its score files
those of the test images.
- `image`, `patch`: either alone.
- `maximum`: the larger of the two, each in standard deviations from the mean of the calibration images (the product).
- `sum`: their sum.
- `Fisher`: Fisher's combination, -2 (ln p1 + ln p2), with the upper tails of normal distributions fitted to the
  calibration scores: p-values from few images would all be equal beyond the largest of them.
The limit of each is the conformal 1 % limit of the calibration images, each standardised by the others. Test labels are
used only to compute the figures.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import parser_of
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from msc_edge.calibration import Calibration
from msc_edge.train.run_record import CALIBRATION, PATCH_CALIBRATION

RATE = 0.01

Combine = Callable[[np.ndarray], np.ndarray]
"""Standardised image and patch scores, (n, 2), to one score each, (n,)."""

COMBINATIONS: dict[str, Combine] = {
    "image": lambda scores: scores[:, 0],
    "patch": lambda scores: scores[:, 1],
    "maximum": lambda scores: scores.max(axis=1),
    "sum": lambda scores: scores.sum(axis=1),
    "Fisher": lambda scores: -2 * norm.logsf(scores).sum(axis=1),
}


def standardised(scores: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Scores (n, 2) in standard deviations from the mean of the scores `by`, (m, 2)."""
    return (scores - by.mean(axis=0)) / np.maximum(by.std(axis=0, ddof=1), 0.01 * np.abs(by.mean(axis=0)))


def of_run(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the calibration images (m, 2) and of the test images (n, 2), and which of these are anomalous."""
    calibration = np.stack([np.load(folder / "run" / name) for name in (CALIBRATION, PATCH_CALIBRATION)], axis=1)
    with next(iter(sorted(folder.glob("scores-*.csv")))).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    test = np.array([[float(row["image_score"]), float(row["patch_score"])] for row in rows])
    return calibration, test, np.array(["/defect/" in row["path"] for row in rows])


def main() -> None:
    """Print a Markdown table: AUROC, and rejected of the normal test images, of each way."""
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the --work folder of benchmarks/real_sets.py")
    options = parser.parse_args()
    print(f"| run | {' | '.join(COMBINATIONS)} |\n{'|---' * (len(COMBINATIONS) + 1)}|")
    for run in sorted(options.work.glob("*/run/" + PATCH_CALIBRATION)):
        calibration, test, anomalous = of_run(run.parent.parent)
        others = [np.delete(calibration, place, axis=0) for place in range(len(calibration))]
        held_out = np.concatenate([standardised(calibration[[place]], by) for place, by in enumerate(others)])
        cells = []
        for combine in COMBINATIONS.values():
            scores = combine(standardised(test, calibration))
            limit = Calibration(combine(held_out)).limit(RATE).score
            rejected, normal = int((scores[~anomalous] > limit).sum()), int((~anomalous).sum())
            cells.append(f"{roc_auc_score(anomalous, scores):.4f}, {rejected} of {normal}")
        print(f"| {run.parent.parent.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
