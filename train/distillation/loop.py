"""The training loop of distillation: the student learns the teacher's outputs for the same crops."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from scipy.stats import spearmanr
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.progress import Report, silent
from msc_edge.train.backbones.backbone import Backbone, is_finite
from msc_edge.train.checkpoint import save_checkpoint, start_or_resume
from msc_edge.train.devices import from_all_ranks, part_of_rank
from msc_edge.train.distillation.crops import batch_of, make_crops
from msc_edge.train.distillation.losses import (
    embedding_loss,
    map_loss,
    similarity_loss,
    spread_of_embeddings,
    spread_of_map,
    spread_of_similarities,
)
from msc_edge.train.distillation.settings import Distillation, decay_started, learning_rate_at
from msc_edge.train.distillation.taps import StudentWithAdapters, features_and_maps, taps_of
from msc_edge.train.metrics import MetricsLog, MetricsRow
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.run_folder import CHECKPOINT
from msc_edge.train.seeds import torch_seed

_CHUNK = 16
_NEARLY_CONSTANT = 1e-9  # mean squared distance of unit embeddings, slightly above the rounding error of equal ones


@dataclass(frozen=True)
class DistilMetrics(MetricsRow):
    """A row of metrics.csv: mean losses since the previous row, and metrics on the held-out images."""

    loss: float
    embedding_loss: float
    map_loss: float
    unexplained: float
    """Share of the spread of the teacher's embeddings that the student misses: 0 is the teacher, 1 a constant output.

    NaN if the dimensions differ.
    """
    rank_correlation: float
    """Spearman's correlation between the cosines of all pairs of held-out images under student and teacher."""


@dataclass(frozen=True)
class _Reference:
    """The teacher's embeddings of the held-out images, and the spreads that scale the losses."""

    images: Tensor
    embeddings: Tensor
    same_dim: bool
    spread: float
    map_spreads: tuple[float, ...]


def distil_into(
    fabric: Fabric,
    student: Backbone,
    teacher: Backbone,
    preprocess: Preprocess,
    training_copies: Sequence[Tensor],
    held_out: Tensor,
    settings: Distillation,
    *,
    from_scratch: bool,
    fingerprint: str,
    folder: Path,
    resume: bool = False,
    measure_every: int = 100,
    report: Report = silent,
) -> DistilMetrics:
    """Train `student` in place. Returns its final metrics.

    `training_copies`: uint8 (3, h, w) images to crop from; `held_out`: preprocessed images, float32 (n, 3, side, side).
    With `from_scratch` the student learns its batch-norm statistics, else it keeps those of its initial weights.
    `folder` is for metrics.csv, the TensorBoard log and the checkpoint, which is valid only for the same `fingerprint`
    of images and weights. `report` is for display only. Raises UsageError if the loss is no longer finite.
    """
    taps = taps_of(student, teacher)
    teacher_places = [tap.teacher for tap in taps]
    reference = _reference(teacher, held_out, teacher_places, dim=_dim_of(student))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed))  # for the initial weights of the adapters
        trained = StudentWithAdapters(student, taps).to(fabric.device).to(memory_format=torch.channels_last)
    teacher.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    model, optimizer = fabric.setup(trained, optimizer)
    state = {
        "model": model,
        "optimizer": optimizer,
        "step": 0,
        "settings": settings.model_dump_json(),
        "fingerprint": fingerprint,
    }
    start_or_resume(
        fabric,
        folder / CHECKPOINT,
        state,
        resume=resume,
        same=lambda stored: _can_resume(stored, settings, fingerprint),
    )
    state["settings"] = settings.model_dump_json()

    with MetricsLog(folder, DistilMetrics, keep_steps=state["step"], enabled=fabric.is_global_zero) as log:
        row = log.restored[-1] if log.restored else None
        since: list[tuple[float, float]] = []
        for step in range(state["step"], settings.steps):
            chosen, draws = batch_of(
                step,
                images=len(training_copies),
                batch=settings.batch,
                image_size=settings.image_size,
                seed=settings.seed,
            )
            part = part_of_rank(fabric, settings.batch)
            crops = make_crops([training_copies[i] for i in chosen[part]], draws, part, device=fabric.device)
            pixels = preprocess.normalise(crops).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), fabric.autocast():
                theirs, their_maps = features_and_maps(teacher, pixels, teacher_places)
            student.train(from_scratch)
            ours, our_maps = model(pixels)

            theirs, ours = F.normalize(theirs, dim=1), F.normalize(ours.float(), dim=1)
            if reference.same_dim:
                by_embedding = embedding_loss(ours, theirs, spread=reference.spread)
            else:
                ours, theirs = from_all_ranks(fabric, ours), from_all_ranks(fabric, theirs)
                by_embedding = similarity_loss(ours, theirs, spread=reference.spread)
            by_map = sum(
                (
                    map_loss(our_map.float(), their_map.float(), spread=spread)
                    for our_map, their_map, spread in zip(our_maps, their_maps, reference.map_spreads, strict=True)
                ),
                torch.zeros((), device=fabric.device),
            ) / max(1, len(taps))

            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, settings)
            optimizer.zero_grad()
            fabric.backward(by_embedding + by_map)
            optimizer.step()

            since.append(_mean_over_ranks(fabric, by_embedding, by_map))
            if not np.isfinite(since[-1]).all():
                raise _not_finite("the loss", step + 1)
            state["step"] = step + 1
            report("distilling", step + 1, settings.steps, f"loss {sum(since[-1]):.3f}")
            if state["step"] % measure_every == 0 or state["step"] == settings.steps:
                row = _measure(student.eval(), reference, state["step"], since)
                since.clear()
                log.add(row)
                log.flush()
                save_checkpoint(fabric, folder / CHECKPOINT, state)
        if row is None or row.step != settings.steps:  # metrics.csv has been deleted since the last step
            row = _measure(student.eval(), reference, settings.steps, [(float("nan"), float("nan"))])
            log.add(row)
    return row


def _can_resume(stored: object, settings: Distillation, fingerprint: str) -> bool:
    before = Distillation.model_validate_json(stored["settings"])  # pyright: ignore[reportIndexIssue]
    step = stored["step"]  # pyright: ignore[reportIndexIssue]
    same = stored["fingerprint"] == fingerprint and before.model_copy(update={"steps": settings.steps}) == settings  # pyright: ignore[reportIndexIssue]
    steps_fit = before.steps == settings.steps or not (decay_started(step, before) or decay_started(step, settings))
    return same and steps_fit


def _not_finite(what: str, step: int) -> UsageError:
    return UsageError(f"{what} is no longer finite at step {step}; distil again with a lower --learning-rate")


def _mean_over_ranks(fabric: Fabric, one: Tensor, other: Tensor) -> tuple[float, float]:
    both = fabric.all_reduce(torch.stack([one, other]).detach(), reduce_op="mean")
    assert isinstance(both, Tensor)
    return float(both[0]), float(both[1])


@torch.no_grad()
def _reference(teacher: Backbone, images: Tensor, places: Sequence[int], *, dim: int) -> _Reference:
    features, maps = features_and_maps(teacher, images, places)
    embeddings = F.normalize(features, dim=1)
    same_dim = features.shape[1] == dim
    spread = spread_of_embeddings(embeddings) if same_dim else spread_of_similarities(embeddings)
    spreads = tuple(spread_of_map(features_map) for features_map in maps)
    if not (spread > _NEARLY_CONSTANT and all(value > 0 for value in spreads)):
        raise UsageError(
            "the teacher's output is nearly the same for all held-out images; use other --images or another teacher"
        )
    return _Reference(images, embeddings, same_dim, spread, spreads)


@torch.no_grad()
def _measure(
    student: Backbone, reference: _Reference, step: int, since: Sequence[tuple[float, float]]
) -> DistilMetrics:
    # In float32 and in small batches, as for the reference.
    features = torch.cat([student(chunk) for chunk in reference.images.split(_CHUNK)])
    embeddings = F.normalize(features, dim=1)
    if not (is_finite(student) and embeddings.isfinite().all()):
        raise _not_finite("the student", step)
    by_embedding, by_map = np.mean(since, axis=0)
    return DistilMetrics(
        step=step,
        loss=float(by_embedding + by_map),
        embedding_loss=float(by_embedding),
        map_loss=float(by_map),
        unexplained=float(embedding_loss(embeddings, reference.embeddings, spread=reference.spread))
        if reference.same_dim
        else float("nan"),
        rank_correlation=rank_correlation(embeddings, reference.embeddings),
    )


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation between the cosines of all pairs of rows, for two sets of unit embeddings (n, dim).

    Equal cosines get their mean rank. NaN if all cosines of one set are equal.
    """
    above = np.triu_indices(len(one), 1)
    ours, theirs = ((rows @ rows.T).cpu().numpy()[above] for rows in (one, other))
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return float("nan")
    return float(spearmanr(ours, theirs).statistic)  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def _dim_of(backbone: Backbone) -> int:
    return backbone(torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device)).shape[1]
