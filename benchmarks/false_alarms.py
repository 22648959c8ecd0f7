"""Observed false-alarm rates compared with the expected rates: magnetic_tile, many random splits, frozen backbones.

    python benchmarks/false_alarms.py --shared ../shared [--parts image patch] [--splits 1000] [--block-splits 200]
        [--kinds random blocks tiles] [--banks 40] [--resplits 25]

All 952 normal images (train/good and test/good, by file name) are split many times into a bank, calibration images and
test images, in the sizes of the product's defaults on this set (609, 152, 191). The calibration images set the limits
for target rates of 1, 2 and 5 %, and the test images above each limit are counted. No defect is used.

`random` assigns image by image, which is what the theory assumes. `blocks` cuts the files in the order of their names
into 50 blocks and assigns blocks: successive files often show the same tile, and stay together. `tiles` assigns all
exposures of a tile together, as `--group-by` does. A production line is more like `blocks` and `tiles`, because
tomorrow's images are no random sample of today's.

Part `image` compares whole images, of two backbones. Part `patch` compares patches as well (edge-small): the score
`patch` has the limit of the anomaly map, above which an image has a region, and `both` is the score of a kit. For each
bank the whitening and the coreset of 4000 patches are fitted again, from feature maps that are computed once. That
takes eight seconds. Each bank is therefore used for several splits of the other images (`--resplits`), and ± is
computed from the differences between banks. `random` has a quarter of the banks and four times the splits of each: its
counts have the same distribution whatever the bank is.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import SHARED, magnetic_tile, parser_of
from networks import pretrained_network
from torch import Tensor

from msc_edge.anomaly_map import patch_score
from msc_edge.calibration import Calibration
from msc_edge.images import read_image
from msc_edge.intervals import alarm_count_interval
from msc_edge.preprocessing import preset
from msc_edge.scoring import ScoreKind, Scoring, calibration_scores
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.folding import folded
from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.fit import DIM, MAP_SETTINGS, ROWS
from msc_edge.train.patches.head import distances_to, grids_of
from msc_edge.train.patches.taps import MARGIN, TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of

RATES = (0.01, 0.02, 0.05)
BANK, CALIBRATION = 609, 152  # of 952; the other 191 are the test part
BLOCKS = 50
TILE = re.compile(r"num_([0-9]+)[0-9][0-9]\.jpg")
KINDS = ("random", "blocks", "tiles")
K = 2  # nearest normal images of a score
HEADINGS = (
    "backbone",
    "score",
    "splits",
    "target",
    "expected",
    "observed, mean",
    "90 % interval",
    "its probability",
    "inside",
    "above",
)


class Split(NamedTuple):
    """The images of a bank, and ways to split the other images into calibration and test part."""

    bank: np.ndarray
    others: list[tuple[np.ndarray, np.ndarray]]


class Scores(NamedTuple):
    """Scores of all images against one bank, float64 (images,); not a number for the images of the bank."""

    image: np.ndarray
    patch: np.ndarray | None = None


def normal_images(shared: Path) -> list[Path]:
    """All normal images of magnetic_tile, by file name: every fifth of them had been moved to the test folder."""
    tile = magnetic_tile(shared)
    return sorted(tile.train + tile.normal, key=lambda path: path.name)


def units_of(kind: str, paths: Sequence[Path]) -> list[np.ndarray]:
    """The images that stay together, as places in `paths`."""
    places = np.arange(len(paths))
    if kind == "random":
        return np.split(places, len(places))
    if kind == "blocks":
        return np.array_split(places, BLOCKS)
    tiles = [match.group(1) for path in paths if (match := TILE.search(path.name))]
    in_order = sorted(places, key=lambda place: tiles[place])
    return [np.array(list(tile)) for _, tile in groupby(in_order, key=lambda place: tiles[place])]


def splits_of(units: list[np.ndarray], banks: int, resplits: int, random: np.random.Generator) -> Iterator[Split]:
    """Random orders of the units, cut into three parts. A part may end within a unit.

    For the same bank, the order of the units after it changes `resplits` times.
    """
    for _ in range(banks):
        order = [units[i] for i in random.permutation(len(units))]
        within = int(np.searchsorted(np.cumsum([len(unit) for unit in order]), BANK))  # the unit where the bank ends
        start, rest = np.concatenate(order[: within + 1]), order[within + 1 :]
        others = []
        for number in range(resplits):
            if number:
                rest = [rest[i] for i in random.permutation(len(rest))]
            held_out = np.concatenate([start[BANK:], *rest])
            others.append((held_out[:CALIBRATION], held_out[CALIBRATION:]))
        yield Split(start[:BANK], others)


class Images:
    """Embeddings and, if wanted, patch features of all images, by a frozen backbone at 224x224."""

    def __init__(self, backbone: str, weights: Path | None, paths: list[Path], *, patches: bool) -> None:
        spec = preset("whole-frame", image_size=224, margin=MARGIN if patches else 0)
        network = pretrained_network(backbone, weights, preprocessing=spec)
        taps = find_taps(network.backbone) if patches else ()
        tapped = TappedBackbone(folded(network.backbone), taps)
        embeddings, grids = [], []
        with torch.no_grad():
            for pixels in network.batches((str(path), read_image(path)) for path in paths):
                features, maps = tapped(pixels)
                embeddings.append(torch.nn.functional.normalize(features, dim=1))
                if patches:
                    grids.append(torch.cat(grids_of(maps, taps), dim=3))
        unit = torch.cat(embeddings).numpy().astype(np.float64)
        self._similarity = unit @ unit.T
        self._grids = torch.cat(grids) if patches else None  # float32 (images, rows, columns, channels): 525 MB

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


def alarms_in(kind: ScoreKind, scores: Scores, calibration: np.ndarray, test: np.ndarray) -> list[int]:
    """Numbers of test images above the limits of RATES, with scores and limits as in a kit of this kind."""
    settings = None if kind == "image" else MAP_SETTINGS
    held_out, tested = (
        (scores.image[part], None if scores.patch is None else scores.patch[part]) for part in (calibration, test)
    )
    limits = Calibration(calibration_scores(kind, *held_out, settings))
    scoring = Scoring.fitted(kind, *held_out, settings)
    patch = [None] * len(test) if tested[1] is None else tested[1].tolist()
    found = np.array([scoring.score(*each) for each in zip(tested[0].tolist(), patch, strict=True)])
    return [int((found > limits.limit(rate).score).sum()) for rate in RATES]


def probability_of(interval: tuple[int, int], flagged: int, held_out: int, images: int) -> float:
    """The probability that a beta-binomial count lies in `interval`: above 90 %, because counts are whole numbers."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def probability(count: int) -> float:
        log_ways = -math.log(images + 1) - log_beta(count + 1, images - count + 1)
        a, b = flagged, held_out + 1 - flagged
        return math.exp(log_ways + log_beta(count + a, images - count + b) - log_beta(a, b))

    return sum(probability(count) for count in range(interval[0], interval[1] + 1))


def with_error(shares: np.ndarray, decimals: int) -> str:
    """Mean and two standard errors of shares (banks, resplits): the splits of one bank are one sample."""
    of_banks = shares.mean(axis=1)
    error = 2 * of_banks.std(ddof=1) / math.sqrt(len(of_banks))
    return f"{of_banks.mean():.{decimals}%} ± {error:.{decimals}%}"


def show(backbone: str, score: str, kind: str, alarms: np.ndarray, test: int) -> None:
    """Print a row of the table for each rate. `alarms`: int (banks, resplits, rates), of `test` images."""
    banks, resplits, _ = alarms.shape
    splits = f"{kind}, {banks}" + (f" x {resplits}" if resplits > 1 else "")
    for place, rate in enumerate(RATES):
        counts = alarms[..., place]
        limit = Calibration(np.arange(CALIBRATION)).limit(rate)
        assert limit.expected_rate is not None
        flagged = round(limit.expected_rate * (CALIBRATION + 1))
        interval = least, most = alarm_count_interval(flagged, CALIBRATION, test)
        inside = (least <= counts) & (counts <= most)
        print(
            f"| {backbone} | {score} | {splits} | {rate:.0%} | {limit.expected_rate:.2%} | "
            f"{with_error(counts / test, 2)} | {least} to {most} | "
            f"{probability_of(interval, flagged, CALIBRATION, test):.1%} | {with_error(inside, 1)} | "
            f"{(counts > most).mean():.1%} |",
            flush=True,
        )


def main() -> None:
    """Embed, split, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--parts", nargs="+", choices=("image", "patch"), default=["image", "patch"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of splits, part patch; default: all")
    parser.add_argument("--splits", type=int, default=1000, help="random, part image; default: %(default)s")
    parser.add_argument("--block-splits", type=int, default=200, help="part image; default: %(default)s")
    parser.add_argument("--banks", type=int, default=40, help="of each kind, part patch; default: %(default)s")
    parser.add_argument("--resplits", type=int, default=25, help="for each bank, part patch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    paths = normal_images(options.shared)
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|")

    def measure(backbone: str, images: Images, kinds: Sequence[ScoreKind], splits: dict[str, int], again: int) -> None:
        for kind, banks in splits.items():
            random = np.random.default_rng(options.seed)
            counts: dict[ScoreKind, list[list[list[int]]]] = {score: [] for score in kinds}
            for split in splits_of(units_of(kind, paths), banks, again, random):
                scores = images.scores(split.bank)
                for score, counted in counts.items():
                    counted.append([alarms_in(score, scores, *parts) for parts in split.others])
            for score, counted in counts.items():
                show(backbone, score, kind, np.array(counted), len(paths) - BANK - CALIBRATION)

    if "image" in options.parts:
        splits = {"random": options.splits, "blocks": options.block_splits}
        weights = options.shared / "weights/mobilenet_v2.safetensors"
        for backbone, file in ((EDGE_SMALL, None), ("mobilenet_v2", weights)):
            measure(backbone, Images(backbone, file, paths, patches=False), ("image",), splits, 1)
    if "patch" in options.parts:
        images = Images(EDGE_SMALL, None, paths, patches=True)
        banks, resplits = options.banks, options.resplits
        for kind in options.kinds:
            few = kind == "random" and banks >= 8
            splits = {kind: banks // 4 if few else banks}
            measure(EDGE_SMALL, images, ("image", "patch", "both"), splits, 4 * resplits if few else resplits)


if __name__ == "__main__":
    main()
