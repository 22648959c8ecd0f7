"""Observed false-alarm rates compared with the expected rates: magnetic_tile, many random splits, frozen backbones.

    python benchmarks/false_alarms.py --shared ../shared [--splits 1000] [--block-splits 200]

All 952 normal images (train/good and test/good, by file name) are embedded once. Each split assigns them to the bank,
to calibration and to a test part, in the sizes of the product's defaults on this set (609, 152, 191). The calibration
part sets the limits for target rates of 1, 2 and 5 %, and the test images above each limit are counted.

`random` assigns image by image, which is what the theory assumes. `blocks` cuts the files in the order of their names
into 50 blocks and assigns blocks: successive files often show the same tile, and stay together. A production line is
more like `blocks`, because tomorrow's images are no random sample of today's. No defect is used.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import SHARED, magnetic_tile, parser_of
from networks import pretrained_network

from msc_edge.calibration import Calibration, alarm_count_interval
from msc_edge.images import read_image
from msc_edge.train.backbones import EDGE_SMALL

RATES = (0.01, 0.02, 0.05)
BANK, CALIBRATION = 609, 152  # of 952; the other 191 are the test part
BLOCKS = 50
K = 2  # nearest normal images of a score


def normal_images(shared: Path) -> list[Path]:
    """All normal images of magnetic_tile, by file name: every fifth of them had been moved to the test folder."""
    tile = magnetic_tile(shared)
    return sorted(tile.train + tile.normal, key=lambda path: path.name)


def embeddings_of(name: str, weights: Path | None, paths: list[Path]) -> np.ndarray:
    """Embeddings of a frozen backbone at 224x224, float32 (n, dim), unit rows."""
    return pretrained_network(name, weights).embed_all((str(path), read_image(path)) for path in paths)


def split(order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bank, calibration and test part of the images in this order."""
    return order[:BANK], order[BANK : BANK + CALIBRATION], order[BANK + CALIBRATION :]


def random_orders(count: int, splits: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Random orders of the images, all equally likely."""
    for _ in range(splits):
        yield random.permutation(count)


def block_orders(count: int, splits: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Random orders of blocks of successive images. A part may end within a block."""
    blocks = np.array_split(np.arange(count), BLOCKS)
    for _ in range(splits):
        yield np.concatenate([blocks[i] for i in random.permutation(BLOCKS)])


def scores_against(similarity: np.ndarray, bank: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scores of `rows` as in the product: the mean cosine distance to their K nearest rows of `bank`."""
    nearest = np.partition(similarity[np.ix_(rows, bank)], -K, axis=1)[:, -K:]
    return 1 - nearest.mean(axis=1)


def alarms_in(similarity: np.ndarray, orders: Iterator[np.ndarray]) -> np.ndarray:
    """Numbers of test images above the limits of RATES, int (splits, rates)."""
    counted = []
    for order in orders:
        bank, held_out, test = split(order)
        calibration = Calibration(scores_against(similarity, bank, held_out))
        scores = scores_against(similarity, bank, test)
        counted.append([int((scores > calibration.limit(rate).score).sum()) for rate in RATES])
    return np.array(counted)


def probability_of(interval: tuple[int, int], flagged: int, held_out: int, images: int) -> float:
    """The probability that a beta-binomial count lies in `interval`: above 90 %, because counts are whole numbers."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def probability(count: int) -> float:
        log_ways = -math.log(images + 1) - log_beta(count + 1, images - count + 1)
        a, b = flagged, held_out + 1 - flagged
        return math.exp(log_ways + log_beta(count + a, images - count + b) - log_beta(a, b))

    return sum(probability(count) for count in range(interval[0], interval[1] + 1))


def show(backbone: str, kind: str, alarms: np.ndarray, images: int) -> None:
    """Print a row of the table for each rate."""
    test = images - BANK - CALIBRATION
    for rate, counts in zip(RATES, alarms.T, strict=True):
        limit = Calibration(np.arange(CALIBRATION)).limit(rate)
        assert limit.expected_rate is not None
        flagged = round(limit.expected_rate * (CALIBRATION + 1))
        interval = least, most = alarm_count_interval(flagged, CALIBRATION, test)
        inside = (least <= counts) & (counts <= most)
        error = 2 * math.sqrt(inside.mean() * (1 - inside.mean()) / len(counts))
        print(
            f"| {backbone} | {kind}, {len(counts)} | {rate:.0%} | {limit.expected_rate:.2%} | "
            f"{counts.mean() / test:.2%} | {least} to {most} | "
            f"{probability_of(interval, flagged, CALIBRATION, test):.1%} | {inside.mean():.1%} ± {error:.1%} | "
            f"{(counts > most).mean():.1%} |",
            flush=True,
        )


def main() -> None:
    """Embed, split, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--splits", type=int, default=1000, help="random splits; default: %(default)s")
    parser.add_argument("--block-splits", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    paths = normal_images(options.shared)
    print(
        "| backbone | splits | target | expected | observed, mean | 90 % interval, of "
        f"{len(paths) - BANK - CALIBRATION} | its probability | inside | above |\n{'|---' * 9}|"
    )
    weights = options.shared / "weights/mobilenet_v2.safetensors"
    for backbone, file in ((EDGE_SMALL, None), ("mobilenet_v2", weights)):
        embeddings = embeddings_of(backbone, file, paths).astype(np.float64)
        similarity = embeddings @ embeddings.T
        for kind, orders_of, splits in (
            ("random", random_orders, options.splits),
            ("blocks", block_orders, options.block_splits),
        ):
            orders = orders_of(len(paths), splits, np.random.default_rng(options.seed))
            show(backbone, kind, alarms_in(similarity, orders), len(paths))


if __name__ == "__main__":
    main()
