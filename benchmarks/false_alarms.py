"""Observed false-alarm rates compared with the expected rates: magnetic_tile, many splits, frozen backbones.

    python benchmarks/false_alarms.py --shared ../shared [--parts image patch] [--group-by none similar]
        [--held-out once turn] [--splits 200] [--banks 40] [--kinds random blocks tiles parts]

All 952 normal images (train/good and test/good, by file name) are split many times into 761 images to train on and 191
new ones. The images to train on are held out as `msc-edge train` does it: `turn`, each in turn, as with a pretrained
network, or `once`, a fifth of them in whole groups, as with a fine-tuned one. They set the limits for target rates of
1, 2 and 5 %, and the new images above each limit are counted. No defect is used.

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
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import SHARED, magnetic_tile, parser_of, tiles_of
from networks import pretrained_network
from torch import Tensor

from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank, K
from msc_edge.calibration import Calibration
from msc_edge.groups import near_duplicates, orders_of
from msc_edge.held_out import can_be_held_out_in_turn, image_scores_in_turn
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.scoring import ScoreKind, Scoring, Standard, calibration_scores
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.dataset import SIMILAR, NormalImage, hold_out
from msc_edge.train.folding import folded
from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.fit import DIM, MAP_SETTINGS, ROWS
from msc_edge.train.patches.head import distances_to, grids_of
from msc_edge.train.patches.substitutes import NO_GROUP, PatchRows, SubstituteSearch
from msc_edge.train.patches.taps import MARGIN, TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of

RATES = (0.01, 0.02, 0.05)
NEW = 191  # of 952 images
BLOCKS = 50
KINDS = ("random", "blocks", "tiles", "parts")
GROUPS = ("none", SIMILAR)
ONCE, TURN = "once", "turn"
HEADINGS = (
    "backbone",
    "score",
    "group by",
    "held out",
    "splits",
    "target",
    "independent images",
    "expected",
    "observed, mean",
    "inside the 90 % interval",
    "above it",
)


class Split(NamedTuple):
    """The images, as places in the order of their names. Held out in turn, `bank` and `calibration` are the same."""

    bank: np.ndarray
    calibration: np.ndarray
    groups: np.ndarray
    """Of the calibration images."""
    new: np.ndarray

    @property
    def in_turn(self) -> bool:
        """Whether each calibration image is left out of the bank in turn, with its group."""
        return len(self.bank) == len(self.calibration)


class Scores(NamedTuple):
    """Scores of some images, float64 (n,)."""

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
        self._embeddings, self._names = torch.cat(embeddings).numpy(), [path.name for path in paths]
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

    def split(self, units: list[np.ndarray], group_by: str, held_out: str, random: np.random.Generator) -> Split:
        """Choose new images in whole units, but for the last one, and hold out others, once or in turn."""
        order = np.concatenate([units[i] for i in random.permutation(len(units))])
        new, trained = np.sort(order[:NEW]), np.sort(order[NEW:])
        names = [self._names[i] for i in trained]
        groups = (
            near_duplicates(self._embeddings[trained], orders_of(names))
            if group_by == SIMILAR
            else np.arange(len(trained))
        )
        if held_out == TURN:
            assert can_be_held_out_in_turn(groups.tolist(), k=K, patches=self._grids is not None)
            return Split(trained, trained, groups, new)
        images = [NormalImage(name, "", "bank") for name in names]
        held = hold_out(images, holdout=0.2, groups=groups.tolist(), group_by=group_by)
        calibration = np.array([image.role == "calibration" for image in held])
        return Split(trained[~calibration], trained[calibration], groups[calibration], new)

    def scores(self, split: Split) -> tuple[Scores, Scores]:
        """The scores of the calibration images and of the new ones."""
        bank = Bank(self._embeddings[split.bank], k=K)
        if split.in_turn:
            groups = split.groups.tolist()
            image = image_scores_in_turn(bank, groups, bank.embeddings, groups)
        else:
            image = np.array([bank.score(row) for row in self._embeddings[split.calibration]])
        new = np.array([bank.score(row) for row in self._embeddings[split.new]])
        if self._grids is None:
            return Scores(image), Scores(new)
        of_calibration, of_new = _patch_scores(self._grids, split)
        return Scores(image, of_calibration), Scores(new, of_new)


@torch.no_grad()
def _patch_scores(grids: Tensor, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The patch scores of both, against a patch bank fitted as `fit_patch_head` does it."""
    bank = torch.from_numpy(split.bank)
    statistics = StreamingCovariance(grids.shape[3], grids.device)
    for part in bank.split(64):
        statistics.add(grids[part].flatten(0, 2))
    whitening = whitening_of(*statistics.moments(), DIM)

    def embedded(image: int | Tensor) -> Tensor:
        return (grids[image].flatten(0, -2) - whitening.mean) @ whitening.matrix.T

    def patches_of_bank() -> Iterator[PatchRows]:
        for place, image in enumerate(split.bank.tolist()):
            patches = embedded(image)
            group = int(split.groups[place]) if split.in_turn else NO_GROUP
            yield PatchRows(patches, torch.full((len(patches),), group))

    coreset = Coreset(ROWS)
    for patches in patches_of_bank():
        coreset.add(patches)
    rows = coreset.select()
    search = SubstituteSearch(rows)
    if split.in_turn:
        for patches in patches_of_bank():
            search.add(patches)
    found = search.found()

    def score(image: int, group: int | None = None) -> float:
        others = rows.embeddings
        if split.in_turn and group is not None:
            others = torch.cat([others[rows.groups != group], found.embeddings[found.replaced == group]])
        distances = distances_to(others, embedded(image)).reshape(grids.shape[1:3]).numpy()
        return patch_score(distances, smoothing=MAP_SETTINGS.smoothing)

    own = [score(int(image), int(group)) for image, group in zip(split.calibration, split.groups, strict=True)]
    return np.array(own), np.array([score(int(image)) for image in split.new])


def alarms_in(kind: ScoreKind, scores: tuple[Scores, Scores], split: Split) -> list[Alarms]:
    """The alarms among the new images at the limits of RATES, with scores and limits as in a kit of this kind."""
    settings = None if kind == "image" else MAP_SETTINGS
    held_out, new = scores
    # By the images themselves, not by changed copies as a kit: these features are computed once for all splits.
    standard = None if held_out.patch is None else Standard.of_images(held_out.image, held_out.patch)
    calibration = Calibration(calibration_scores(kind, *held_out, standard, settings), split.groups)
    scoring = Scoring.fitted(kind, standard, settings)
    patch = [None] * len(split.new) if new.patch is None else new.patch.tolist()
    found = np.array([scoring.score(*each) for each in zip(new.image.tolist(), patch, strict=True)])
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


def show(backbone: str, score: str, group_by: str, held_out: str, kind: str, found: list[list[Alarms]]) -> None:
    """Print a row of the table for each rate. `found`: of each split, for each rate."""
    for rate, of_splits in zip(RATES, zip(*found, strict=True), strict=True):
        counts = np.array([each.alarms for each in of_splits])
        least, most = np.array([each.interval for each in of_splits]).T
        inside = (least <= counts) & (counts <= most)
        independent, expected = (np.mean([each[field] for each in of_splits]) for field in (0, 1))
        print(
            f"| {backbone} | {score} | {group_by} | {held_out} | {kind}, {len(found)} | {rate:.0%} | "
            f"{independent:.0f} | {expected:.2%} | {with_error(counts / NEW, 2)} | {with_error(inside, 1)} | "
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
    parser.add_argument("--held-out", nargs="+", choices=(ONCE, TURN), default=[TURN], help="default: turn")
    parser.add_argument("--splits", type=int, default=200, help="of each kind, part image; default: %(default)s")
    parser.add_argument("--banks", type=int, default=40, help="splits of each kind, part patch; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    paths = normal_images(options.shared)
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|")

    def measure(backbone: str, images: Images, kinds: Sequence[ScoreKind], splits: int) -> None:
        for group_by, held_out, kind in product(options.group_by, options.held_out, options.kinds):
            random, units = np.random.default_rng(options.seed), images.units(kind)
            found: dict[ScoreKind, list[list[Alarms]]] = {score: [] for score in kinds}
            for _ in range(splits):
                split = images.split(units, group_by, held_out, random)
                scores = images.scores(split)
                for score, of_splits in found.items():
                    of_splits.append(alarms_in(score, scores, split))
            for score, of_splits in found.items():
                show(backbone, score, group_by, held_out, kind, of_splits)

    if "image" in options.parts:
        weights = options.shared / "weights/mobilenet_v2.safetensors"
        for backbone, file in ((EDGE_SMALL, None), ("mobilenet_v2", weights)):
            measure(backbone, Images(backbone, file, paths, patches=False), ("image",), options.splits)
    if "patch" in options.parts:
        measure(EDGE_SMALL, Images(EDGE_SMALL, None, paths, patches=True), ("image", "patch", "both"), options.banks)


if __name__ == "__main__":
    main()
