"""How far an int8 model agrees with fp32: on held-out normal images, and on synthetic anomalies made from them."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from msc_edge.anomaly_map import AnomalyMap, MapGeometry, smoothed
from msc_edge.bank import Bank
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.quantization import Agreement, MapAgreement
from msc_edge.map_metrics.metrics import MapEvaluation
from msc_edge.preprocessing import Preprocessing, Region
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.processor import usable_cores
from msc_edge.scoring import MapSettings
from msc_edge.synthetic import KINDS, AnomalyKind
from msc_edge.train.seeds import numpy_generator_of

MIN_RANK_CORRELATION = 0.99
MAX_AUROC_LOSS = 0.005
MIN_MAP_RANK_CORRELATION = 0.95
MAX_AU_PRO_LOSS = 0.01
_MAX_HELD_OUT = 64  # normal images to compare the two models on
_MIN_ANOMALIES = 96  # synthetic anomalies: the rank correlation of fewer scores is unreliable
_MAX_BANK_ROWS = 512
_SENSITIVITY_IMAGES = 8  # normal images that, with their anomalies, rank the layers
_SENSITIVITY_BYTES = 512 << 20  # the most memory for these images
WITH_MASK: tuple[AnomalyKind, ...] = ("drawn", "pasted")  # shuffled quarters have no place

MakeAnomaly = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def passes_gates(agreement: Agreement) -> bool:
    """Whether the int8 model may be used in place of fp32."""
    return not any(failed_gates(agreement))


def failed_gates(found: Agreement) -> Iterator[str]:
    """The gates that it does not pass, with what they require."""
    if found.rank_correlation < MIN_RANK_CORRELATION:
        yield f"its scores correlate {found.rank_correlation:.3f} with those of fp32 ({MIN_RANK_CORRELATION} required)"
    if found.auroc < found.auroc_fp32 - MAX_AUROC_LOSS:
        loss = found.auroc_fp32 - found.auroc
        yield f"it loses {loss:.3f} of the AUROC on synthetic anomalies (at most {MAX_AUROC_LOSS} allowed)"
    maps = found.maps
    if maps and maps.rank_correlation < MIN_MAP_RANK_CORRELATION:
        yield f"its maps correlate {maps.rank_correlation:.3f} with those of fp32 ({MIN_MAP_RANK_CORRELATION} required)"
    if maps and maps.au_pro < maps.au_pro_fp32 - MAX_AU_PRO_LOSS:
        yield f"its maps lose {maps.au_pro_fp32 - maps.au_pro:.3f} of AU-PRO (at most {MAX_AU_PRO_LOSS} allowed)"


class Sample(NamedTuple):
    """A held-out normal image, or a synthetic anomaly made from one."""

    image: np.ndarray
    """uint8 (height, width, 3)."""
    kind: AnomalyKind | None
    """None: normal."""


class AgreementTest:
    """Compares int8 models with the fp32 model on held-out normal images and their synthetic anomalies.

    All models are compared on the same images. `agreement` and `outputs_of` decode them at each call, a few at a time;
    `error` decodes its own, smaller set once and keeps it.
    """

    def __init__(
        self,
        model: Path,
        outputs: Outputs,
        bank: Bank,
        spec: Preprocessing,
        images: RunImages,
        *,
        maps: MapSettings | None = None,
        seed: int = 0,
    ) -> None:
        self._outputs, self._k, self._map_settings = outputs, bank.k, maps
        self._spec, self._images, self._seed = spec, images, seed
        self._held_out = evenly(images.held_out, _MAX_HELD_OUT)
        self._kinds = list(KINDS) * math.ceil(_MIN_ANOMALIES / (len(KINDS) * len(self._held_out)))
        rows = evenly(range(len(images.in_bank)), _MAX_BANK_ROWS)
        self._in_bank = [images.in_bank[row] for row in rows]
        self._float: list[ModelOutput] = []
        self._is_anomalous: list[bool] = []
        self._masks: list[np.ndarray | None] = []
        """Where each anomaly changed what the patches are cut from, as packed bits; None: the image has no mask."""
        fp32 = self.open(model)
        for group in self._groups(self._held_out):
            self._float += [fp32.run(sample.image) for sample in group]
            self._is_anomalous += [sample.kind is not None for sample in group]
            self._masks += [self._mask(group[0], sample) for sample in group]
        self._float_scores = self._scores(np.ascontiguousarray(bank.embeddings[rows]), self._float)
        self._float_maps = _maps(self._float, maps) if maps else []
        self._float_au_pro = self._au_pro(self._float_maps) if maps else 0.0
        self._sensitivity: list[list[Sample]] = []

    def open(self, model: Path) -> OnnxRuntimeBackend:
        """Open an exported model."""
        return OnnxRuntimeBackend(model, outputs=self._outputs, threads=usable_cores())

    def agreement(self, int8: OnnxRuntimeBackend) -> Agreement:
        """Compare the ranking of the images by fp32 and by an int8 model, each with its own memory bank."""
        decoded = self._images.decoded(self._in_bank, "int8: comparing with fp32")
        bank = np.stack([int8.run(image).embedding for _, image in decoded])
        found = self.outputs_of(int8)
        fp32_scores, int8_scores = self._float_scores, self._scores(bank, found)
        anomalous = np.array(self._is_anomalous)
        return Agreement(
            normal_images=int((~anomalous).sum()),
            synthetic_anomalies=int(anomalous.sum()),
            auroc_fp32=float(roc_auc_score(anomalous, fp32_scores)),
            auroc=float(roc_auc_score(anomalous, int8_scores)),
            rank_correlation=_rank_correlation(fp32_scores, int8_scores),
            maps=self._of_maps(found, self._map_settings) if self._map_settings else None,
        )

    def error(self, int8: OnnxRuntimeBackend) -> float:
        """The part of the variance of the outputs that is the two models' difference; summed over the outputs.

        A difference that is the same for all images does not count.
        """
        if not self._sensitivity:  # decoded once for all layers
            self._sensitivity = self._sensitivity_images()
        found = [int8.run(sample.image) for group in self._sensitivity for sample in group]
        pairs = [_stacked(self._float[: len(found)]), _stacked(found)]
        return sum(
            float((int8_rows - fp32_rows).var(axis=0).sum() / max(float(fp32_rows.var(axis=0).sum()), 1e-12))
            for fp32_rows, int8_rows in zip(*pairs, strict=True)
        )

    def outputs_of(self, model: OnnxRuntimeBackend) -> list[ModelOutput]:
        """The outputs for each held-out image, followed by those for its anomalies."""
        return [model.run(sample.image) for group in self._groups(self._held_out) for sample in group]

    def _of_maps(self, found: list[ModelOutput], settings: MapSettings) -> MapAgreement:
        """Compare the maps of both models: the order of all their values, and AU-PRO against the masks."""
        maps = _maps(found, settings)
        return MapAgreement(
            rank_correlation=_rank_correlation(np.stack(self._float_maps).ravel(), np.stack(maps).ravel()),
            au_pro_fp32=self._float_au_pro,
            au_pro=self._au_pro(maps),
        )

    def _au_pro(self, grids: Sequence[np.ndarray]) -> float:
        """AU-PRO(0.3) on normal images and on those anomalies that have a mask."""
        grid = self._outputs.patch_distances
        assert grid is not None
        geometry = MapGeometry.of(self._spec, height=1, width=1, stride=grid.stride)
        evaluation = MapEvaluation(resamples=1)
        for is_anomalous, packed, values in zip(self._is_anomalous, self._masks, grids, strict=True):
            if packed is not None or not is_anomalous:
                large = AnomalyMap(values, geometry, limit=math.inf, least_area=1).at_input()
                mask = None if packed is None else np.unpackbits(packed, count=large.size).reshape(large.shape) > 0
                evaluation.add(large, mask, "anomaly" if is_anomalous else "")
        found = evaluation.result().overall.au_pro_30
        assert found is not None, "normal images and anomalies with a mask"
        return found.value

    def _sensitivity_images(self) -> list[list[Sample]]:
        """The first groups of the held-out images, as many as _SENSITIVITY_BYTES hold, but at least one."""
        kept: list[list[Sample]] = []
        for group in self._groups(self._held_out[:_SENSITIVITY_IMAGES]):
            kept.append(group)
            if (len(kept) + 1) * sum(sample.image.nbytes for sample in group) > _SENSITIVITY_BYTES:
                break
        return kept

    def _groups(self, names: list[str]) -> Iterator[list[Sample]]:
        """For each name one group: the image and its anomalies. A group does not depend on the names after it."""
        rng = numpy_generator_of(self._seed, 3, 0)
        for _, image in self._images.decoded(names, "int8: comparing with fp32"):
            anomalies = (Sample(anomaly_of(image, KINDS[kind], rng, self._spec.region), kind) for kind in self._kinds)
            yield [Sample(image, None), *anomalies]

    def _mask(self, normal: Sample, sample: Sample) -> np.ndarray | None:
        if self._map_settings is None or sample.kind not in WITH_MASK:
            return None
        mask = changed_input(normal.image, sample.image, self._spec)
        return np.packbits(mask) if mask.any() else None

    def _scores(self, bank: np.ndarray, outputs: Sequence[ModelOutput]) -> np.ndarray:
        searched = Bank(bank, k=self._k)
        return np.array([searched.score(each.embedding) for each in outputs])


def anomaly_of(image: np.ndarray, make: MakeAnomaly, rng: np.random.Generator, region: Region | None) -> np.ndarray:
    """A copy of an image with a synthetic anomaly within the region of interest."""
    copy = image.copy()
    visible = copy[region.y : region.y + region.height, region.x : region.x + region.width] if region else copy
    changed = make(visible, rng)
    visible[: changed.shape[0], : changed.shape[1]] = changed  # `shuffled` drops an odd last row or column
    return copy


def changed_input(before: np.ndarray, after: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Where two images, uint8 (height, width, 3), differ in what the patches are cut from, bool `spec.canvas`."""
    different = (before != after).any(axis=2).astype(np.uint8)
    closed = cv2.morphologyEx(different, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))  # pixels that are equal by chance
    view = spec.view(height=before.shape[0], width=before.shape[1])
    top, left = round(view.top), round(view.left)
    seen = closed[top : round(view.top + view.height), left : round(view.left + view.width)].astype(np.float32)
    return cv2.resize(seen, spec.canvas[::-1], interpolation=cv2.INTER_AREA) > 0.1


def _maps(outputs: Sequence[ModelOutput], settings: MapSettings) -> list[np.ndarray]:
    """The anomaly map of each image, float32 (rows, columns)."""
    distances = (each.patch_distances for each in outputs if each.patch_distances is not None)
    return [smoothed(each, smoothing=settings.smoothing) for each in distances]


def _stacked(outputs: Sequence[ModelOutput]) -> list[np.ndarray]:
    """Each output of all images as rows, (n, values)."""
    parts = [np.stack([each.embedding for each in outputs])]
    patches = [each.patch_distances.ravel() for each in outputs if each.patch_distances is not None]
    return [*parts, np.stack(patches)] if patches else parts


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(spearmanr(one, other).statistic)  # pyright: ignore[reportAttributeAccessIssue]
