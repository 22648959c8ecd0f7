"""False-alarm rates that few images state, held out in turn: from how many parts on the whitening may know them.

    python benchmarks/few_images.py --shared ../shared [--images 12 16 20 24 28 32 100] [--draws 30]

Each draw takes one normal image of each of N tiles of magnetic_tile at random, and one of each other tile as new. The N
images are the bank, and set the limit at their largest score, held out in turn (see false_alarms.py); edge-small,
frozen. Printed: the expected share of new images above the limit, and the observed ones by whole images, by patches and
by both, with two standard errors.
"""

from pathlib import Path

import numpy as np
from common import SHARED, parser_of, tiles_of
from false_alarms import Images, Split, alarms_in, normal_images, with_error

from msc_edge.scoring import ScoreKind
from msc_edge.train.backbones.edge_small import EDGE_SMALL

KINDS: tuple[ScoreKind, ...] = ("image", "patch", "both")


def shares_of(images: Images, tiles: np.ndarray, count: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """The shares of new images above the limits of KINDS, float64 (draws, 3)."""
    shares = []
    for _ in range(draws):
        one = np.array([random.choice(np.flatnonzero(tiles == tile)) for tile in random.permutation(tiles.max() + 1)])
        bank, new = np.sort(one[:count]), np.sort(one[count:])
        split = Split(bank, bank, np.arange(count), new)
        scores = images.scores(split)
        # The first rate is 1 %: the largest score, or the largest that it allows.
        shares.append([alarms_in(kind, scores, split)[0].alarms / len(new) for kind in KINDS])
    return np.array(shares)


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--images", type=int, nargs="+", default=[12, 16, 20, 24, 28, 32, 100])
    parser.add_argument("--draws", type=int, default=30, help="default: %(default)s")
    options = parser.parse_args()
    paths = normal_images(options.shared)
    images, tiles = Images(EDGE_SMALL, None, paths, patches=True), tiles_of([path.name for path in paths])
    print(f"| images | expected | {' | '.join(KINDS)} |\n|---|---|---|---|---|", flush=True)
    for count in options.images:
        shares = shares_of(images, tiles, count, options.draws, np.random.default_rng(count))
        observed = " | ".join(with_error(column, 1) for column in shares.T)
        print(f"| {count} | {1 / (count + 1):.1%} | {observed} |", flush=True)


if __name__ == "__main__":
    main()
