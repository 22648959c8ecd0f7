"""The time that a benchmark will take, estimated before its first job from a few steps and embeddings."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric

from msc_edge.drawing import encode_image
from msc_edge.progress import silent
from msc_edge.text import many
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.one_vs_rest.frozen_stages import FrozenStages
from msc_edge.train.one_vs_rest.protocol import DN2, ProtocolOptions, Split, launch_network, measures_every, settings_of
from msc_edge.train.settings import last_frozen_stage

_EMBEDDED = 32  # images: with fewer, the start of the first batch counts too much
_STEP_ON_CPU = 8  # images; a step of more takes proportionally longer there
_STEPS = 3  # the first one warms up, and the last one is followed by the checkpoint
_DAY = 24 * 3600
_CHEAP_BACKBONE = "efficientnet_lite2"


@dataclass(frozen=True)
class Cost:
    """Measured times, in seconds."""

    step: float
    """Of a training step; 0 where no method trains."""
    first_embedding: float
    """Of an image under the initial weights, with all stages."""
    embedding: float
    """Of an image later, from the feature map behind the frozen stages."""
    on_cpu: bool


@dataclass(frozen=True)
class Estimate:
    """What the jobs will compute, and how long it takes."""

    jobs: int
    steps: int
    embeddings: int
    seconds: float
    on_cpu: bool


def estimate_of(
    jobs: Sequence[tuple[Split, str, int]],
    steps: Mapping[tuple[str, str], int],
    options: ProtocolOptions,
    cost: Cost,
) -> Estimate:
    """The estimate of jobs (split, method, seed). `steps`: the training steps of each class and method."""
    splits = {split.name: split for split, _, _ in jobs}
    # The test images are those of all classes in turn.
    first = sum(len(split.train) for split in splits.values()) + max(len(split.test) for split in splits.values())
    all_steps = later = 0
    for split, method, _ in jobs:
        count = steps[split.name, method]
        all_steps += count
        points = -(-count // measures_every(split, options))
        later += points * (len(split.train) + len(split.test))
    seconds = all_steps * cost.step + first * cost.first_embedding + later * cost.embedding
    return Estimate(len(jobs), all_steps, first + later, seconds, cost.on_cpu)


def description_of(estimate: Estimate, options: ProtocolOptions) -> str:
    """One line for people; where a CPU would take more than a day, it names what is cheaper."""
    line = (
        f"about {_duration(estimate.seconds)} on this {'CPU' if estimate.on_cpu else 'GPU'}: "
        f"{many(estimate.jobs, 'job')}, {estimate.steps:,} training steps, {estimate.embeddings:,} embeddings"
    )
    if not estimate.on_cpu or estimate.seconds <= _DAY:
        return line
    cheaper = ["fewer --classes", "fewer --method", "--images 1000", "a GPU"]
    if (options.backbone, options.preset) != (_CHEAP_BACKBONE, "whole-frame"):
        cheaper.insert(0, f"--backbone {_CHEAP_BACKBONE} --preset whole-frame")
    return f"{line}. Cheaper: {', '.join(cheaper[:-1])}, or {cheaper[-1]}"


def measure_cost(split: Split, methods: Sequence[str], options: ProtocolOptions) -> Cost:
    """Run a few steps and embeddings on random images, with the code and the device of the benchmark."""
    fabric, network = launch_network(options)
    side = options.image_size
    images = np.random.default_rng(0).integers(0, 256, (_EMBEDDED, side, side, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory(prefix="msc-edge-benchmark-") as folder:
        scratch = Path(folder)
        names = [f"{number}.png" for number in range(_EMBEDDED)]
        for name, image in zip(names, images, strict=True):
            (scratch / name).write_bytes(encode_image(image, ".png"))
        stages = FrozenStages(network, last_frozen_stage(options, network.backbone), scratch, names, scratch / "maps")
        first, later = (_seconds_of_embedding(stages) for _ in range(2))
        trained = [method for method in methods if method != DN2]
        step = _seconds_of_step(fabric, network, images, split, trained[0], options, scratch) if trained else 0.0
    return Cost(step=step, first_embedding=first, embedding=later, on_cpu=fabric.device.type == "cpu")


def _seconds_of_embedding(stages: FrozenStages) -> float:
    start = time.perf_counter()
    stages.embed(title="", report=silent)  # ends with a copy to the CPU
    return (time.perf_counter() - start) / _EMBEDDED


def _seconds_of_step(
    fabric: Fabric,
    network: EmbeddingNetwork,
    images: np.ndarray,
    split: Split,
    method: str,
    options: ProtocolOptions,
    folder: Path,
) -> float:
    """The second of three steps of the training itself, scaled to the batch of the benchmark."""
    settings = settings_of(split, method, 0, options, network.backbone)
    batch = min(settings.batch, _STEP_ON_CPU) if fabric.device.type == "cpu" else settings.batch
    copies = [training_copy(images[i % len(images)], network.preprocess.spec) for i in range(batch)]
    initial = network.embed_all(("", images[i % len(images)]) for i in range(batch))
    ends: list[float] = []
    fine_tune(
        fabric,
        network,
        copies,
        initial,
        settings.model_copy(update={"steps": _STEPS, "batch": batch, "select": "last"}),
        folder=folder,
        checkpoint_every=10**9,
        on_step=lambda _: ends.append(time.perf_counter()),
    )
    return (ends[1] - ends[0]) * settings.batch / batch


def _duration(seconds: float) -> str:
    for unit, factor in (("day", _DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * factor:
            return many(round(seconds / factor), unit)
    return many(max(1, round(seconds)), "second")
