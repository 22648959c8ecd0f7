"""The groups of images of one part that `msc-edge train` finds, on data sets with and without such images.

    python benchmarks/groups.py --shared ../shared [--independent DIR ...]

magnetic_tile shows each tile at up to six exposures; see `tiles_of`.
Printed with and without the order of the file names: the groups, and how many pairs of images of one tile share one.
And how many normal test images show a tile of the training images.
The papers, 32 images each, are independent, and so are the images in each DIR, such as DEMO/data/train of `msc-edge
demo`. Then the time for 10,000 random embeddings of 1280 values in six orders.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import SHARED, found, magnetic_tile, papers, parser_of, tiles_of
from networks import pretrained_network

from msc_edge.groups import near_duplicates, orders_of
from msc_edge.images import read_image
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.dataset import groups_of

PATTERN = r"num_([0-9]+)[0-9][0-9]\.jpg"
"""Of `--group-by`: nearly the tiles, but a tile is cut in two where the hundreds change."""


def embeddings_of(paths: Sequence[Path]) -> np.ndarray:
    """Embeddings by the frozen edge-small, float32 (n, dim)."""
    return pretrained_network(EDGE_SMALL, None).embed_all((str(path), read_image(path)) for path in paths)


def shared_pairs(groups: np.ndarray, parts: np.ndarray) -> tuple[int, int, int]:
    """Pairs of images of one part that share a group, all pairs of images of one part, all pairs that share a group."""
    one_group, one_part = (np.triu(each[:, None] == each[None], 1) for each in (groups, parts))
    return int((one_group & one_part).sum()), int(one_part.sum()), int(one_group.sum())


def main() -> None:
    """Find the groups, and print them."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--independent", type=Path, nargs="+", default=[], metavar="DIR", help="folders of images")
    options = parser.parse_args()

    tile = magnetic_tile(options.shared)
    names, embeddings = [path.name for path in tile.train], embeddings_of(tile.train)
    found_groups = {
        "embeddings alone": near_duplicates(embeddings),
        "and names": near_duplicates(embeddings, orders_of(names)),
        "a pattern": groups_of(names, PATTERN),
    }
    for label, groups in found_groups.items():
        shared, of_tiles, together = shared_pairs(groups, tiles_of(names))
        print(
            f"magnetic_tile, {label}: {len(groups)} images in {groups.max() + 1} groups, the largest has "
            f"{np.bincount(groups).max()}; {shared} of {of_tiles} pairs of one tile share a group, of {together} pairs "
            "that do",
            flush=True,
        )
    parts = tiles_of([path.name for path in (*tile.train, *tile.normal)])
    trained, tested = np.split(parts, [len(tile.train)])
    seen = np.isin(tested, trained).sum()
    print(f"magnetic_tile: {seen} of {len(tested)} normal test images show a tile of the training images")
    independent = {name: images.train for name, images in papers(options.shared).items()}
    independent |= {str(folder): found(folder) for folder in options.independent}
    for name, paths in independent.items():
        groups = near_duplicates(embeddings_of(paths), orders_of([path.name for path in paths]))
        print(f"{name}: {len(paths)} images in {groups.max() + 1} groups", flush=True)

    random = np.random.default_rng(0)
    rows = random.normal(size=(10_000, 1280)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    orders = [random.permutation(len(rows)) for _ in range(6)]
    started = time.perf_counter()
    groups = near_duplicates(rows, orders)
    seconds = time.perf_counter() - started
    print(f"10,000 random rows in six orders: {groups.max() + 1} groups, {seconds:.1f} s")


if __name__ == "__main__":
    main()
