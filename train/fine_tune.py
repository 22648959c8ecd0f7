"""The training loop: mean-shifted contrastive fine-tuning (Reiss & Hoshen, arXiv 2106.03844, section 4).

The network stays in eval mode: batch norm keeps the statistics of ImageNet, and its affine weights train.
"""

from collections import deque
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
from msc_edge.train.checkpoint_selection import BestCheckpoint, Selection, held_out_for_selection
from msc_edge.train.collapse import CollapseMonitor, effective_rank, mean_pairwise_cosine
from msc_edge.train.devices import from_all_ranks, part_of_rank
from msc_edge.train.metrics import MetricsLog, StepMetrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import FineTuning, center_of, recipe_loss
from msc_edge.train.seeds import generator_of, order_of_epoch
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
) -> BestCheckpoint | None:
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
    kept = BestCheckpoint(network.backbone) if selection else None
    copies = [copies[i] for i in trained_on]
    center = center_of(torch.from_numpy(initial[trained_on]), settings.recipe).to(fabric.device)
    state = {
        "model": model,
        "optimizer": optimizer,
        "step": 0,
        "settings": settings.model_dump_json(),
        "center": center,  # stands for the images, the weights and the preprocessing: it moves with any of them
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

    watch = CollapseMonitor()
    with MetricsLog(folder, StepMetrics, keep_steps=state["step"], enabled=fabric.is_global_zero) as log:
        for row in log.kept:
            watch.warning(row.mean_pairwise_cosine, row.effective_rank)

        def tell(figures: _Figures) -> None:
            metrics = figures.metrics()
            log.add(metrics)
            report("fine-tuning", metrics.step, settings.steps, f"loss {metrics.loss:.3f}")
            if (warning := watch.warning(metrics.mean_pairwise_cosine, metrics.effective_rank)) is not None:
                log.warn(warning)

        pending_metrics: deque[_Figures] = deque()
        if selection and kept and not kept.candidates:
            kept.consider(fabric.broadcast(selection.evaluate(0, report=report)))
        for step in range(state["step"], settings.steps):
            views = _views_of(step, copies, network, settings, fabric)
            embeddings = F.normalize(model(views).float(), dim=1)
            first, second = (from_all_ranks(fabric, half) for half in embeddings.chunk(2))

            loss = recipe_loss(settings.recipe, first, second, center, temperature=settings.temperature)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()

            done = step + 1
            pending_metrics.append(_Figures(done, loss, torch.cat([first, second])))
            choosing, saving = (
                done % every == 0 or done == settings.steps for every in (settings.select_every, checkpoint_every)
            )
            while len(pending_metrics) > (0 if choosing or saving else _steps_behind(fabric.device)):
                tell(pending_metrics.popleft())
            state["step"] = done
            if selection and kept and choosing:
                kept.consider(fabric.broadcast(selection.evaluate(done, report=report)))  # one answer for all ranks
            if saving:
                log.flush()
                save_checkpoint(fabric, folder / CHECKPOINT, state)
    if kept:
        kept.restore()
    return kept


def _selection_of(
    network: EmbeddingNetwork, copies: Sequence[Tensor], settings: FineTuning
) -> tuple[Selection | None, list[int]]:
    """What chooses among the steps, if anything does, and which images it leaves to train on."""
    if settings.select == "last":
        return None, list(range(len(copies)))
    held_out = held_out_for_selection(len(copies))
    trained_on = [i for i in range(len(copies)) if i not in held_out]
    good, others = ([copies[i] for i in part] for part in (sorted(held_out), trained_on))
    return Selection(network, good, others, seed=settings.seed), trained_on


def batch_of(step: int, *, images: int, settings: FineTuning) -> tuple[list[int], list[ViewDraws]]:
    """Which images a step takes, and what their two views draw: a function of the seed and the step alone."""
    chosen = order_of_epoch(step, images=images, batch=settings.batch, seed=settings.seed)
    generator = generator_of(settings.seed, 1, step)
    return chosen, [ViewDraws.draw(settings.batch, generator) for _ in range(2)]


def _views_of(
    step: int, copies: Sequence[Tensor], network: EmbeddingNetwork, settings: FineTuning, fabric: Fabric
) -> Tensor:
    """Both views of this rank's part of a step's batch, one behind the other, normalised: (2 B, 3, side, side)."""
    chosen, draws = batch_of(step, images=len(copies), settings=settings)
    part = part_of_rank(fabric, settings.batch)
    mine = [copies[i].to(fabric.device, non_blocking=True) for i in chosen[part]]
    side = network.preprocess.spec.image_size
    views = torch.cat([make_views(mine, draw.take(part), size=side, device=fabric.device) for draw in draws])
    return network.preprocess.normalise(views).contiguous(memory_format=torch.channels_last)


class _Figures:
    """What a step is measured by, on its way from the device: to read them waits for that step, not for a later one."""

    def __init__(self, step: int, loss: Tensor, embeddings: Tensor) -> None:
        self._step = step
        self._arrived = torch.cuda.Event() if loss.is_cuda else None
        self._loss, self._embeddings = (
            each.detach().to("cpu", non_blocking=self._arrived is not None) for each in (loss, embeddings)
        )
        if self._arrived:
            self._arrived.record()

    def metrics(self) -> StepMetrics:
        """UsageError when they are not finite."""
        if self._arrived:
            self._arrived.synchronize()
        if not (self._loss.isfinite() and self._embeddings.isfinite().all()):
            raise UsageError(
                f"the loss is no longer finite at step {self._step}; train again with a lower --learning-rate"
            )
        return StepMetrics(
            step=self._step,
            loss=float(self._loss),
            mean_pairwise_cosine=mean_pairwise_cosine(self._embeddings),
            effective_rank=effective_rank(self._embeddings),
        )


def _steps_behind(device: torch.device) -> int:
    """How many steps are begun before the figures of one are read: a GPU would else have nothing to do meanwhile."""
    return 1 if device.type == "cuda" else 0


def _near(one: Tensor, other: Tensor) -> bool:
    # Rounding moves a centre by 1e-7; one other image among a thousand by 1e-4.
    return one.shape == other.shape and float((one.to(other) - other).norm()) < 1e-5
