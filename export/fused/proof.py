"""The proof of a single file: onnxruntime alone gives the scores, maps and verdicts of the kit."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from msc_edge.errors import KitError
from msc_edge.export.fused.scoring_graph import LABELS, MAP_SIDE
from msc_edge.export.fused.single_file import SingleFile
from msc_edge.runtime.backends.interface import INPUT
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import usable_cores

TOLERANCE = 1e-5
"""Largest difference of a score, an embedding and a map: of 1, or of the value itself where it is larger."""


class _Difference(NamedTuple):
    """How far the single file is from the kit on one image."""

    score: float
    """See TOLERANCE."""
    rest: float
    """Of what a rounded memory bank leaves alone: the embedding, the patch score and the maps."""
    p_value: float
    """Beyond what rounding of the score explains."""
    verdict: bool
    """Whether the verdicts differ, and the score is further from the limits than rounding."""


@dataclass(frozen=True)
class Proof:
    """How far a single file is from its kit, over all images that were compared."""

    images: int
    score: float
    """Largest difference of a score; see TOLERANCE."""
    rest: float
    """Largest difference of embedding, patch score and maps."""
    changed_verdicts: int


def prove(single: SingleFile, images: Iterable[tuple[str, np.ndarray]]) -> Proof:
    """Score named images, uint8 (height, width, 3), with the kit and with the single file alone.

    KitError where anything differs by more than TOLERANCE. A memory bank that is stored as `float16` or `int8` moves
    image scores, and with them scores, p-values and verdicts: then these are counted, and not refused.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 4  # its errors are raised
    session = ort.InferenceSession(single.content, options, providers=["CPUExecutionProvider"])
    found: list[_Difference] = []
    for name, image in images:
        difference = _difference(session, single.detector, image)
        wrong = difference.rest
        if single.bank == "float32":
            wrong = max(wrong, difference.score, difference.p_value, float(difference.verdict))
        if not wrong <= TOLERANCE:
            raise KitError(
                f"no file was written: it scores {name} otherwise than the kit (score {difference.score:.1e} apart, "
                f"p-value {difference.p_value:.1e}, maps and embedding {difference.rest:.1e}; allowed {TOLERANCE:g}"
                f"{'; another verdict' if difference.verdict else ''}); report this with the version of onnxruntime"
            )
        found.append(difference)
    return Proof(
        images=len(found),
        score=max(each.score for each in found),
        rest=max(each.rest for each in found),
        changed_verdicts=sum(each.verdict for each in found),
    )


def _difference(session: ort.InferenceSession, detector: Detector, image: np.ndarray) -> _Difference:
    names = [each.name for each in session.get_outputs()]
    found = dict(zip(names, map(np.asarray, session.run(names, {INPUT: image[None]})), strict=True))
    output, limits = detector.run(image), detector.limits
    result = detector.score_output(output, image)
    rounding = TOLERANCE * max(1.0, abs(result.score))
    is_tie = any(abs(result.score - limit.score) <= rounding for limit in (limits.warn, limits.reject))
    # A p-value falls in steps, at the scores of the calibration images.
    least, most = (detector.calibration.p_value(result.score + each) for each in (rounding, -rounding))
    p_value = float(found["p_value"][0])
    pairs = [(output.embedding, found["embedding"])]
    if result.grid_map is not None:
        at_frame = result.grid_map.at_frame(height=MAP_SIDE, width=MAP_SIDE)
        pairs += [(result.grid_map.grid, found["anomaly_map"]), (at_frame, found["anomaly_map_224"])]
        pairs.append((np.array(result.patch_score), found["patch_score"]))
    return _Difference(
        score=_apart(np.array(result.score), found["score"]),
        rest=max(_apart(*pair) for pair in pairs),
        p_value=max(least - p_value, p_value - most, 0.0),
        verdict=LABELS[int(found["verdict"][0])] != result.verdict and not is_tie,
    )


def _apart(own: np.ndarray, found: np.ndarray) -> float:
    return float((np.abs(own - found[0]) / np.maximum(1, np.abs(own))).max())
