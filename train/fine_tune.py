"""The training loop: mean-shifted contrastive fine-tuning (Reiss & Hoshen, arXiv 2106.03844, section 4).

The network stays in eval mode: batch norm keeps its ImageNet statistics, and its affine weights train.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.progress import Report, silent
from msc_edge.train.checkpoint import save_checkpoint, start_or_resume
from msc_edge.train.checkpoint_selection import (
    BestCheckpoint,
    Candidate,
    CheckpointEvaluator,
    held_out_for_selection,
)
from msc_edge.train.collapse import CollapseMonitor, effective_rank, mean_pairwise_cosine
from msc_edge.train.devices import from_all_ranks, part_of_rank
from msc_edge.train.fast_convolutions import FastConvolutions
from msc_edge.train.metrics import MetricsLog, StepMetrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import recipe_named
from msc_edge.train.run_folder import CHECKPOINT
from msc_edge.train.seeds import generator_of, order_of_epoch
from msc_edge.train.settings import FineTuning
from msc_edge.train.views import ViewDraws, make_views

STEPS = "fine-tuning"  # the name of the task in reports of the progress


def fine_tune(
    fabric: Fabric,
    network: EmbeddingNetwork,
    training_copies: Sequence[Tensor],
    initial: np.ndarray,
    settings: FineTuning,
    *,
    folder: Path,
    resume: bool = False,
    checkpoint_every: int = 20,
    on_step: Callable[[int], None] | None = None,
    report: Report = silent,
) -> BestCheckpoint | None:
    """Fine-tune `network.backbone` in place, and leave it with the weights that `settings.select` chooses.

    Args:
        fabric: devices and dtype.
        network: the embedding network, in eval mode, on the device of `fabric`.
        training_copies: uint8 (3, h, w), one for each normal image, in the order of the files.
        initial: embeddings of the normal images under this network, unaugmented, float32 (n, dim), unit rows.
        settings: all settings of the training.
        folder: for metrics.csv, the TensorBoard log and the checkpoint.
        resume: continue from the checkpoint in `folder`, if there is one. The result equals that of an
            uninterrupted run.
        checkpoint_every: steps between checkpoints; the first one is written before the first step.
        on_step: called with the number of each step, from 1, right after the optimizer step, on every device and
            rank. `network` then has exactly the weights of that step. It must not change them.
        report: progress, for display only.

    Returns the candidates of checkpoint selection, or None with `select="last"`. Raises UsageError if the loss is no
    longer finite.
    """
    backbone = network.backbone.to(memory_format=torch.channels_last)
    if settings.frozen_up_to:
        backbone.freeze_up_to(settings.frozen_up_to)
    trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError(
            f"--freeze-to {settings.frozen_up_to}: no stage is left to train; name an earlier stage, or pass --steps 0"
        )
    optimizer = torch.optim.SGD(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    model, optimizer = fabric.setup(backbone, optimizer)
    fast_convolutions = FastConvolutions(backbone)
    places = places_to_train_on(len(training_copies), settings)
    evaluator = _evaluator(network, training_copies, places, settings)
    best = BestCheckpoint(network.backbone) if evaluator else None
    training_copies = [training_copies[i] for i in places]
    recipe = recipe_named(settings.recipe)
    center = recipe.center_of(torch.from_numpy(initial[places])).to(fabric.device)
    state = {
        "model": model,
        "optimizer": optimizer,
        "step": 0,
        "settings": settings.model_dump_json(),
        "center": center,  # identifies images, weights and preprocessing: it changes with any of them
    }
    if best:
        state["best"] = best
    start_or_resume(
        fabric,
        folder / CHECKPOINT,
        state,
        resume=resume,
        same=lambda stored: stored["settings"] == state["settings"] and _near(stored["center"], center),
    )

    with MetricsLog(folder, StepMetrics, keep_steps=state["step"], enabled=fabric.is_global_zero) as log:
        recorder = _Recorder(log, report, steps=settings.steps)
        if evaluator and best and not best.candidates:
            best.consider(fabric.broadcast(evaluator.evaluate(0, report=report)))
            recorder.add_candidate(best.candidates[-1])
        report(STEPS, state["step"], settings.steps)
        for step in range(state["step"], settings.steps):
            views = _views_of(step, training_copies, network, settings, fabric)
            with fast_convolutions:
                embeddings = F.normalize(model(views).float(), dim=1)
            first, second = (from_all_ranks(fabric, half) for half in embeddings.chunk(2))

            loss = recipe.loss(first, second, center, settings.temperature)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()

            done = step + 1
            if on_step:
                on_step(done)
            recorder.add(_PendingMetrics(done, loss, torch.cat([first, second])))
            evaluates, saves = (
                done % every == 0 or done == settings.steps for every in (settings.select_every, checkpoint_every)
            )
            leave = 0 if evaluates or saves else _steps_behind(fabric.device)
            recorder.record(leave=leave, hold_last=evaluates and evaluator is not None)
            state["step"] = done
            if evaluator and best and evaluates:
                # All ranks use the evaluation of rank 0.
                best.consider(fabric.broadcast(evaluator.evaluate(done, report=report)))
                recorder.add_candidate(best.candidates[-1])
            if saves:
                log.flush()
                save_checkpoint(fabric, folder / CHECKPOINT, state)
    if best:
        best.restore()
    return best


def places_to_train_on(images: int, settings: FineTuning) -> list[int]:
    """The places of the images to train on: all but those that checkpoint selection holds out."""
    held_out = set() if settings.select == "last" else held_out_for_selection(images)
    return [i for i in range(images) if i not in held_out]


def _evaluator(
    network: EmbeddingNetwork, training_copies: Sequence[Tensor], places: Sequence[int], settings: FineTuning
) -> CheckpointEvaluator | None:
    """The evaluator for checkpoint selection, if there is any; the images at `places` are trained on."""
    if settings.select == "last":
        return None
    held_out = sorted(set(range(len(training_copies))).difference(places))
    held_out_copies, others = ([training_copies[i] for i in part] for part in (held_out, places))
    return CheckpointEvaluator(network, held_out_copies, others, seed=settings.seed, scores=settings.select_by)


def batch_of(step: int, *, images: int, settings: FineTuning) -> tuple[list[int], list[ViewDraws]]:
    """The images of a step and the random draws of their two views: a function of the seed and the step only."""
    chosen = order_of_epoch(step, images=images, batch=settings.batch, seed=settings.seed)
    generator = generator_of(settings.seed, 1, step)
    return chosen, [ViewDraws.draw(settings.batch, generator) for _ in range(2)]


def _views_of(
    step: int, training_copies: Sequence[Tensor], network: EmbeddingNetwork, settings: FineTuning, fabric: Fabric
) -> Tensor:
    """Both views of this rank's part of a batch, first all first views, normalised: (2 B, 3, side, side)."""
    chosen, draws = batch_of(step, images=len(training_copies), settings=settings)
    part = part_of_rank(fabric, settings.batch)
    mine = [training_copies[i].to(fabric.device, non_blocking=True) for i in chosen[part]]
    side = network.preprocess.spec.image_size
    views = torch.cat([make_views(mine, draw.take(part), size=side, device=fabric.device) for draw in draws])
    return network.preprocess.normalise(views).contiguous(memory_format=torch.channels_last)


class _PendingMetrics:
    """Loss and embeddings of a step, on their way from the device. Reading them waits for that step only."""

    def __init__(self, step: int, loss: Tensor, embeddings: Tensor) -> None:
        self._step = step
        self._arrived = torch.cuda.Event() if loss.is_cuda else None
        self._loss, self._embeddings = (
            each.detach().to("cpu", non_blocking=self._arrived is not None) for each in (loss, embeddings)
        )
        if self._arrived:
            self._arrived.record()

    def read(self) -> StepMetrics:
        """Compute the metrics. Raises UsageError if loss or embeddings are not finite."""
        if self._arrived:
            self._arrived.synchronize()
        if not (self._loss.isfinite() and self._embeddings.isfinite().all()):
            if self._step == 1:  # no weight has changed yet
                raise UsageError(
                    "the loss is not finite at the first step; check the weights of the backbone, and the loss if it "
                    "is your own"
                )
            raise UsageError(
                f"the loss is no longer finite at step {self._step}; train again with a lower --learning-rate"
            )
        return StepMetrics(
            step=self._step,
            loss=float(self._loss),
            mean_pairwise_cosine=mean_pairwise_cosine(self._embeddings),
            effective_rank=effective_rank(self._embeddings),
        )


class _Recorder:
    """Records the metrics of the steps in order: metrics.csv, progress, and a warning of a collapse."""

    def __init__(self, log: MetricsLog[StepMetrics], report: Report, *, steps: int) -> None:
        self._log, self._report, self._steps = log, report, steps
        self._pending: deque[_PendingMetrics] = deque()
        self._held: StepMetrics | None = None
        self._monitor = CollapseMonitor()
        for row in log.restored:
            self._monitored(row)

    def add(self, pending: _PendingMetrics) -> None:
        """Queue the metrics of a step."""
        self._pending.append(pending)

    def record(self, *, leave: int, hold_last: bool = False) -> None:
        """Record all queued metrics but the last `leave`. `hold_last`: `add_candidate` will complete the last row."""
        while len(self._pending) > leave:
            metrics = self._pending.popleft().read()
            if hold_last and not self._pending:
                self._held = metrics
            else:
                self._log.add(metrics)
            self._report(STEPS, metrics.step, self._steps, f"loss {metrics.loss:.3f}")
            if (warning := self._monitored(metrics)) is not None:
                self._log.warn(warning)

    def add_candidate(self, candidate: Candidate) -> None:
        """Write the row of a step that checkpoint selection evaluated; at step 0 it has no metrics of training."""
        row = self._held or StepMetrics(candidate.step, loss=None, mean_pairwise_cosine=None, effective_rank=None)
        self._held = None
        self._log.add(
            replace(row, auroc=candidate.auroc, auroc_error=candidate.error, selected=int(candidate.selected))
        )

    def _monitored(self, row: StepMetrics) -> str | None:
        """The warning of a collapse, if this step is the first that shows one."""
        if row.mean_pairwise_cosine is None or row.effective_rank is None:
            return None
        return self._monitor.update(row.mean_pairwise_cosine, row.effective_rank)


def _steps_behind(device: torch.device) -> int:
    """How many steps are queued before the metrics of the oldest are read: a GPU must not wait for the CPU."""
    return 1 if device.type == "cuda" else 0


def _near(one: Tensor, other: Tensor) -> bool:
    # Rounding moves a centre by 1e-7, one different image among a thousand by 1e-4.
    return one.shape == other.shape and float((one.to(other) - other).norm()) < 1e-5
