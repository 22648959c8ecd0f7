"""One versus rest (Reiss & Hoshen, arXiv 2106.03844, section 5): train on one class, detect the others in the test set.

Methods: `dn2`, nearest normal images under the frozen network; `contrastive`, fine-tuned with the plain loss, which
collapses according to the paper; `v1` and `v2`, the mean-shifted recipes. The result is the last step, or the step
that checkpoint selection chooses without the test images, never the best step on the test images.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from sklearn.metrics import roc_auc_score

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.files import kind_of, written_whole
from msc_edge.image_files import find_images
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import PresetName, preset
from msc_edge.progress import Report, silent
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.dataset import MIN_IMAGES
from msc_edge.train.devices import launch_fabric
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.one_vs_rest.frozen_stages import FrozenStages
from msc_edge.train.options import FineTuningOptions
from msc_edge.train.recipes import RECIPES
from msc_edge.train.settings import FineTuning, fine_tuning, last_frozen_stage
from msc_edge.train.weights import pretrained_backbone

DN2 = "dn2"
METHODS = (DN2, *(recipe.name for recipe in RECIPES))
_K = 2  # nearest normal images per score, as in the product
_POLICY = DecodePolicy()


@dataclass(frozen=True)
class Split:
    """One normal class: training and test images, as paths below the two folders."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    anomalous: tuple[bool, ...]
    """For each test image: whether it is of another class."""


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions(FineTuningOptions):
    """The options of the benchmark."""

    backbone: str
    weights: Path | None = None
    """A file with pretrained weights; None: the default weights of the backbone."""
    stop_at: str | None = None
    preset: PresetName = "paper"
    image_size: int = 224
    images: int | None = None
    """Training images of each class, the first by name; None: all."""
    measure_every: int | None = None
    """Steps between points of the curve; None: one epoch."""


@dataclass(frozen=True)
class Point:
    """AUROC after a step, and the mean pairwise cosine of the training images' embeddings."""

    step: int
    auroc: float
    mean_pairwise_cosine: float


@dataclass(frozen=True)
class Job:
    """The result of one class, one method and one seed."""

    label: str
    method: str
    seed: int
    curve: tuple[Point, ...]
    selected_step: int
    """The step of the result: the last, or that of checkpoint selection. The curve has a point for it."""
    seconds: float | None = None
    """Elapsed time; None for a job of msc-edge 0.1.0."""

    @property
    def selected(self) -> Point:
        """The result."""
        return next(point for point in self.curve if point.step == self.selected_step)

    @property
    def best(self) -> Point:
        """The best point on the test images: it shows what selection without test labels misses."""
        return max(self.curve, key=lambda point: point.auroc)


def splits_of(train: Path, test: Path, classes: Sequence[str], *, images: int | None) -> list[Split]:
    """The splits of data with one folder per class.

    `classes`: the classes that are normal in turn; empty: all in `train`. `images`: training images of each class, the
    first by name; None: all. Raises SourceError if a folder is missing or has too few images, UsageError for an
    unknown class.
    """
    for folder, option in ((train, "--train"), (test, "--test")):
        kind, reason = kind_of(folder)
        if kind != "folder":
            raise SourceError(f"{option} {folder}: {reason or 'it is not a folder'}; check the path")
    names = {folder: sorted(path.name for path in folder.iterdir() if path.is_dir()) for folder in (train, test)}
    if unknown := sorted(set(classes) - set(names[train])):
        raise UsageError(f"--classes {unknown[0]}: not in {train}; choose from {' '.join(names[train])}")
    if len(names[test]) < 2:
        raise SourceError(f"{test}: expected a folder for each of several classes, as in {train}; check the path")
    tests = {name: _below(test, name) for name in names[test]}
    splits = []
    for name in dict.fromkeys(classes or names[train]):
        if name not in tests:
            raise SourceError(f"{test}: has no folder {name}, which is in {train}; add it, or name other --classes")
        pairs = [(path, other != name) for other, paths in tests.items() for path in paths]
        trained_on = tuple(_below(train, name)[:images])
        if len(trained_on) < MIN_IMAGES:
            raise SourceError(
                f"{train / name}: {len(trained_on)} training images, at least {MIN_IMAGES} are needed; "
                "add images, or name other --classes"
            )
        splits.append(Split(name, trained_on, *(tuple(part) for part in zip(*pairs, strict=True))))
    return splits


def _below(folder: Path, name: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images([folder / name]).paths]


def settings_of(split: Split, method: str, seed: int, options: ProtocolOptions, backbone: Backbone) -> FineTuning:
    """The settings of one job; `method` is not `dn2`. Raises UsageError for invalid options."""
    assert method != DN2
    return fine_tuning(options, backbone=backbone, images=len(split.train), recipe=method, seed=seed)


def measures_every(split: Split, options: ProtocolOptions) -> int:
    """Steps between points of the curve."""
    return options.measure_every or max(1, len(split.train) // options.batch)


def steps_of(splits: Sequence[Split], methods: Sequence[str], options: ProtocolOptions) -> dict[tuple[str, str], int]:
    """The training steps of each class and method: what takes the time.

    Raises UsageError for options that would fail in one of the jobs, before the first job starts.
    """
    backbone = build_backbone(options.backbone, stop_at=options.stop_at)
    steps: dict[tuple[str, str], int] = {}
    for method in methods:
        for split in splits:
            steps[split.name, method] = 0
            if method != DN2:
                settings = settings_of(split, method, 0, options, backbone)
                if settings.frozen_up_to:
                    backbone.freeze_up_to(settings.frozen_up_to)
                steps[split.name, method] = settings.steps
    return steps


def launch_network(options: ProtocolOptions) -> tuple[Fabric, EmbeddingNetwork]:
    """The device of the benchmark, and the network before training on it."""
    fabric = launch_fabric(options.accelerator, 1, options.dtype)
    backbone, _ = pretrained_backbone(options.backbone, options.weights, stop_at=options.stop_at)
    own = backbone.architecture
    spec = preset(options.preset, image_size=options.image_size, mean=own.mean, std=own.std)
    return fabric, EmbeddingNetwork(backbone, spec).to(fabric.device).eval()


def run_job(
    split: Split,
    method: str,
    seed: int,
    options: ProtocolOptions,
    *,
    train: Path,
    test: Path,
    folder: Path,
    maps: Path,
    stepped: Callable[[], None] = lambda: None,
    report: Report = silent,
) -> Job:
    """Train and measure. `folder` is for temporary files of the training, `maps` for those of `FrozenStages`.

    `stepped` is called after each training step.
    """
    fabric, network = launch_network(options)
    backbone, spec = network.backbone, network.preprocess.spec
    title = f"{split.name}, {method}, seed {seed}"

    frozen = last_frozen_stage(options, backbone)
    training_images = FrozenStages(network, frozen, train, split.train, maps / split.name)
    test_images = FrozenStages(network, frozen, test, split.test, maps)

    def point(step: int, bank: np.ndarray, tested: np.ndarray) -> Point:
        if not all(np.isfinite(rows).all() for rows in (bank, tested)):
            raise UsageError(f"{title}: the embeddings are no longer finite; train with a lower --learning-rate")
        auroc = auroc_of(bank, tested, split.anomalous)
        return Point(step, auroc, mean_pairwise_cosine(torch.from_numpy(bank)))

    def point_now(step: int) -> Point:
        return point(step, *(images.embed(title=title, report=report) for images in (training_images, test_images)))

    initial, tested = (images.embed_initial(title=title, report=report) for images in (training_images, test_images))
    curve = {0: point(0, initial, tested)}
    if method == DN2:
        return Job(split.name, method, seed, tuple(curve.values()), selected_step=0)
    settings = settings_of(split, method, seed, options, backbone)
    every = measures_every(split, options)

    def measure(step: int) -> None:
        stepped()
        if step % every == 0 or step == settings.steps:
            curve[step] = point_now(step)

    training_copies = [
        training_copy(image, spec)
        for _, image in decoded(train, split.train, _POLICY, task=f"{title}: reading", report=report)
    ]
    best = fine_tune(
        fabric,
        network,
        training_copies,
        initial,
        settings,
        folder=folder,
        checkpoint_every=10**9,
        on_step=measure,
        report=lambda task, done, total, note="": report(f"{title}: {task}", done, total, note),
    )
    selected_step = best.step if best else settings.steps
    if selected_step not in curve:  # the network has its weights now
        curve[selected_step] = point_now(selected_step)
    return Job(split.name, method, seed, tuple(curve[step] for step in sorted(curve)), selected_step)


def auroc_of(bank: np.ndarray, test: np.ndarray, anomalous: Sequence[bool]) -> float:
    """AUROC of the mean cosine distance to the two nearest rows of `bank`.

    `bank`, `test`: float32 (n, dim), unit rows. `anomalous`: for each row of `test`.
    """
    scores = np.concatenate(
        [1 - np.partition(part @ bank.T, -_K, axis=1)[:, -_K:].mean(axis=1) for part in _parts(test)]
    )
    return float(roc_auc_score(anomalous, scores))


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.array_split(rows, max(1, len(rows) // 1000))


def write_job(folder: Path, job: Job) -> None:
    """Write a finished job, so that an interrupted benchmark continues after it."""
    with written_whole(_file_of(folder, job.label, job.method, job.seed)) as path:
        path.write_text(json.dumps(asdict(job), indent=1) + "\n", encoding="utf-8")


def read_jobs(folder: Path) -> list[Job]:
    """Read the finished jobs. Raises KitError for a damaged file."""
    jobs = []
    for path in sorted((folder / "jobs").glob("*.json")):
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            curve = tuple(Point(**point) for point in stored.pop("curve"))
            if "kept_step" in stored:  # msc-edge 0.1.0
                stored["selected_step"] = stored.pop("kept_step")
            job = Job(**stored, curve=curve)
            if _file_of(folder, job.label, job.method, job.seed) != path or job.selected not in curve:
                raise ValueError("it belongs to another class, method or seed")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
            raise KitError(
                f"{path}: not a finished job of this benchmark ({error or 'incomplete'}); delete it to run it again"
            ) from error
        jobs.append(job)
    return jobs


def _file_of(folder: Path, label: str, method: str, seed: int) -> Path:
    return folder / "jobs" / f"{label}-{method}-{seed}.json"
