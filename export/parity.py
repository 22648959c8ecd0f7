"""The parity check of a kit: the runtime's own code must give the scores of training before the kit is written."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank
from msc_edge.calibration import Limits
from msc_edge.errors import KitError
from msc_edge.export.run_images import evenly
from msc_edge.kit.model_entry import Parity
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.detector import Detector
from msc_edge.scoring import Scoring
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.network import PatchNetwork

TOLERANCE = 1e-4
# Each limit is the score of one held-out image, and the last digits of that score depend on the batch size. An image
# whose score is within this distance of a limit, in training and in the runtime, is a tie: its verdict may differ.
ROUNDING = 1e-5
MIN_COMPARISONS = 32
_CHANGES = 3  # each image as it is, its negative, and darker


def unit_of(scoring: Scoring) -> float:
    """How much larger rounding is in these scores than in image scores: kind `both` divides by their deviation."""
    return 1 / scoring.image.deviation if scoring.image else 1.0


@dataclass(frozen=True)
class Comparison:
    """One image scored by training and by the runtime, and the largest difference in an element of its embedding."""

    name: str
    torch_score: float
    runtime_score: float
    embedding_difference: float
    patch_difference: float | None
    """Largest difference in a patch distance, relative to the limit of the map; None without patches."""


def parity_images(held_out: Sequence[str], in_bank: Sequence[str]) -> list[str]:
    """Up to MIN_COMPARISONS names: held-out images first, evenly chosen, then images of the memory bank."""
    chosen = evenly(held_out, MIN_COMPARISONS)
    return chosen + evenly(in_bank, MIN_COMPARISONS - len(chosen))


def compare(
    reference: "TorchScorer",
    detector: Detector,
    images: Iterable[tuple[str, np.ndarray]],
    *,
    count: int,
) -> list[Comparison]:
    """Score `count` named decoded images, uint8 (height, width, 3), in torch and with the kit.

    Each image is scored as it is, as its negative, which is unlike any normal image, and darker by a tenth: this
    compares low and high scores, and those of images that are not in the bank. Copies shifted sideways are added until
    there are MIN_COMPARISONS.
    """
    variants = max(_CHANGES, math.ceil(MIN_COMPARISONS / count))
    return [
        _compare_one(reference, detector, *_variant(name, image, number))
        for name, image in images
        for number in range(variants)
    ]


def _variant(name: str, image: np.ndarray, number: int) -> tuple[str, np.ndarray]:
    if number == 0:
        return name, image
    shift, change = divmod(number, _CHANGES)
    shifted = np.roll(image, 16 * shift, axis=1)
    if change == 0:
        return f"{name} (shifted {shift})", shifted
    if change == 1:
        return f"{name} (negative, shifted {shift})", 255 - shifted
    return f"{name} (darker, shifted {shift})", np.rint(0.9 * shifted).astype(np.uint8)


class TorchScorer:
    """Scores images as training does: in torch, with the scoring that the run's own calibration scores give."""

    def __init__(self, network: EmbeddingNetwork, bank: Bank, head: PatchHead | None, scoring: Scoring) -> None:
        self._network, self._bank, self._scoring = network, bank, scoring
        self._patches = PatchNetwork(network.backbone, head, network.preprocess.spec) if head else None

    @torch.no_grad()
    def score(self, image: np.ndarray) -> tuple[float, ModelOutput]:
        """Score and outputs of one decoded image, uint8 (height, width, 3)."""
        pixels = torch.from_numpy(image)[None]
        if self._patches is None or self._scoring.map is None:
            output = ModelOutput(self._network(pixels)[0].numpy(), None)
            return self._scoring.score(self._bank.score(output.embedding), None), output
        output = ModelOutput(*(each[0].numpy() for each in self._patches(self._network.preprocess.with_tiles(pixels))))
        assert output.patch_distances is not None
        patches = patch_score(output.patch_distances, smoothing=self._scoring.map.smoothing)
        return self._scoring.score(self._bank.score(output.embedding), patches), output


def _compare_one(reference: TorchScorer, detector: Detector, name: str, image: np.ndarray) -> Comparison:
    torch_score, in_torch = reference.score(image)
    in_runtime = detector.run(image)
    patch_difference = None
    if in_torch.patch_distances is not None and in_runtime.patch_distances is not None:
        apart = np.abs(in_torch.patch_distances - in_runtime.patch_distances).max()
        regions = detector.regions
        patch_difference = float(apart / regions.limit.score) if regions else None
    return Comparison(
        name=name,
        torch_score=torch_score,
        runtime_score=detector.score_output(in_runtime, image).score,
        embedding_difference=float(np.abs(in_torch.embedding - in_runtime.embedding).max()),
        patch_difference=patch_difference,
    )


def _meets(score: float, limits: Limits, rounding: float) -> bool:
    return any(abs(score - limit.score) <= rounding for limit in (limits.warn, limits.reject))


def check_parity(
    comparisons: Sequence[Comparison], torch_limits: Limits, kit_limits: Limits, *, unit: float = 1.0
) -> Parity:
    """The kit's parity entry.

    KitError if a score or a limit differs by more than TOLERANCE units, a patch distance by more than TOLERANCE of the
    limit of the map, or a verdict changed. `unit`: see `unit_of`.
    """
    tolerance, rounding = TOLERANCE * unit, ROUNDING * unit
    differences = [abs(each.torch_score - each.runtime_score) for each in comparisons]
    index = int(np.argmax(differences))  # argmax finds a NaN, max does not
    worst, difference = comparisons[index], differences[index]
    if not difference <= tolerance:
        raise KitError(
            f"no kit was written: the exported model scores {worst.name} {worst.runtime_score:.6f}, training "
            f"{worst.torch_score:.6f}, more than {tolerance:g} apart; report this with the versions of torch, onnx and "
            "onnxruntime"
        )
    patches = [(each.patch_difference, each.name) for each in comparisons if each.patch_difference is not None]
    for apart, name in patches:
        if not apart <= TOLERANCE:
            raise KitError(
                f"no kit was written: the patch distances of {name} differ by {apart:.1e} of the limit of the map "
                "between the exported model and training; report this with the versions of torch, onnx and onnxruntime"
            )
    for name in ("warn", "reject"):
        before, after = getattr(torch_limits, name).score, getattr(kit_limits, name).score
        if not abs(before - after) <= tolerance:
            raise KitError(
                f"no kit was written: the {name} limit is {after:.6f} with the exported model and {before:.6f} in "
                "training; the files of the run are from different runs: train again"
            )
    for each in comparisons:
        before, after = torch_limits.verdict(each.torch_score), kit_limits.verdict(each.runtime_score)
        tie = _meets(each.torch_score, torch_limits, rounding) and _meets(each.runtime_score, kit_limits, rounding)
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
        max_patch_difference=max(patches)[0] if patches else None,
        changed_verdicts=0,
    )
