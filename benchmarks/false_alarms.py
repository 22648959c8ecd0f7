"""Observed false-alarm rates compared with the expected rates: magnetic_tile, many splits, frozen backbones.

    python benchmarks/false_alarms.py --shared ../shared [--parts image patch] [--group-by none similar]
        [--splits 200] [--banks 40] [--kinds random blocks tiles parts]

All 952 normal images (train/good and test/good, by file name) are split many times into 761 images to train on and 191
new ones. The images to train on are held out as `msc-edge train` does it, a fifth of them in whole groups; they set the
limits for target rates of 1, 2 and 5 %; and the new images above each limit are counted. No defect is used.

How the new images are chosen: `random`, image by image. `blocks` cuts the files in the order of their names into 50
blocks and chooses blocks: successive files were taken with the same exposure, and stay together. `tiles` chooses all
exposures of a tile together. `parts` chooses the groups that `near_duplicates` finds among all 952, often several tiles
that look alike: then the new images show parts that training has not seen.

`--group-by none` takes each image for a part of its own, `similar` is the product's default. Part `image` compares
whole images, of two backbones. Part `patch` compares patches as well (edge-small): the score `patch` has the limit of
the anomaly map, above which an image has a region, and `both` is the score of a kit. For each split the whitening and
the coreset of 4000 patches are fitted again, from feature maps that are computed once.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import SHARED, magnetic_tile, parser_of, tiles_of
from networks import pretrained_network
from torch import Tensor

from msc_edge.anomaly_map import patch_score
from msc_edge.calibration import Calibration
from msc_edge.groups import near_duplicates, orders_of
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.scoring import ScoreKind, Scoring, calibration_scores
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.dataset import SIMILAR, NormalImage, hold_out
from msc_edge.train.folding import folded
from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.fit import DIM, MAP_SETTINGS, ROWS
from msc_edge.train.patches.head import distances_to, grids_of
from msc_edge.train.patches.taps import MARGIN, TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of

RATES = (0.01, 0.02, 0.05)
NEW = 191  # of 952 images
BLOCKS = 50
KINDS = ("random", "blocks", "tiles", "parts")
GROUPS = ("none", SIMILAR)
K = 2  # nearest normal images of a score
HEADINGS = (
    "backbone",
    "score",
    "group by",
    "splits",
    "target",
    "independent images",
    "expected",
    "observed, mean",
    "inside the 90 % interval",
    "above it",
)


class Split(NamedTuple):
    """The images, as places in the order of their names."""

    bank: np.ndarray
    calibration: np.ndarray
    groups: np.ndarray
    """Of the calibration images."""
    new: np.ndarray


class Scores(NamedTuple):
    """Scores of all images against one bank, float64 (images,); not a number for the images of the bank."""

    image: np.ndarray
    patch: np.ndarray | None = None


class Alarms(NamedTuple):
    """One split and one limit."""

    independent: float
    expected: float
    alarms: int
    interval: tuple[int, int]


def normal_images(shared: Path) -> list[Path]:
    """All normal images of magnetic_tile, by file name: every fifth of them had been moved to the test folder."""
    tile = magnetic_tile(shared)
    return sorted(tile.train + tile.normal, key=lambda path: path.name)


class Images:
    """Embeddings and, if wanted, patch features of all images, by a frozen backbone at 224x224."""

    def __init__(self, backbone: str, weights: Path | None, paths: list[Path], *, patches: bool) -> None:
        spec = preset("whole-frame", image_size=224, margin=MARGIN if patches else 0)
        network = pretrained_network(backbone, weights, preprocessing=spec)
        backbone_folded = folded(network.backbone)
        taps = find_taps(network.backbone) if patches else ()
        tapped = TappedBackbone(backbone_folded, taps) if patches else None
        embeddings, grids = [], []
        with torch.no_grad():
            for pixels in network.batches((str(path), read_image(path)) for path in paths):
                features, maps = tapped(pixels) if tapped else (backbone_folded(pixels), [])
                embeddings.append(torch.nn.functional.normalize(features, dim=1))
                if patches:
                    grids.append(torch.cat(grids_of(maps, taps), dim=3))
        unit = torch.cat(embeddings).numpy().astype(np.float64)
        self._similarity = unit @ unit.T
        self._embeddings, self._names = unit.astype(np.float32), [path.name for path in paths]
        self._grids = torch.cat(grids) if patches else None  # float32 (images, rows, columns, channels): 525 MB

    def units(self, kind: str) -> list[np.ndarray]:
        """The images that are chosen together, as places in the order of their names."""
        places = np.arange(len(self._names))
        if kind == "random":
            return np.split(places, len(places))
        if kind == "blocks":
            return np.array_split(places, BLOCKS)
        groups = near_duplicates(self._embeddings, orders_of(self._names)) if kind == "parts" else tiles_of(self._names)
        return [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]

    def split(self, units: list[np.ndarray], group_by: str, random: np.random.Generator) -> Split:
        """Choose new images in whole units, but for the last one, and hold out a fifth of the others."""
        order = np.concatenate([units[i] for i in random.permutation(len(units))])
        new, trained = np.sort(order[:NEW]), np.sort(order[NEW:])
        names = [self._names[i] for i in trained]
        groups = (
            near_duplicates(self._embeddings[trained], orders_of(names))
            if group_by == SIMILAR
            else np.arange(len(trained))
        )
        images = [NormalImage(name, "", "bank") for name in names]
        held = hold_out(images, holdout=0.2, groups=groups.tolist(), group_by=group_by)
        calibration = np.array([image.role == "calibration" for image in held])
        return Split(trained[~calibration], trained[calibration], groups[calibration], new)

    def scores(self, bank: np.ndarray) -> Scores:
        """The scores of the images that are not in `bank`."""
        others = np.setdiff1d(np.arange(len(self._similarity)), bank)
        image, patch = (np.full(len(self._similarity), np.nan) for _ in range(2))
        # As in the product: the mean cosine distance to the K nearest rows of the bank.
        nearest = np.partition(self._similarity[np.ix_(others, bank)], -K, axis=1)[:, -K:]
        image[others] = 1 - nearest.mean(axis=1)
        if self._grids is None:
            return Scores(image)
        patch[others] = _patch_scores(self._grids, torch.from_numpy(bank), torch.from_numpy(others))
        return Scores(image, patch)


@torch.no_grad()
def _patch_scores(grids: Tensor, bank: Tensor, others: Tensor) -> np.ndarray:
    """The patch scores of `others` against a patch bank fitted to `bank`, as `fit_patch_head` does it."""
    statistics = StreamingCovariance(grids.shape[3], grids.device)
    for part in bank.split(64):
        statistics.add(grids[part].flatten(0, 2))
    whitening = whitening_of(*statistics.moments(), DIM)

    def embedded(images: Tensor) -> Iterator[Tensor]:
        return ((grids[part].flatten(0, 2) - whitening.mean) @ whitening.matrix.T for part in images.split(64))

    coreset = Coreset(ROWS)
    for patches in embedded(bank):
        coreset.add(patches)
    rows = coreset.select()
    distances = torch.cat([distances_to(rows, patches) for patches in embedded(others)])
    maps = distances.unflatten(0, (len(others), *grids.shape[1:3])).numpy()
    return np.array([patch_score(each, smoothing=MAP_SETTINGS.smoothing) for each in maps])


def alarms_in(kind: ScoreKind, scores: Scores, split: Split) -> list[Alarms]:
    """The alarms among the new images at the limits of RATES, with scores and limits as in a kit of this kind."""
    settings = None if kind == "image" else MAP_SETTINGS
    held_out, new = (
        (scores.image[part], None if scores.patch is None else scores.patch[part])
        for part in (split.calibration, split.new)
    )
    calibration = Calibration(calibration_scores(kind, *held_out, settings), split.groups)
    scoring = Scoring.fitted(kind, *held_out, settings)
    patch = [None] * len(split.new) if new[1] is None else new[1].tolist()
    found = np.array([scoring.score(*each) for each in zip(new[0].tolist(), patch, strict=True)])
    alarms = []
    for limit in map(calibration.limit, RATES):
        interval = calibration.alarm_interval(limit, len(split.new))
        assert limit.expected_rate is not None
        assert interval is not None
        flagged = int((found > limit.score).sum())
        alarms.append(Alarms(calibration.independent, limit.expected_rate, flagged, interval))
    return alarms


def with_error(shares: np.ndarray, decimals: int) -> str:
    """Mean and two standard errors of the shares of all splits."""
    return f"{shares.mean():.{decimals}%} ± {2 * shares.std(ddof=1) / math.sqrt(len(shares)):.{decimals}%}"


def show(backbone: str, score: str, group_by: str, kind: str, found: list[list[Alarms]]) -> None:
    """Print a row of the table for each rate. `found`: of each split, for each rate."""
    for rate, of_splits in zip(RATES, zip(*found, strict=True), strict=True):
        counts = np.array([each.alarms for each in of_splits])
        least, most = np.array([each.interval for each in of_splits]).T
        inside = (least <= counts) & (counts <= most)
        independent, expected = (np.mean([each[field] for each in of_splits]) for field in (0, 1))
        print(
            f"| {backbone} | {score} | {group_by} | {kind}, {len(found)} | {rate:.0%} | {independent:.0f} | "
            f"{expected:.2%} | {with_error(counts / NEW, 2)} | {with_error(inside, 1)} | "
            f"{(counts > most).mean():.1%} |",
            flush=True,
        )


def main() -> None:
    """Embed, split, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--parts", nargs="+", choices=("image", "patch"), default=["image", "patch"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of splits; default: all")
    parser.add_argument("--group-by", nargs="+", choices=GROUPS, default=GROUPS, help="default: both")
    parser.add_argument("--splits", type=int, default=200, help="of each kind, part image; default: %(default)s")
    parser.add_argument("--banks", type=int, default=40, help="splits of each kind, part patch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    paths = normal_images(options.shared)
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|")

    def measure(backbone: str, images: Images, kinds: Sequence[ScoreKind], splits: int) -> None:
        for group_by in options.group_by:
            for kind in options.kinds:
                random, units = np.random.default_rng(options.seed), images.units(kind)
                found: dict[ScoreKind, list[list[Alarms]]] = {score: [] for score in kinds}
                for _ in range(splits):
                    split = images.split(units, group_by, random)
                    scores = images.scores(split.bank)
                    for score, of_splits in found.items():
                        of_splits.append(alarms_in(score, scores, split))
                for score, of_splits in found.items():
                    show(backbone, score, group_by, kind, of_splits)

    if "image" in options.parts:
        weights = options.shared / "weights/mobilenet_v2.safetensors"
        for backbone, file in ((EDGE_SMALL, None), ("mobilenet_v2", weights)):
            measure(backbone, Images(backbone, file, paths, patches=False), ("image",), options.splits)
    if "patch" in options.parts:
        measure(EDGE_SMALL, Images(EDGE_SMALL, None, paths, patches=True), ("image", "patch", "both"), options.banks)


if __name__ == "__main__":
    main()
