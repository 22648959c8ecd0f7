"""One against the rest (Reiss & Hoshen, arXiv 2106.03844, section 5): train on one class, find the others in the test.

Methods: `dn2`, nearest nearest_images of the frozen network; `contrastive`, fine-tuned by the plain loss, which the paper
shows to collapse; `v1` and `v2`, the mean-shifted recipes. What counts is the last step, or what `select` keeps without
a look at the test images; never the best one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.files import kind_of, written_whole
from msc_edge.image_files import find_images
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import PresetName, preset
from msc_edge.progress import Report, silent
from msc_edge.train.backbones import Backbone, build_backbone
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.dataset import FEWEST
from msc_edge.train.devices import launched_fabric
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import FineTuningOptions
from msc_edge.train.recipes import FineTuning
from msc_edge.train.weights import load_into, pretrained_weights

Method = Literal["dn2", "contrastive", "v1", "v2"]
METHODS: tuple[Method, ...] = get_args(Method)
NEIGHBOURS = 2
_POLICY = DecodePolicy()


@dataclass(frozen=True)
class Split:
    """One class: what is trained on, and what is tested, as paths below the two folders."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    truth: tuple[bool, ...]
    """Of each test image: whether it is of another class."""


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions(FineTuningOptions):
    """What a user can choose."""

    backbone: str
    weights: Path | None = None
    stop_at: str | None = None
    preset: PresetName = "paper"
    image_size: int = 224
    images: int | None = None
    """Of each class, to train on: the first by name; None: all."""
    measure_every: int | None = None
    """Steps between points of the curve; None: an epoch."""


@dataclass(frozen=True)
class Point:
    """AUROC after so many steps, and how far apart the embeddings of the training images are then."""

    step: int
    auroc: float
    mean_pairwise_cosine: float


@dataclass(frozen=True)
class Job:
    """One class, one method, one seed."""

    label: str
    method: Method
    seed: int
    curve: tuple[Point, ...]
    selected_step: int
    """Whose weights count: the last, or that of the selection. The curve has a point for it."""

    @property
    def kept(self) -> Point:
        """The result."""
        return next(point for point in self.curve if point.step == self.selected_step)

    @property
    def best(self) -> Point:
        """What the test labels would have chosen: to show what the choice without them gave away."""
        return max(self.curve, key=lambda point: point.auroc)


def splits_of(train: Path, test: Path, classes: Sequence[str], *, images: int | None) -> list[Split]:
    """The splits of class-per-folder data. `classes`: those that are normal in turn; all of `train` when empty.

    Raises SourceError when a folder is missing or empty.
    """
    for folder, option in ((train, "--train"), (test, "--test")):
        kind, reason = kind_of(folder)
        if kind != "folder":
            raise SourceError(f"{option} {folder}: {reason or 'it is not a folder'}; check the path")
    names = {folder: sorted(path.name for path in folder.iterdir() if path.is_dir()) for folder in (train, test)}
    if unknown := sorted(set(classes) - set(names[train])):
        raise UsageError(
            f"--classes {unknown[0]}: there is no such folder in {train}; there are {' '.join(names[train])}"
        )
    if len(names[test]) < 2:
        raise SourceError(f"{test}: expected a folder for each of several classes, as in {train}")
    tests = {name: _below(test, name) for name in names[test]}
    splits = []
    for name in dict.fromkeys(classes or names[train]):
        if name not in tests:
            raise SourceError(f"{test}: has no folder {name}, which is in {train}")
        pairs = [(path, other != name) for other, paths in tests.items() for path in paths]
        trained_on = tuple(_below(train, name)[:images])
        if len(trained_on) < FEWEST:
            raise SourceError(
                f"{train / name}: {len(trained_on)} images to train on, at least {FEWEST} are needed; "
                "add images, or name other --classes"
            )
        splits.append(Split(name, trained_on, *(tuple(part) for part in zip(*pairs, strict=True))))
    return splits


def _below(folder: Path, name: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images([folder / name]).paths]


def settings_of(split: Split, method: Method, seed: int, options: ProtocolOptions, backbone: Backbone) -> FineTuning:
    """Of one run of fine-tuning; `method` is not `dn2`. UsageError for options that cannot be met."""
    assert method != "dn2"
    return options.settings(backbone, images=len(split.train), recipe=method, seed=seed)


def check(splits: Sequence[Split], methods: Sequence[Method], options: ProtocolOptions) -> None:
    """Raise UsageError for options that some of the runs could not meet, before the first of them has begun."""
    backbone = build_backbone(options.backbone, stop_at=options.stop_at)
    for method in methods:
        for split in splits if method != "dn2" else ():
            if stage := settings_of(split, method, 0, options, backbone).frozen_up_to:
                backbone.freeze_up_to(stage)


def run_job(
    split: Split,
    method: Method,
    seed: int,
    options: ProtocolOptions,
    *,
    train: Path,
    test: Path,
    folder: Path,
    report: Report = silent,
) -> Job:
    """Train and measure. `folder` takes what a run leaves on the way."""
    fabric = launched_fabric(options.accelerator, 1, options.precision)
    spec = preset(options.preset, image_size=options.image_size)
    backbone = build_backbone(options.backbone, stop_at=options.stop_at)
    pretrained = pretrained_weights(options.backbone, options.weights)
    load_into(backbone, pretrained.state, source=pretrained.origin.source)
    network = EmbeddingNetwork(backbone, spec).to(fabric.device).eval()
    title = f"{split.name}, {method}, seed {seed}"

    def embed(below: Path, names: Sequence[str]) -> np.ndarray:
        return network.embed_all(decoded(below, names, _POLICY, task=f"{title}: embedding", report=report))

    def point(step: int, bank: np.ndarray) -> Point:
        auroc = auroc_of(bank, embed(test, split.test), split.truth)
        return Point(step, auroc, mean_pairwise_cosine(torch.from_numpy(bank)))

    first = embed(train, split.train)
    curve = [point(0, first)]
    if method == "dn2":
        return Job(split.name, method, seed, tuple(curve), selected_step=0)
    settings = settings_of(split, method, seed, options, backbone)
    every = options.measure_every or max(1, len(split.train) // settings.batch)

    def watch(task: str, done: int, total: int, note: str = "") -> None:
        report(f"{title}: {task}", done, total, note)
        if task == "fine-tuning" and (done % every == 0 or done == total):
            curve.append(point(done, embed(train, split.train)))

    copies = [
        training_copy(image, spec)
        for _, image in decoded(train, split.train, _POLICY, task=f"{title}: reading", report=report)
    ]
    kept = fine_tune(
        fabric,
        network,
        copies,
        first,
        settings,
        folder=folder,
        checkpoint_every=10**9,
        report=watch,
    )
    selected_step = kept.step if kept else settings.steps
    if selected_step not in (known.step for known in curve):
        curve.append(point(selected_step, embed(train, split.train)))
    return Job(split.name, method, seed, tuple(sorted(curve, key=lambda known: known.step)), selected_step)


def auroc_of(bank: np.ndarray, test: np.ndarray, truth: Sequence[bool]) -> float:
    """AUROC of the mean cosine distance to the two nearest rows of the bank; float32 (n, dim), unit rows."""
    scores = np.concatenate(
        [1 - np.partition(part @ bank.T, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1) for part in _parts(test)]
    )
    return float(roc_auc_score(truth, scores))


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    yield from np.array_split(rows, max(1, len(rows) // 1000))


def write_job(folder: Path, job: Job) -> None:
    """Keep a finished job, so that a broken-off benchmark goes on behind it."""
    with written_whole(_file_of(folder, job.label, job.method, job.seed)) as path:
        path.write_text(json.dumps(asdict(job), indent=1) + "\n", encoding="utf-8")


def read_jobs(folder: Path) -> list[Job]:
    """The jobs that were finished earlier. KitError for a file that holds none."""
    jobs = []
    for path in sorted((folder / "jobs").glob("*.json")):
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            curve = tuple(Point(**point) for point in stored.pop("curve"))
            job = Job(**stored, curve=curve)
            if _file_of(folder, job.label, job.method, job.seed) != path or job.kept not in curve:
                raise ValueError("it is of another class, method or seed")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
            raise KitError(
                f"{path}: is no finished job of this benchmark ({error or 'cut off'}); delete it, and it is run again"
            ) from error
        jobs.append(job)
    return jobs


def _file_of(folder: Path, label: str, method: str, seed: int) -> Path:
    return folder / "jobs" / f"{label}-{method}-{seed}.json"
