"""The training loop: mean-shifted contrastive fine-tuning (Reiss & Hoshen, arXiv 2106.03844, section 4).

The network stays in eval mode: batch norm keeps the statistics of ImageNet, and its affine weights train.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.progress import Report, silent
from msc_edge.train.checkpoint import CHECKPOINT, restore_checkpoint, save_checkpoint
from msc_edge.train.devices import from_all_ranks, part_of_rank
from msc_edge.train.gauge import CollapseWatch, effective_rank, mean_pairwise_cosine
from msc_edge.train.metrics import MetricsLog, StepMetrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import FineTuning, center_of, recipe_loss
from msc_edge.train.seeds import generator_of, order_of_epoch
from msc_edge.train.selection import KeptStep, Selection, held_out_for_selection
from msc_edge.train.views import ViewDraws, make_views


def fine_tune(
    fabric: Fabric,
    network: EmbeddingNetwork,
    copies: Sequence[Tensor],
    initial: np.ndarray,
    settings: FineTuning,
    *,
    folder: Path,
    resume: bool = False,
    checkpoint_every: int = 20,
    report: Report = silent,
) -> KeptStep | None:
    """Fine-tune `network.backbone` in place, to the last step, or to the best of several, as `settings.select` has it.

    `copies`: uint8 (3, h, w) training copies of the normals in the order of their files; `initial`: their embeddings
    under this network, unaugmented, float32 (n, dim) with unit rows. `folder` takes metrics.csv, the TensorBoard log
    and the checkpoint. With `resume` the run goes on from its checkpoint, if there is one, with the result that an
    unbroken run would have had. Returns what was chosen from, or None where nothing was. UsageError when the loss
    ceases to be finite.
    """
    backbone = network.backbone.to(memory_format=torch.channels_last)
    if settings.frozen_up_to:
        backbone.freeze_up_to(settings.frozen_up_to)
    trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError(
            f"--freeze-to {settings.frozen_up_to}: nothing is left to train; name an earlier stage, or pass --steps 0"
        )
    optimizer = torch.optim.SGD(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    model, optimizer = fabric.setup(backbone, optimizer)
    selection, trained_on = _selection_of(network, copies, settings)
    kept = KeptStep(network.backbone) if selection else None
    copies = [copies[i] for i in trained_on]
    center = center_of(torch.from_numpy(initial[trained_on]), settings.recipe).to(fabric.device)
    state = {
        "model": model,
        "optimizer": optimizer,
        "step": 0,
        "settings": settings.model_dump_json(),
        "center": center,  # stands for the pictures, the weights and the preprocessing: it moves with any of them
    }
    if kept:
        state["kept"] = kept
    if resume:
        restore_checkpoint(
            fabric,
            folder / CHECKPOINT,
            state,
            same=lambda stored: stored["settings"] == state["settings"] and _near(stored["center"], center),
        )

    watch = CollapseWatch()
    with MetricsLog(folder, StepMetrics, keep_steps=state["step"], enabled=fabric.is_global_zero) as log:
        for row in log.kept:
            watch.warning(row.mean_pairwise_cosine, row.effective_rank)
        if selection and kept and not kept.candidates:
            kept.offer(fabric.broadcast(selection.ask(0, report=report)))
        for step in range(state["step"], settings.steps):
            chosen, draws = batch_of(step, pictures=len(copies), settings=settings)
            part = part_of_rank(fabric, settings.batch)
            mine = [copies[i] for i in chosen[part]]
            views = [
                make_views(mine, draw.take(part), size=network.preprocess.spec.image_size, device=fabric.device)
                for draw in draws
            ]
            pixels = network.preprocess.normalise(torch.cat(views)).contiguous(memory_format=torch.channels_last)
            embeddings = F.normalize(model(pixels).float(), dim=1)
            first, second = (from_all_ranks(fabric, half) for half in embeddings.chunk(2))

            loss = recipe_loss(settings.recipe, first, second, center, temperature=settings.temperature)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()

            metrics = _measure(step + 1, loss, torch.cat([first, second]).detach())
            log.add(metrics)
            report("fine-tuning", step + 1, settings.steps, f"loss {metrics.loss:.3f}")
            if (warning := watch.warning(metrics.mean_pairwise_cosine, metrics.effective_rank)) is not None:
                log.warn(warning)
            state["step"] = step + 1
            if selection and kept and (state["step"] % settings.select_every == 0 or state["step"] == settings.steps):
                candidate = selection.ask(step + 1, report=report)
                kept.offer(fabric.broadcast(candidate))  # one answer for all ranks
            if state["step"] % checkpoint_every == 0 or state["step"] == settings.steps:
                log.flush()
                save_checkpoint(fabric, folder / CHECKPOINT, state)
    if kept:
        kept.restore()
    return kept


def _selection_of(
    network: EmbeddingNetwork, copies: Sequence[Tensor], settings: FineTuning
) -> tuple[Selection | None, list[int]]:
    """What chooses among the steps, if anything does, and which pictures it leaves to train on."""
    if settings.select == "last":
        return None, list(range(len(copies)))
    held_out = held_out_for_selection(len(copies))
    trained_on = [i for i in range(len(copies)) if i not in held_out]
    good, others = ([copies[i] for i in part] for part in (sorted(held_out), trained_on))
    return Selection(network, good, others, seed=settings.seed), trained_on


def batch_of(step: int, *, pictures: int, settings: FineTuning) -> tuple[list[int], list[ViewDraws]]:
    """Which pictures a step takes, and what their two views draw: a function of the seed and the step alone."""
    chosen = order_of_epoch(step, pictures=pictures, batch=settings.batch, seed=settings.seed)
    generator = generator_of(settings.seed, 1, step)
    return chosen, [ViewDraws.draw(settings.batch, generator) for _ in range(2)]


def _measure(step: int, loss: Tensor, embeddings: Tensor) -> StepMetrics:
    if not (loss.isfinite() and embeddings.isfinite().all()):
        raise UsageError(f"the loss is no longer finite at step {step}; train again with a lower --learning-rate")
    return StepMetrics(
        step=step,
        loss=float(loss.detach()),
        mean_pairwise_cosine=mean_pairwise_cosine(embeddings),
        effective_rank=effective_rank(embeddings),
    )


def _near(one: Tensor, other: Tensor) -> bool:
    # Rounding moves a centre by 1e-7; one other picture among a thousand by 1e-4.
    return one.shape == other.shape and float((one.to(other) - other).norm()) < 1e-5
