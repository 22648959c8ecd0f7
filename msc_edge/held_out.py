"""Normal images that are held out, for scores as new images have them: once, or in turn.

Held out once, a part of the images is in no memory bank. Held out in turn, all images are in the bank of the kit, and
each is scored against that bank without the images of its own group (cross-conformal prediction: Vovk 2015,
"Cross-conformal predictors"; Barber, Candes, Ramdas & Tibshirani 2021, "Predictive inference with the jackknife+").
A new image is then compared with a few images more than the scores of the calibration were, so its score is not higher
than that of a like image, and the stated rates are on the safe side. The network must not have been trained on the
images, because it would know them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from msc_edge.bank import SPARE, Bank

_BLOCK = 256  # images whose similarities to all rows are in memory


def can_be_held_out_in_turn(groups: Sequence[int], *, k: int) -> bool:
    """Whether each group leaves at least half of the images, and at least `k` of them."""
    largest = int(np.bincount(np.unique(groups, return_inverse=True)[1]).max())
    return len(groups) - largest >= max(k, len(groups) / 2)


def members_of(groups: Sequence[int]) -> Mapping[int, np.ndarray]:
    """The places of the images of each group, int64 (n,)."""
    numbers = np.asarray(groups)
    return {int(group): np.flatnonzero(numbers == group) for group in np.unique(numbers)}


def image_scores_in_turn(bank: Bank, groups: Sequence[int]) -> np.ndarray:
    """The score of each row against the rows of other groups, float64 (n,).

    `groups`: of each row, as `can_be_held_out_in_turn` requires them.
    """
    rows, numbers = bank.embeddings, np.asarray(groups)
    scores, count = np.empty(len(rows)), min(bank.k + SPARE, len(rows))
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        similarity = rows[part] @ rows.T
        similarity[numbers[part, None] == numbers] = -np.inf
        for place, similar in enumerate(similarity, start=first):
            others = similar.argpartition(-count)[-count:]
            scores[place] = bank.nearest_of(rows[place], others[np.isfinite(similar[others])]).score
    return scores
