"""The training loop: mean-shifted contrastive fine-tuning (Reiss & Hoshen, arXiv 2106.03844, section 4).

The network stays in eval mode: batch norm keeps the statistics of ImageNet, and its affine weights train.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from msc_edge.errors import KitError, UsageError, writing
from msc_edge.progress import Report, silent
from msc_edge.train.gauge import CollapseWatch, effective_rank, mean_pairwise_cosine
from msc_edge.train.metrics import MetricsLog, StepMetrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import FineTuning, recipe_loss
from msc_edge.train.views import ViewDraws, make_views

CHECKPOINT = "checkpoint.pt"


def fine_tune(
    fabric: Fabric,
    network: EmbeddingNetwork,
    copies: Sequence[Tensor],
    center: Tensor,
    settings: FineTuning,
    *,
    folder: Path,
    resume: bool = False,
    checkpoint_every: int = 20,
    report: Report = silent,
) -> None:
    """Fine-tune `network.backbone` in place.

    `copies`: uint8 (3, h, w) training copies of the normals; `center`: (dim,). `folder` takes metrics.csv, the
    TensorBoard log and the checkpoint. With `resume` the run goes on from its checkpoint, if there is one, with the
    result that an unbroken run would have had. UsageError when the loss ceases to be finite.
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
    center = center.to(fabric.device)
    state = {
        "model": model,
        "optimizer": optimizer,
        "step": 0,
        "settings": settings.model_dump_json(),
        "center": center,  # stands for the pictures, the weights and the preprocessing: it moves with any of them
    }
    if resume:
        _restore(fabric, folder / CHECKPOINT, state)

    watch = CollapseWatch()
    with MetricsLog(folder, keep_steps=state["step"], enabled=fabric.is_global_zero) as log:
        for row in log.kept:
            watch.warning(row.mean_pairwise_cosine, row.effective_rank)
        for step in range(state["step"], settings.steps):
            chosen, draws = batch_of(step, pictures=len(copies), settings=settings)
            part = _part_of_rank(fabric, settings.batch)
            mine = [copies[i] for i in chosen[part]]
            views = [
                make_views(mine, draw.take(part), size=network.preprocess.spec.image_size, device=fabric.device)
                for draw in draws
            ]
            pixels = network.preprocess.normalise(torch.cat(views)).contiguous(memory_format=torch.channels_last)
            embeddings = F.normalize(model(pixels).float(), dim=1)
            first, second = (_from_all_ranks(fabric, half) for half in embeddings.chunk(2))

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
            if state["step"] % checkpoint_every == 0 or state["step"] == settings.steps:
                log.flush()
                _save(fabric, folder / CHECKPOINT, state)


def batch_of(step: int, *, pictures: int, settings: FineTuning) -> tuple[list[int], list[ViewDraws]]:
    """Which pictures a step takes, and what their two views draw: a function of the seed and the step alone.

    Each epoch is a new order of all pictures, cut into full batches; the rest of an epoch that fills no batch is
    left out of it, so that the loss always has the same number of negatives.
    """
    epoch, place = divmod(step, pictures // settings.batch)
    order = torch.randperm(pictures, generator=_generator(settings.seed, 0, epoch))
    chosen = order[place * settings.batch : (place + 1) * settings.batch].tolist()
    generator = _generator(settings.seed, 1, step)
    return chosen, [ViewDraws.draw(settings.batch, generator) for _ in range(2)]


def _generator(seed: int, purpose: int, number: int) -> torch.Generator:
    # Mixed by numpy: neighbouring seeds given to torch directly need not give unrelated streams.
    state = np.random.SeedSequence((seed, purpose, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _part_of_rank(fabric: Fabric, batch: int) -> slice:
    if batch % fabric.world_size:
        raise UsageError(f"a batch of {batch} pictures does not divide among {fabric.world_size} devices; set --batch")
    each = batch // fabric.world_size
    return slice(fabric.global_rank * each, (fabric.global_rank + 1) * each)


def _from_all_ranks(fabric: Fabric, embeddings: Tensor) -> Tensor:
    """The rows of all ranks, in order, through which gradients flow back: the loss sees the global batch."""
    if fabric.world_size == 1:
        return embeddings
    with warnings.catch_warnings():
        # Fabric's, of torch's: the function that it calls is to be replaced one day.
        warnings.filterwarnings("ignore", message=".*all_gather.*deprecated")
        gathered = fabric.all_gather(embeddings, sync_grads=True)
    return gathered.flatten(0, 1)  # pyright: ignore[reportAttributeAccessIssue]


def _measure(step: int, loss: Tensor, embeddings: Tensor) -> StepMetrics:
    if not (loss.isfinite() and embeddings.isfinite().all()):
        raise UsageError(f"the loss is no longer finite at step {step}; train again with a lower --learning-rate")
    return StepMetrics(
        step=step,
        loss=float(loss.detach()),
        mean_pairwise_cosine=mean_pairwise_cosine(embeddings),
        effective_rank=effective_rank(embeddings),
    )


def _save(fabric: Fabric, path: Path, state: dict) -> None:
    partial = path.with_suffix(".partial")
    with writing(path):
        fabric.save(partial, state)
        fabric.barrier()
        if fabric.is_global_zero:
            partial.replace(path)


def _restore(fabric: Fabric, path: Path, state: dict) -> None:
    if not path.is_file():
        return
    try:
        stored = fabric.load(path, weights_only=True)
        same = stored["settings"] == state["settings"] and _near(stored["center"], state["center"])
        if same:
            fabric.load(path, state, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KitError(f"{path}: cannot be read ({reason}); delete {path.parent} and train again") from error
    if not same:
        raise UsageError(
            f"{path.parent}: was begun with other options, pictures or weights; give the same, "
            "or train again into another folder"
        )


def _near(one: Tensor, other: Tensor) -> bool:
    # Rounding moves a centre by 1e-7; one other picture among a thousand by 1e-4.
    return one.shape == other.shape and float((one.to(other) - other).norm()) < 1e-5
