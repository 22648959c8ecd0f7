"""Groups: images that show the same part, found by their embeddings.

A part that was photographed twice, with another exposure or a little later, gives two similar images. With one of them
in the memory bank and the other one held out, the held-out score is lower than the score of a new part will be, and the
limits that follow from it reject too many good parts.

Two images belong together if a large part of what distinguishes each of them from the mean image is the same. This is
measured after whitening: in each principal direction, the deviation is divided by the standard deviation of the set. A
change that many images share, such as the exposure or the position of the part, then counts little, and what only these
two images have in common, such as the grain of one part, counts much. They must be alike in the weaker half of the
directions, too: parts in almost the same position are alike in the stronger half only.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

_DIRECTIONS = 64
_LEAST_DIRECTIONS = 8  # with fewer, independent images can be alike by chance
_CHANCE = 0.001  # that any pair of independent images is above the limit
_EQUAL = 0.001  # of the mean squared distance: of images that are equal but for noise
_ROUNDING = 1e-12  # of a squared distance
_ROWS = 1024  # of the matrix of cosines at a time


def near_duplicates(embeddings: np.ndarray) -> np.ndarray:
    """The group of each image, int64 (n,), numbered from 0 in the order of the first image of each.

    `embeddings`: float32 (n, dim), unit rows. An image that is like no other one is a group of its own. Images that are
    not like each other but both like a third one are in one group. Among fewer than 32 images, only almost equal
    ones form groups.
    """
    deviations = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    groups = np.arange(len(deviations))
    for others in _alike(deviations):
        together = np.unique(groups[others])
        if len(together) > 1:
            groups[np.isin(groups, together)] = together[0]
    return numbered(groups)


def numbered(groups: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 in the order of the first image of each; int64 (n,)."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _alike(deviations: np.ndarray) -> Iterator[np.ndarray]:
    """For each image, which images are like it: bool (n,)."""
    count = len(deviations)
    variances, directions = np.linalg.eigh(deviations.T @ deviations / count)
    used = min(_DIRECTIONS, count // 4, int((variances > 1e-9 * variances[-1]).sum()))
    if used < _LEAST_DIRECTIONS:
        squares = np.square(deviations).sum(axis=1)
        for start in range(0, count, _ROWS):
            part = slice(start, start + _ROWS)
            distances = squares[part, None] + squares - 2 * deviations[part] @ deviations.T
            yield from distances <= _EQUAL * 2 * squares.mean() + _ROUNDING
        return
    white = deviations @ directions[:, -used:] / np.sqrt(variances[-used:])
    pairs = count * (count - 1) / 2
    every, weaker = (_Cosines(white, used, _CHANCE / pairs), _Cosines(white, used // 2, _CHANCE))
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        yield from every.above(part) & weaker.above(part)


class _Cosines:
    """Cosines of deviations in the first columns, which are the directions of least variance."""

    def __init__(self, white: np.ndarray, directions: int, chance: float) -> None:
        rows = white[:, :directions]
        lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        self._rows = (rows / lengths).astype(np.float32)
        # For independent images, atanh of a cosine has a standard deviation of 1 / sqrt(directions - 3) (Fisher 1921).
        self._limit = math.tanh(-NormalDist().inv_cdf(chance) / math.sqrt(directions - 3))

    def above(self, part: slice) -> np.ndarray:
        """Whether the cosines of some images with all images are above what chance gives, bool (part, n)."""
        return self._rows[part] @ self._rows.T > self._limit
