"""What the int8 model of a kit loses, on anomalies that are about as hard to find as real defects.

The anomalies of the agreement test are strong: both models find nearly all of them, whatever the rounding. Here they
are blended with their normal images, and fp32 alone sets the share of the anomaly: its AUROC is then near that of real
defects, and less accurate scores lose some of it. Both models score the same images as they do at the line.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from msc_edge.export.agreement import WITH_MASK, anomaly_of, changed_input
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.quantization import AccuracyLoss
from msc_edge.map_metrics.metrics import MapEvaluation
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime.detector import Detector
from msc_edge.synthetic import KINDS, AnomalyKind, faded
from msc_edge.train.seeds import numpy_generator_of

TARGET_AUROC = 0.9
"""AUROC of fp32 on the faint anomalies."""
STRENGTHS = tuple(2 ** (-step / 2) for step in range(9))
"""Shares of the anomaly in the blend to choose from: 1 to 1/16."""
_STRENGTH_IMAGES = 16  # held-out images that choose the strength
MAX_HELD_OUT = 160
"""Most held-out images to measure the loss on."""
# Of each held-out image, two each of the small kinds. Shuffled quarters change the whole image: no model misses them.
_ANOMALIES: tuple[AnomalyKind, ...] = WITH_MASK * 2


class Sample(NamedTuple):
    """A held-out normal image, or a faint anomaly made from one."""

    image: np.ndarray
    """uint8 (height, width, 3)."""
    strength: float = 0.0
    """Share of the anomaly; 0: a normal image."""
    mask: np.ndarray | None = None
    """Where the anomaly is in the input of the network, bool; None: a normal image, or an invisible anomaly."""


class Found:
    """What one model finds in normal images and anomalies."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._maps = MapEvaluation(resamples=1)
        self.scores: list[float] = []
        self.anomalous: list[bool] = []

    def add(self, sample: Sample) -> None:
        """Score one image."""
        result = self._detector.score(sample.image)
        self.scores.append(result.score)
        self.anomalous.append(sample.strength > 0)
        if result.grid_map and (sample.mask is not None or sample.strength == 0):
            self._maps.add(result.grid_map.at_input(), sample.mask, "" if sample.mask is None else "anomaly")

    @property
    def auroc(self) -> float:
        """AUROC of the scores, anomalies against normal images."""
        return float(roc_auc_score(self.anomalous, self.scores))

    @property
    def au_pro(self) -> float | None:
        """AU-PRO(0.3) of the maps; None: there are none."""
        found = self._maps.result().overall.au_pro_30
        return found and found.value


def accuracy_loss(fp32: Detector, int8: Detector, images: RunImages, *, seed: int) -> AccuracyLoss:
    """Measure what int8 loses. `fp32` and `int8` are the models of one kit, `images` those of its run."""
    strength = choose_strength(fp32, images, seed=seed)
    found, compared = Found(fp32), Found(int8)
    for sample in samples(images, fp32.manifest.preprocessing, [strength], most=MAX_HELD_OUT, seed=seed):
        found.add(sample)
        compared.add(sample)
    return AccuracyLoss(
        normal_images=found.anomalous.count(False),
        synthetic_anomalies=found.anomalous.count(True),
        strength=strength,
        auroc_fp32=found.auroc,
        auroc=compared.auroc,
        au_pro_fp32=found.au_pro,
        au_pro=compared.au_pro,
    )


def choose_strength(fp32: Detector, images: RunImages, *, seed: int) -> float:
    """The strength at which the AUROC of the fp32 model is nearest to TARGET_AUROC."""
    scores: dict[float, list[float]] = defaultdict(list)
    for sample in samples(images, fp32.manifest.preprocessing, STRENGTHS, most=_STRENGTH_IMAGES, seed=seed):
        scores[sample.strength].append(fp32.score(sample.image).score)
    normal = scores.pop(0)
    aurocs = {
        strength: roc_auc_score([False] * len(normal) + [True] * len(anomalous), normal + anomalous)
        for strength, anomalous in scores.items()
    }
    return min(aurocs, key=lambda strength: abs(aurocs[strength] - TARGET_AUROC))


def samples(
    images: RunImages, spec: Preprocessing, strengths: Sequence[float], *, most: int, seed: int
) -> Iterator[Sample]:
    """Up to `most` held-out images; after each one its anomalies, at each of the strengths. A seed gives the same."""
    rng = numpy_generator_of(seed, 3, 1)
    for _, image in images.decoded(evenly(images.held_out, most), "int8: measuring the loss"):
        yield Sample(image)
        for kind in _ANOMALIES:
            anomaly = anomaly_of(image, KINDS[kind], rng, spec.region)
            mask = changed_input(image, anomaly, spec)
            for strength in strengths:
                yield Sample(faded(image, anomaly, strength), strength, mask if mask.any() else None)
