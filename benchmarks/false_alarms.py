"""Do good images exceed the limits as often as was promised? magnetic_tile, many splits, frozen backbones.

    python benchmarks/false_alarms.py --shared ../shared [--splits 1000] [--block-splits 200]

All 952 good images (train/good and test/good, by file name) are embedded once. A split deals them to a bank,
a calibration and a test part, in the sizes of the product's default on this set (609, 152, 191). The limits for 1 %,
2 % and 5 % are set by the calibration part, and the test images above them are counted. `random` deals image by
image, as the theory asks; `blocks` cuts the order of the files into 50 blocks and deals those, so that nearest_images,
which are often images of one tile, stay together: that is what a line does, whose images of tomorrow are no random
part of those of today. No label of a defect is read.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msc_edge.calibration import Calibration, alarm_count_interval
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train.backbones import EDGE_SMALL, build_backbone
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.weights import bundled_weights, load_into, weights_from_file

RATES = (0.01, 0.02, 0.05)
BANK, CALIBRATION = 609, 152  # of 952; the other 191 are the test part
BLOCKS = 50
NEIGHBOURS = 2


def good_images(data: Path) -> list[Path]:
    """All good tiles, by file name: the two folders were one before every fifth went to the test part."""
    tiles = data / "magnetic_tile"
    paths = [*(tiles / "train" / "good").iterdir(), *(tiles / "test" / "good").iterdir()]
    return sorted(paths, key=lambda path: path.name)


def embeddings_of(name: str, weights: Path | None, paths: list[Path]) -> np.ndarray:
    """Embeddings under a frozen backbone at 224x224, float32 (n, dim), unit rows."""
    backbone = build_backbone(name)
    pretrained = weights_from_file(weights) if weights else bundled_weights()
    load_into(backbone, pretrained.state, source=name)
    network = EmbeddingNetwork(backbone, preset("whole-frame", image_size=224)).eval()
    return network.embed_all((str(path), read_image(path)) for path in paths)


def dealt(order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bank, calibration and test part of an order of images."""
    return order[:BANK], order[BANK : BANK + CALIBRATION], order[BANK + CALIBRATION :]


def random_orders(count: int, splits: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Any order of the images, all equally likely."""
    for _ in range(splits):
        yield random.permutation(count)


def block_orders(count: int, splits: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Orders that keep BLOCKS runs of nearest_images together, but for the two that a part ends in."""
    blocks = np.array_split(np.arange(count), BLOCKS)
    for _ in range(splits):
        yield np.concatenate([blocks[i] for i in random.permutation(BLOCKS)])


def scores_against(similarity: np.ndarray, bank: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean cosine distance of `rows` to their nearest nearest_images in `bank`, as the product scores."""
    nearest = np.partition(similarity[np.ix_(rows, bank)], -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    return 1 - nearest.mean(axis=1)


def alarms_in(similarity: np.ndarray, orders: Iterator[np.ndarray]) -> np.ndarray:
    """How many test images exceed the limits of RATES, int (splits, rates)."""
    counted = []
    for order in orders:
        bank, held_out, test = dealt(order)
        calibration = Calibration(scores_against(similarity, bank, held_out))
        scores = scores_against(similarity, bank, test)
        counted.append([int((scores > calibration.limit(rate).score).sum()) for rate in RATES])
    return np.array(counted)


def share_in_band(flagged: int, held_out: int, images: int, band: tuple[int, int]) -> float:
    """The probability that a beta-binomial count lies in `band`; at least 90 %, and more since counts are whole."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def chance(count: int) -> float:
        ways = -math.log(images + 1) - log_beta(count + 1, images - count + 1)
        a, b = flagged, held_out + 1 - flagged
        return math.exp(ways + log_beta(count + a, images - count + b) - log_beta(a, b))

    return sum(chance(count) for count in range(band[0], band[1] + 1))


def show(backbone: str, kind: str, alarms: np.ndarray, images: int) -> None:
    """A row of the table for each rate."""
    test = images - BANK - CALIBRATION
    for rate, counts in zip(RATES, alarms.T, strict=True):
        limit = Calibration(np.arange(CALIBRATION)).limit(rate)
        assert limit.expected_rate is not None
        flagged = round(limit.expected_rate * (CALIBRATION + 1))
        band = alarm_count_interval(flagged, CALIBRATION, test)
        inside = (band[0] <= counts) & (counts <= band[1])
        error = 2 * math.sqrt(inside.mean() * (1 - inside.mean()) / len(counts))
        print(
            f"| {backbone} | {kind}, {len(counts)} | {rate:.0%} | {limit.expected_rate:.2%} | "
            f"{counts.mean() / test:.2%} | {band[0]} to {band[1]} | "
            f"{share_in_band(flagged, CALIBRATION, test, band):.1%} | {inside.mean():.1%} ± {error:.1%} | "
            f"{(counts > band[1]).mean():.1%} |",
            flush=True,
        )


def main() -> None:
    """Embed, deal, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--block-splits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = good_images(options.shared / "data")
    print(
        "| backbone | splits | asked for | promised | realised, mean | band, of "
        f"{len(paths) - BANK - CALIBRATION} | chance of the band | inside | above it |\n{'|---' * 9}|"
    )
    weights = options.shared / "weights" / "mobilenet_v2.safetensors"
    for backbone, file in ((EDGE_SMALL, None), ("mobilenet_v2", weights)):
        embeddings = embeddings_of(backbone, file, paths).astype(np.float64)
        similarity = embeddings @ embeddings.T
        for kind, deal, splits in (
            ("random", random_orders, options.splits),
            ("blocks", block_orders, options.block_splits),
        ):
            orders = deal(len(paths), splits, np.random.default_rng(options.seed))
            show(backbone, kind, alarms_in(similarity, orders), len(paths))


if __name__ == "__main__":
    main()
