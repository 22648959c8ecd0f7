"""The metrics of anomaly maps of `msc-edge evaluate`, compared with those of anomalib on the same maps and masks.

    python benchmarks/peers.py setup --work DIR
    python benchmarks/map_metrics.py KIT --work DIR [--venv DIR] [--shared ../shared] [--images 60]

KIT has patches. Cases: its maps of magnetic_tile at 224 x 224, with the masks at the same size, and drawn maps.
anomalib computes in its own environment, once on the maps, and once on maps that are rounded down to the bins of
msc-edge (2^-10 of a value). The second difference is what the bins do not explain.

Definitions that differ:

- Bins. msc-edge counts values in one bin as ties. A map whose values have a large offset (1.00 to 1.01) fills few bins,
  and its metrics are then wrong; maps of kits have none.
- Pixel AUROC. If any value is outside of [0, 1], torchmetrics replaces all by their sigmoid, in float32. Large values
  become ties, so the AUROC of maps over many decades is 0.5. msc-edge takes the values as they are.
- AUPIMO. anomalib takes 300 000 equidistant thresholds between the smallest and the largest value of the normal images,
  and integrates by trapezoids over the logarithm of the false-positive rates at these thresholds, from the rate
  nearest to 1e-5 to the one nearest to 1e-4. It gives an error where both are the same, as with few normal images or
  many ties. msc-edge integrates the linear interpolation of the curve exactly, between exactly these bounds. Moving
  values within a bin moves anomalib's two ends, so the last column is not smaller.
- Best F1. anomalib adds 1e-10 to the denominator.
- The rest is equal: regions have 8-connectivity, values at the threshold are predicted anomalous, curves are linear
  between thresholds, and the area is divided by the limit.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from common import SHARED, magnetic_tile, mask_of, parser_of

from msc_edge.export.run_images import evenly
from msc_edge.map_metrics.histograms import MANTISSA_BITS
from msc_edge.map_metrics.metrics import MapEvaluation
from msc_edge.runtime import Detector

METRICS_OF_ANOMALIB = Path(__file__).with_name("peers_metrics.py")
SIDE = 224
_DROPPED_BITS = 23 - MANTISSA_BITS

Case = tuple[np.ndarray, np.ndarray]
"""Maps, float32, and masks, bool, both (n, SIDE, SIDE)."""
Metrics = dict[str, float | str]


def real_case(kit: Path, shared: Path, count: int) -> Case:
    """Maps of a kit on test images of magnetic_tile, two thirds of them normal, for AUPIMO."""
    detector, images = Detector.load(kit, threads=1), magnetic_tile(shared)
    maps, masks = [], []
    for path in evenly(images.normal, count - count // 3) + evenly(images.anomalous, count // 3):
        is_anomalous = path.parent.name != "good"
        whole = mask_of(path).astype(np.uint8) if is_anomalous else np.zeros((SIDE, SIDE), np.uint8)
        mask = cv2.resize(whole, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).astype(bool)
        if mask.any() == is_anomalous:  # a few masks are black, or so small that nothing is left
            grid = detector.score_file(path).grid_map
            assert grid is not None, f"{kit} has no patches"
            maps.append(grid.at_frame(height=SIDE, width=SIDE))
            masks.append(mask)
    return np.stack(maps), np.stack(masks)


def drawn_cases(seed: int = 0) -> dict[str, Case]:
    """Random maps: 8 normal and 8 anomalous images; the others are made of these."""
    random = np.random.default_rng(seed)
    noise = random.gamma(4, size=(16, SIDE, SIDE))
    maps = np.stack([cv2.GaussianBlur(each, (0, 0), 4) for each in noise])
    masks = np.zeros(maps.shape, bool)
    for mask in masks[8:]:
        for _ in range(3):
            row, column = random.integers(20, SIDE - 20, 2)
            mask[row - random.integers(2, 18) : row + 2, column - 2 : column + random.integers(2, 18)] = True
    maps = (maps + masks * random.uniform(0, 1.5, (16, 1, 1))).astype(np.float32)
    corners = masks.copy()
    corners[8:] = False
    for number, mask in enumerate(corners[8:]):
        mask[40:50, 40:50] = mask[50 : 55 + number, 50:80] = True  # two squares that touch at a corner
    return {
        "drawn": (maps, masks),
        "drawn, 16 levels (ties)": (np.round(maps * 16 / maps.max()).astype(np.float32), masks),
        "drawn, in 1.00 to 1.01": ((1 + 0.01 * maps / maps.max()).astype(np.float32), masks),
        "drawn, over twelve decades": (np.exp(3 * maps).astype(np.float32), masks),
        "drawn, regions that touch at a corner": (maps, corners),
        "perfect": ((maps * 0.1 + masks).astype(np.float32), masks),
        "constant": (np.ones_like(maps), masks),
    }


def ours(case: Case) -> Metrics:
    """The metrics of msc-edge, by name."""
    evaluation = MapEvaluation(resamples=1)
    for anomaly_map, mask in zip(*case, strict=True):
        evaluation.add(anomaly_map, mask if mask.any() else None, "defect" if mask.any() else "")
    found = evaluation.result().overall
    metrics = {
        "pixel AUROC": found.pixel_auroc,
        "AU-PRO(0.3)": found.au_pro_30,
        "AU-PRO(0.05)": found.au_pro_5,
        "AUPIMO": found.aupimo,
        "best pixel F1": found.best_f1,
    }
    return {name: "none" if metric is None else metric.value for name, metric in metrics.items()}


def anomalib(cases: Sequence[Case], python: Path) -> Iterator[Metrics]:
    """The metrics of anomalib of each case, by name; text where there is an error."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.npz") for number in range(len(cases))]
        for file, (maps, masks) in zip(files, cases, strict=True):
            np.savez(file, maps=maps, masks=masks)
        command = [python, METRICS_OF_ANOMALIB, *files]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout
            yield from (json.loads(line) for line in process.stdout if line.startswith("{"))


def rounded(case: Case) -> Case:
    """Maps whose values are the lower edges of their bins."""
    bits = case[0].view(np.int32) >> _DROPPED_BITS << _DROPPED_BITS
    return bits.view(np.float32), case[1]


def difference(one: float | str, other: float | str) -> str:
    """As text; empty where a side has no value."""
    return "" if isinstance(one, str) or isinstance(other, str) else f"{one - other:+.1e}"


def print_case(name: str, here: Metrics, exact: Metrics, binned: Metrics) -> None:
    """Print the rows of one case."""
    for metric, value in here.items():
        cells = [each if isinstance(each, str) else f"{each:.6f}" for each in (value, exact[metric])]
        cells += [difference(value, exact[metric]), difference(value, binned[metric])]
        print(f"| {name} | {metric} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Compare, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT", help="a kit with patches")
    parser.add_argument("--work", type=Path, required=True, help="folder of `peers.py setup`")
    parser.add_argument("--venv", type=Path, help="environment of anomalib; default: a folder in --work")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--images", type=int, default=60, help="of magnetic_tile; default: %(default)s")
    options = parser.parse_args()
    print("| maps | metric | msc-edge | anomalib | difference | difference from anomalib on rounded maps |")
    print(f"|{'---|' * 6}")
    cases = {"magnetic_tile": real_case(options.kit, options.shared, options.images)} | drawn_cases()
    both = [each for case in cases.values() for each in (case, rounded(case))]
    theirs = anomalib(both, (options.venv or options.work / "anomalib") / "bin/python")
    for name, case in cases.items():
        print_case(name, ours(case), next(theirs), next(theirs))


if __name__ == "__main__":
    main()
