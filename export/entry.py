"""The entry of one model in the manifest, and the files that belong to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank
from msc_edge.calibration import Calibration, Rates
from msc_edge.export.held_out_model import HeldOutModel
from msc_edge.export.index import build_index, preferred_search
from msc_edge.export.onnx_model import OPSET
from msc_edge.export.run_images import RunImages
from msc_edge.kit.layout import BANK_FILES, INDEX_FILES, MODEL_FILES, Precision
from msc_edge.kit.model_entry import (
    ALL_IN_TURN,
    HELD_OUT,
    HELD_OUT_IN_TURN,
    Banks,
    CalibrationInfo,
    MemoryBank,
    Model,
    Outputs,
    PatchBank,
    RegionCalibration,
)
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.processor import usable_cores
from msc_edge.scoring import MapSettings, ScoreKind, Scoring, Standard, calibration_scores
from msc_edge.train.harmless import changed_copies, copied_images
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.split import Split


@dataclass(frozen=True)
class ScorePlan:
    """What the score of a kit is made of, before it is fitted to a model."""

    kind: ScoreKind
    map: MapSettings | None = None
    head: PatchHead | None = None
    may_move: bool = True
    """Whether changed copies may show the part in another place: not where an ignore mask lies over it."""

    @classmethod
    def of(
        cls, kind: ScoreKind, settings: MapSettings | None, head: PatchHead | None, *, may_move: bool
    ) -> "ScorePlan":
        """The plan for a patch head; None: whole images only."""
        if head is None:
            return cls("image")
        return cls(kind, settings, head, may_move)

    @property
    def patches(self) -> PatchBank | None:
        """The patch bank of the model."""
        return None if self.head is None else PatchBank(count=self.head.bank.shape[0], dim=self.head.bank.shape[1])

    def fitted(self, standard: Standard | None) -> Scoring:
        """The scoring of a model, from its scores of changed copies."""
        return Scoring.fitted(self.kind, standard, self.map)

    def calibration(
        self,
        image_scores: np.ndarray,
        patch_scores: np.ndarray | None,
        standard: Standard | None,
        groups: Sequence[int] | None,
    ) -> Calibration:
        """The calibration of a model, from both scores and the group of each image; see `calibration_scores`."""
        return Calibration(calibration_scores(self.kind, image_scores, patch_scores, standard, self.map), groups)


def outputs_of(model: Path, outputs: Outputs, images: Iterable[tuple[str, np.ndarray]]) -> list[ModelOutput]:
    """The outputs of an exported model for named decoded images, uint8 (height, width, 3)."""
    backend = OnnxRuntimeBackend(model, outputs=outputs, threads=usable_cores())
    return [backend.run(image) for _, image in images]


def model_entry(
    kit: Path,
    precision: Precision,
    outputs: Outputs,
    bank: Bank,
    plan: ScorePlan,
    images: RunImages,
    *,
    rates: Rates,
    seed: int,
) -> Model:
    """Write memory bank and index of one model, and return its entry. The model's own scores set its limits."""
    np.save(kit / BANK_FILES[precision], bank.embeddings)
    file, split = kit / MODEL_FILES[precision], images.split
    groups, names = split.groups, images.calibration

    def found_in(decoded: Iterable[tuple[str, np.ndarray]], places: Sequence[int]) -> list[ModelOutput]:
        if not split.in_turn or plan.head is None:
            return outputs_of(file, outputs, decoded)
        assert groups is not None
        return list(HeldOutModel(file, outputs, plan.head).in_turn(decoded, [groups[place] for place in places]))

    found = found_in(images.decoded(names, "calibrating"), range(len(names)))
    embeddings = np.stack([each.embedding for each in found])
    image_scores = split.image_scores(bank, embeddings, range(len(names)))
    patch_scores = _patch_scores(found, plan.map) if plan.map else None
    standard = None
    if plan.kind == "both":
        assert plan.map is not None
        places = copied_images(len(names))
        decoded = images.decoded([names[place] for place in places], "standardising")
        copies = found_in(changed_copies(decoded, may_move=plan.may_move), places.tolist())
        of_copies = split.image_scores(bank, np.stack([each.embedding for each in copies]), places)
        assert patch_scores is not None
        standard = Standard(of_copies, _patch_scores(copies, plan.map), places).from_zero(image_scores, patch_scores)
    # Of the images held out once: an image of the index would find its own row too easily.
    queries = embeddings[[image.role == "calibration" for image in split.calibration]]
    known = np.array([image.role == "bank" for image in split.bank])
    index = build_index(bank.embeddings, queries, bank.k, kit / INDEX_FILES[precision], known=known, seed=seed)
    calibration = plan.calibration(image_scores, patch_scores, standard, groups)
    regions = None
    if patch_scores is not None:
        assert rates.region is not None
        regions = RegionCalibration.of(Calibration(patch_scores, groups), rate=rates.region)
    return Model(
        file=MODEL_FILES[precision],
        opset=OPSET,
        outputs=outputs,
        banks=Banks(
            images=MemoryBank(
                file=BANK_FILES[precision],
                count=len(bank.embeddings),
                k=bank.k,
                search=preferred_search(index, count=len(bank.embeddings)),
                index=index,
            ),
            patches=plan.patches and plan.patches.model_copy(update={"median_distance": _median_distance(found)}),
        ),
        scoring=plan.fitted(standard),
        calibration=CalibrationInfo(
            scores=calibration.scores.tolist(),
            groups=calibration.stored_groups,
            warn_rate=rates.warn,
            reject_rate=rates.reject,
            limits=calibration.limits(warn_rate=rates.warn, reject_rate=rates.reject),
            reason=_reason(split),
            regions=regions,
        ),
    )


def _reason(split: Split) -> str:
    if not split.in_turn:
        return HELD_OUT
    return ALL_IN_TURN if split.all_calibrate else HELD_OUT_IN_TURN


def _median_distance(found: Iterable[ModelOutput]) -> float:
    """Of all patches that are not ignored; those have the distance 0."""
    distances = np.concatenate([each.patch_distances.ravel() for each in found if each.patch_distances is not None])
    return float(np.median(distances[distances > 0]))


def _patch_scores(found: Iterable[ModelOutput], settings: MapSettings) -> np.ndarray:
    distances = [each.patch_distances for each in found if each.patch_distances is not None]
    return np.array([patch_score(each, smoothing=settings.smoothing) for each in distances])
