"""Groups: images that show the same part, found by their embeddings, and by the order in which they were taken.

A part that was photographed twice, with another exposure or a little later, gives two similar images. With one of them
in the memory bank and the other one held out, the held-out score is lower than the score of a new part will be, and the
limits that follow from it reject too many good parts.

Two images belong together if a large part of what distinguishes each of them from the mean image is the same. This is
measured after whitening: in each principal direction, the deviation is divided by the standard deviation of the set. A
change that many images share, such as the exposure or the position of the part, then counts little, and what only these
two images have in common, such as the grain of one part, counts much. They must be alike in the weaker half of the
directions, too: parts in almost the same position are alike in the stronger half only.

Different kinds of parts in one set vary in different directions. Where the set falls into such clusters, images of one
kind are compared after whitening by that kind alone, and images of two kinds after whitening by all.

Any two images are compared, and a limit for so many pairs is strict. Images of one part are often neighbours in the
order of their file names or of their times. Neighbours are few, so less evidence is needed, and the more of them are
alike the less (Benjamini & Hochberg 1995, "Controlling the false discovery rate"). An order that says nothing about the
parts changes nothing.

Few parts with many images each vary in few directions, and nothing but their names can tell them from kinds of parts
whose own parts are almost alike. Names of a series, such as `part012_03.png`, do: where the images with an equal number
hardly differ, and those with different ones do, they are of one part.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from statistics import NormalDist

import numpy as np

_DIRECTIONS = 64
_LEAST_DIRECTIONS = 8  # with fewer, independent images can be alike by chance
_CHANCE = 0.001  # that any pair of independent images is above the limit
_FALSE_NEIGHBOURS = 0.01  # of the neighbours that are found alike, in the mean
_EQUAL = 0.001  # of the mean squared distance: of images that are equal but for noise
_ROUNDING = 1e-12  # of a squared distance
_LEAST_OF_A_KIND = 32  # images
_TWO_KINDS = 0.9  # of the variance; two halves explain 0.64 for a normal distribution, 0.75 for a uniform one
_SPLIT_DIRECTIONS = 3
_SAME_PART = 0.25  # of the variance is within the images of one number; series: 0.05, numbers of other things: 0.9
_MOST_OF_A_PART = 64  # images in the mean; more have a kind in common, or a day
_ROWS = 1024  # of the matrix of cosines at a time
_NUMBER = re.compile(r"([0-9]+)")


def near_duplicates(embeddings: np.ndarray, orders: Iterable[np.ndarray] = ()) -> np.ndarray:
    """The group of each image, int64 (n,), numbered from 0 in the order of the first image of each.

    `embeddings`: float32 (n, dim), unit rows. `orders`: ways to sort the images, each int64 (n,), the image at each
    place; see `orders_of`. An image that is like no other one is a group of its own. Images that are not like each
    other but both like a third one are in one group. Among fewer than 32 images, only almost equal ones form groups.
    """
    groups = np.arange(len(embeddings))
    for alike in _sets_of_alike(embeddings, list(orders)):
        together = np.unique(groups[alike])
        if len(together) > 1:
            groups[np.isin(groups, together)] = together[0]
    return numbered(groups)


def near_duplicate_files(embeddings: np.ndarray, folder: Path, names: Sequence[str]) -> np.ndarray:
    """The groups of image files by their embeddings, names and times of modification; see `near_duplicates`.

    `names`: of the images, relative to `folder`, with forward slashes.
    """
    try:
        times = [(folder / name).stat().st_mtime for name in names]
    except OSError:  # a file that has gone: the names remain
        times = None
    found = near_duplicates(embeddings, orders_of(names, times))
    for series in series_of(embeddings, names):
        found = joined(found, series)
    return found


def series_of(embeddings: np.ndarray, paths: Sequence[str]) -> Iterator[np.ndarray]:
    """Groups by a number that all paths have, where the images with an equal one are of one part; int64 (n,) each.

    `paths`: with forward slashes. Such a number explains at least three quarters of the variance of the embeddings, by
    a one-way analysis of variance.
    """
    numbers = [[int(each) for each in _NUMBER.findall(str(PurePosixPath(path).with_suffix("")))] for path in paths]
    deviations = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    total = float(np.square(deviations).sum()) / max(1, len(paths) - 1)
    for place in range(min(map(len, numbers), default=0)):
        groups = np.unique([each[place] for each in numbers], return_inverse=True)[1]
        sizes = np.bincount(groups)
        if not 1 < len(sizes) < len(paths) or len(paths) > _MOST_OF_A_PART * len(sizes):
            continue
        means = np.stack([np.bincount(groups, column) for column in deviations.T], axis=1) / sizes[:, None]
        within = float(np.square(deviations - means[groups]).sum()) / (len(paths) - len(sizes))
        if within <= _SAME_PART * total:
            yield groups


def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The groups of images that are together in one or the other, or through further images; int64 (n,)."""
    groups = one.copy()
    for members in (np.flatnonzero(other == group) for group in np.unique(other)):
        together = np.unique(groups[members])
        groups[np.isin(groups, together)] = together[0]
    return numbered(groups)


def numbered(groups: np.ndarray) -> np.ndarray:
    """The same groups, numbered from 0 in the order of the first image of each; int64 (n,)."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def orders_of(paths: Sequence[str], times: Sequence[float] | None = None) -> list[np.ndarray]:
    """The orders in which images may have been taken, each int64 (n,): the image at each place.

    `paths`: with forward slashes. They are sorted by their text and numbers, and by each number that all file names
    have: `exp2_num_1034.png` by 2 and by 1034. `times`: of the images, in seconds.
    """
    natural = [_natural(path) for path in paths]
    keys: list[Sequence[object]] = [natural]
    numbers = [_numbers(path) for path in paths]
    keys += [[each[place] for each in numbers] for place in range(min(map(len, numbers), default=0))]
    if times is not None:
        keys.append(times)
    found: dict[bytes, np.ndarray] = {}
    for key in keys:
        order = np.array(sorted(range(len(paths)), key=lambda i: (key[i], natural[i])), dtype=np.int64)
        found.setdefault(order.tobytes(), order)
    return list(found.values())


def _natural(path: str) -> list[tuple[str, int]]:
    """A key that sorts numbers as numbers: `part9` before `part10`."""
    pieces = _NUMBER.split(path)
    return [*zip(pieces[::2], (int(each) for each in pieces[1::2]), strict=False), (pieces[-1], -1)]


def _numbers(path: str) -> list[int]:
    return [int(each) for each in _NUMBER.findall(PurePosixPath(path).stem)]


def _sets_of_alike(embeddings: np.ndarray, orders: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Sets of images that belong together, as places."""
    deviations = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    kind_of = np.zeros(len(deviations), dtype=np.int64)
    kinds = list(_kinds(deviations, np.arange(len(deviations))))
    for number, kind in enumerate(kinds):
        kind_of[kind] = number
        deviations[kind] -= deviations[kind].mean(axis=0)
        place = np.full(len(deviations), -1)
        place[kind] = np.arange(len(kind))
        own_orders = [each[each >= 0] for each in (place[order] for order in orders)]
        for alike in _compared(deviations[kind], own_orders, np.arange(len(kind))):
            yield kind[alike]
    if len(kinds) > 1:  # one part in two lights, for example
        yield from _compared(deviations, orders, kind_of)


def _compared(deviations: np.ndarray, orders: Sequence[np.ndarray], labels: np.ndarray) -> Iterator[np.ndarray]:
    """Sets of images that belong together, as places. Images with equal `labels`, (n,), are not compared."""
    white = _white(deviations)
    for place, others in enumerate(_almost_equal(deviations) if white is None else _alike(white)):
        yield np.append(np.flatnonzero(others & (labels != labels[place])), place)
    if white is None:
        return
    for order in orders:
        compared = np.flatnonzero(labels[order[:-1]] != labels[order[1:]])
        p_values = _p_values_of_neighbours(white[order])[compared]
        for place in compared[_rejected(p_values, _FALSE_NEIGHBOURS / len(orders))]:
            yield order[place : place + 2]


def _kinds(deviations: np.ndarray, images: np.ndarray) -> Iterator[np.ndarray]:
    """Split images, as places, wherever two clusters explain nearly all of the variance in a principal direction."""
    if len(images) >= 2 * _LEAST_OF_A_KIND:
        centred = deviations[images] - deviations[images].mean(axis=0)
        _, directions = np.linalg.eigh(centred.T @ centred)
        for values in (centred @ directions[:, : -1 - _SPLIT_DIRECTIONS : -1]).T:
            order, below = np.argsort(values), np.arange(1, len(values))
            sums = np.cumsum(values[order])[:-1]
            explained = sums**2 / below + sums**2 / (len(values) - below)  # by the means of both sides
            size = int(below[explained.argmax()])
            least = min(size, len(values) - size)
            if least >= _LEAST_OF_A_KIND and explained.max() > _TWO_KINDS * np.square(values).sum():
                yield from _kinds(deviations, images[order[:size]])
                yield from _kinds(deviations, images[order[size:]])
                return
    yield images


def _white(deviations: np.ndarray) -> np.ndarray | None:
    """Deviations in the principal directions, in standard deviations, weakest first; None for too few directions."""
    count = len(deviations)
    variances, directions = np.linalg.eigh(deviations.T @ deviations / count)
    used = min(_DIRECTIONS, count // 4, int((variances > 1e-9 * variances[-1]).sum()))
    return deviations @ directions[:, -used:] / np.sqrt(variances[-used:]) if used >= _LEAST_DIRECTIONS else None


def _almost_equal(deviations: np.ndarray) -> Iterator[np.ndarray]:
    """For each image, which images are equal to it but for noise: bool (n,)."""
    squares = np.square(deviations).sum(axis=1)
    for part in _parts(len(deviations)):
        distances = squares[part, None] + squares - 2 * deviations[part] @ deviations.T
        yield from distances <= _EQUAL * 2 * squares.mean() + _ROUNDING


def _alike(white: np.ndarray) -> Iterator[np.ndarray]:
    """For each image, which images are like it: bool (n,)."""
    pairs = len(white) * (len(white) - 1) / 2
    every, weaker = _unit(white), _unit(_weaker_half(white))
    # For independent images, atanh of a cosine has a standard deviation of 1 / sqrt(directions - 3) (Fisher 1921).
    limits = [
        math.tanh(-NormalDist().inv_cdf(chance) / math.sqrt(rows.shape[1] - 3))
        for rows, chance in ((every, _CHANCE / pairs), (weaker, _CHANCE))
    ]
    for part in _parts(len(white)):
        yield from (every[part] @ every.T > limits[0]) & (weaker[part] @ weaker.T > limits[1])


def _p_values_of_neighbours(white: np.ndarray) -> np.ndarray:
    """The chance that each image is as like the next one as it is, if they are independent: (n - 1,)."""
    p_values = np.zeros(len(white) - 1)
    for rows in (_unit(white), _unit(_weaker_half(white))):
        cosines = np.clip((rows[:-1] * rows[1:]).sum(axis=1), -1 + 1e-7, 1 - 1e-7)
        deviates = np.arctanh(cosines) * math.sqrt(rows.shape[1] - 3)
        p_values = np.maximum(p_values, [NormalDist().cdf(-deviate) for deviate in deviates])
    return p_values


def _rejected(p_values: np.ndarray, false: float) -> np.ndarray:
    """Which are too small for chance, bool (n,). `false`: the share of wrong ones among them, in the mean."""
    ordered = np.sort(p_values)
    holds = ordered <= false * np.arange(1, len(ordered) + 1) / max(1, len(ordered))
    return p_values <= (ordered[holds].max() if holds.any() else -1)


def _weaker_half(white: np.ndarray) -> np.ndarray:
    return white[:, : white.shape[1] // 2]


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return (rows / lengths).astype(np.float32)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
