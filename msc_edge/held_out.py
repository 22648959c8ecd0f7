"""Normal images that are held out, for scores as new images have them: once, or in turn.

Held out once, a part of the images is in no memory bank. Held out in turn, all images are in the bank of the kit, and
each calibration image is scored against that bank without the images of its own group (cross-conformal prediction:
Vovk 2015, "Cross-conformal predictors"; Barber, Candes, Ramdas & Tibshirani 2021, "Predictive inference with the
jackknife+"). A new image is compared with a few rows more than the calibration images were, and more rows can only
lower an image score. The whitening of patches is fitted on all images and knows each of them: with few groups, patch
scores of the calibration would be too low (see GROUPS_FOR_PATCHES). Calibration images are those that the network was
not trained on, because it knows the others: all images of a pretrained network.
"""

from collections.abc import Sequence

import numpy as np

from msc_edge.bank import SPARE, Bank

GROUPS_FOR_PATCHES = 30
"""Fewest groups whose patches can be held out in turn, see docs/decisions.md."""
_BLOCK = 256  # images whose similarities to all rows are in memory


def can_be_held_out_in_turn(groups: Sequence[int], *, k: int, patches: bool) -> bool:
    """Whether each group leaves at least half of the images, and at least `k` of them.

    `patches`: the score compares patches, too, which needs at least GROUPS_FOR_PATCHES groups.
    """
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1])
    if patches and len(sizes) < GROUPS_FOR_PATCHES:
        return False
    return len(groups) - int(sizes.max()) >= max(k, len(groups) / 2)


def image_scores_in_turn(
    bank: Bank, bank_groups: Sequence[int], embeddings: np.ndarray, groups: Sequence[int]
) -> np.ndarray:
    """The score of each calibration image against the rows of other groups, float64 (n,).

    `bank_groups`: of each row, as `can_be_held_out_in_turn` requires them. `embeddings`: of the calibration images,
    float32 (n, dim), those of training or of an exported model. `groups`: of each of them.
    """
    rows, row_groups, own = bank.embeddings, np.asarray(bank_groups), np.asarray(groups)
    scores, count = np.empty(len(embeddings)), min(bank.k + SPARE, len(rows))
    for first in range(0, len(embeddings), _BLOCK):
        part = slice(first, first + _BLOCK)
        similarity = embeddings[part] @ rows.T
        similarity[own[part, None] == row_groups] = -np.inf
        for place, similar in enumerate(similarity, start=first):
            others = similar.argpartition(-count)[-count:]
            scores[place] = bank.nearest_of(embeddings[place], others[np.isfinite(similar[others])]).score
    return scores
