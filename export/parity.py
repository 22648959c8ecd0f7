"""The proof of a kit: before it is put in place, the runtime's own code must give the scores that training gave."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from msc_edge.bank import Bank
from msc_edge.calibration import Limits
from msc_edge.errors import KitError
from msc_edge.export.run_images import evenly
from msc_edge.kit.manifest import Parity
from msc_edge.runtime import Detector
from msc_edge.train.network import EmbeddingNetwork

TOLERANCE = 1e-4
# A held-out image *is* each limit, so its own score meets the limit but for the last digits, and those depend on
# how many images were computed at a time. Within this distance of the limit, on both sides, a verdict is a tie.
ROUNDING = 1e-5
FEWEST = 32  # comparisons


@dataclass(frozen=True)
class Comparison:
    """One image under both: its scores, and the largest difference between the two embeddings."""

    name: str
    torch_score: float
    runtime_score: float
    embedding_difference: float


def parity_images(held_out: Sequence[str], in_bank: Sequence[str]) -> list[str]:
    """Up to FEWEST of the names: held-out images first, evenly chosen, and images of the bank to fill up."""
    chosen = evenly(held_out, FEWEST)
    return chosen + evenly(in_bank, FEWEST - len(chosen))


def compare(
    network: EmbeddingNetwork,
    bank: Bank,
    detector: Detector,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    count: int,
) -> list[Comparison]:
    """Score `count` named decoded images, uint8 (h, w, 3), with the network in torch and with the kit.

    Each image is scored as it is and as its negative, which no good part looks like, so that scores from one end
    of the scale to the other are compared; shifted copies join where this makes fewer than FEWEST.
    """
    variants = max(2, math.ceil(FEWEST / count))
    return [
        _compare_one(network, bank, detector, *_variant(name, image, number))
        for name, image in images
        for number in range(variants)
    ]


def _variant(name: str, image: np.ndarray, number: int) -> tuple[str, np.ndarray]:
    if number == 0:
        return name, image
    shifted = np.roll(image, 16 * (number // 2), axis=1)
    if number % 2:
        return f"{name} (negative, shifted {number // 2})", 255 - shifted
    return f"{name} (shifted {number // 2})", shifted


def _compare_one(network: EmbeddingNetwork, bank: Bank, detector: Detector, name: str, image: np.ndarray) -> Comparison:
    with torch.no_grad():
        theirs = network(torch.from_numpy(image)[None])[0].numpy()
    ours = detector.embed(image)
    return Comparison(
        name=name,
        torch_score=bank.score(theirs),
        runtime_score=detector.bank.score(ours),
        embedding_difference=float(np.abs(theirs - ours).max()),
    )


def _meets(score: float, limits: Limits) -> bool:
    return any(abs(score - limit.score) <= ROUNDING for limit in (limits.warn, limits.reject))


def check_parity(comparisons: Sequence[Comparison], torch_limits: Limits, kit_limits: Limits) -> Parity:
    """AgreementTest the comparisons: KitError when a score or a limit moved by more than TOLERANCE, or a verdict changed."""
    differences = [abs(each.torch_score - each.runtime_score) for each in comparisons]
    place = int(np.argmax(differences))  # that of a NaN, where there is one; Python's max would pass over it
    worst, difference = comparisons[place], differences[place]
    if not difference <= TOLERANCE:
        raise KitError(
            f"the exported model scores {worst.name} {worst.runtime_score:.6f}, and training {worst.torch_score:.6f}: "
            f"more than {TOLERANCE:g} apart, so no kit was written; report this with the versions of torch, onnx and "
            "onnxruntime"
        )
    for name in ("warn", "reject"):
        before, after = getattr(torch_limits, name).score, getattr(kit_limits, name).score
        if not abs(before - after) <= TOLERANCE:
            raise KitError(
                f"the held-out images set the {name} limit at {after:.6f} with the exported model, and at "
                f"{before:.6f} in training, so no kit was written; the files of the run do not belong together: "
                "train again"
            )
    for each in comparisons:
        before, after = torch_limits.verdict(each.torch_score), kit_limits.verdict(each.runtime_score)
        tie = _meets(each.torch_score, torch_limits) and _meets(each.runtime_score, kit_limits)
        if before != after and not tie:
            raise KitError(
                f"the exported model finds {each.name} {after} ({each.runtime_score:.6f}), and training {before} "
                f"({each.torch_score:.6f}), so no kit was written; its score is close to a limit: "
                "export with a slightly different --warn-rate or --reject-rate"
            )
    return Parity(
        images=len(comparisons),
        max_score_difference=difference,
        max_embedding_difference=max(each.embedding_difference for each in comparisons),
        changed_verdicts=0,
    )
