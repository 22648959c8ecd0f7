"""Patch embeddings as rows to compare with: distances to them, and which patches of an image are worth a row.

The patch bank of a kit is part of its model. What is learned at the line is compared here, by the same formula.
"""

import cv2
import numpy as np

ROUNDING = 3e-4
"""Of a squared distance, relative to the squared length of the patch: a distance below 0.017 of the length is given as
that. The rounding of a sum changes smaller ones by several per cent, and torch and the runtime must agree."""


def distances_to(rows: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Euclidean distance of each patch to the nearest row: float32 (n,) of rows (m, dim), m >= 1, and patches (n, dim).

    The formula is that of the patch head in a kit's model.
    """
    squares = np.square(rows).sum(axis=1)
    # Not `@`: BLAS starts its own threads and stalls when other images use the cores.
    nearest = cv2.gemm(patches, rows, -2, squares[None].repeat(len(patches), axis=0), 1, flags=cv2.GEMM_2_T).min(axis=1)
    own = np.square(patches).sum(axis=1)
    return np.sqrt(np.maximum(nearest + own, np.float32(ROUNDING) * own))


def covering(patches: np.ndarray, distances: np.ndarray, radius: float) -> np.ndarray:
    """The places of a few patches that, with the bank, lie within `radius` of every patch; int64 (m,), in order.

    `patches`: float32 (n, dim). `distances`: to the bank, float32 (n,). The farthest patch is chosen first, then the
    farthest from the bank and those chosen, and so on (the greedy choice of Gonzalez 1985, "Clustering to minimize the
    maximum intercluster distance").
    """
    remaining, chosen = distances.copy(), []
    while len(patches) and remaining[place := int(remaining.argmax())] > radius:
        chosen.append(place)
        remaining = np.minimum(remaining, distances_to(patches[place][None], patches))
        remaining[place] = 0.0
    return np.array(sorted(chosen), np.int64)
