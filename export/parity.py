"""The parity check of a kit: the runtime's own code must give the scores of training before the kit is written."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from msc_edge.bank import Bank
from msc_edge.calibration import Limits
from msc_edge.errors import KitError
from msc_edge.export.run_images import evenly
from msc_edge.kit.model_entry import Parity
from msc_edge.runtime.detector import Detector
from msc_edge.train.network import EmbeddingNetwork

TOLERANCE = 1e-4
# Each limit is the score of one held-out image, and the last digits of that score depend on the batch size. An image
# whose score is within this distance of a limit, in training and in the runtime, is a tie: its verdict may differ.
ROUNDING = 1e-5
MIN_COMPARISONS = 32


@dataclass(frozen=True)
class Comparison:
    """One image scored by training and by the runtime, and the largest difference in an element of its embedding."""

    name: str
    torch_score: float
    runtime_score: float
    embedding_difference: float


def parity_images(held_out: Sequence[str], in_bank: Sequence[str]) -> list[str]:
    """Up to MIN_COMPARISONS names: held-out images first, evenly chosen, then images of the memory bank."""
    chosen = evenly(held_out, MIN_COMPARISONS)
    return chosen + evenly(in_bank, MIN_COMPARISONS - len(chosen))


def compare(
    network: EmbeddingNetwork,
    bank: Bank,
    detector: Detector,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    count: int,
) -> list[Comparison]:
    """Score `count` named decoded images, uint8 (height, width, 3), with the network in torch and with the kit.

    Each image is scored as it is and as its negative, which is unlike any normal image: this compares low and high
    scores. Copies shifted sideways are added until there are MIN_COMPARISONS.
    """
    variants = max(2, math.ceil(MIN_COMPARISONS / count))
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
        in_torch = network(torch.from_numpy(image)[None])[0].numpy()
    in_runtime = detector.embed(image)
    return Comparison(
        name=name,
        torch_score=bank.score(in_torch),
        runtime_score=detector.bank.score(in_runtime),
        embedding_difference=float(np.abs(in_torch - in_runtime).max()),
    )


def _meets(score: float, limits: Limits) -> bool:
    return any(abs(score - limit.score) <= ROUNDING for limit in (limits.warn, limits.reject))


def check_parity(comparisons: Sequence[Comparison], torch_limits: Limits, kit_limits: Limits) -> Parity:
    """The kit's parity entry. KitError if a score or a limit differs by more than TOLERANCE, or a verdict changed."""
    differences = [abs(each.torch_score - each.runtime_score) for each in comparisons]
    index = int(np.argmax(differences))  # argmax finds a NaN, max does not
    worst, difference = comparisons[index], differences[index]
    if not difference <= TOLERANCE:
        raise KitError(
            f"no kit was written: the exported model scores {worst.name} {worst.runtime_score:.6f}, training "
            f"{worst.torch_score:.6f}, more than {TOLERANCE:g} apart; report this with the versions of torch, onnx and "
            "onnxruntime"
        )
    for name in ("warn", "reject"):
        before, after = getattr(torch_limits, name).score, getattr(kit_limits, name).score
        if not abs(before - after) <= TOLERANCE:
            raise KitError(
                f"no kit was written: the {name} limit is {after:.6f} with the exported model and {before:.6f} in "
                "training; the files of the run are from different runs: train again"
            )
    for each in comparisons:
        before, after = torch_limits.verdict(each.torch_score), kit_limits.verdict(each.runtime_score)
        tie = _meets(each.torch_score, torch_limits) and _meets(each.runtime_score, kit_limits)
        if before != after and not tie:
            raise KitError(
                f"no kit was written: the verdict of {each.name} is {after} ({each.runtime_score:.6f}) with the "
                f"exported model and {before} ({each.torch_score:.6f}) in training, because its score is close to a "
                "limit; export with a slightly different --warn-rate or --reject-rate"
            )
    return Parity(
        images=len(comparisons),
        max_score_difference=difference,
        max_embedding_difference=max(each.embedding_difference for each in comparisons),
        changed_verdicts=0,
    )
