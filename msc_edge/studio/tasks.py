"""The long work of the studio: each task calls the library, and continues where it was interrupted."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msc_edge.errors import MscEdgeError
from msc_edge.export.pack import export
from msc_edge.files import written_whole
from msc_edge.progress import Report
from msc_edge.runtime.tools.compare.comparison import compute_comparison
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, labelled_dataset
from msc_edge.runtime.tools.evaluate.run import evaluate
from msc_edge.studio.checked import CheckedImage, CheckResult, LeakedImage, twins_of
from msc_edge.studio.training import EVALUATION, KIT, LABELS, RUN, TILES, Detail, Training
from msc_edge.studio.wording import in_words_of_pages
from msc_edge.train.curves import write_curves
from msc_edge.train.dataset import normal_folder
from msc_edge.train.fine_tune import STEPS
from msc_edge.train.leakage import leaked_images
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.options import TrainingOptions
from msc_edge.train.preparation import check_images
from msc_edge.train.run_folder import CHECKPOINT, CURVES, METRICS
from msc_edge.train.training import train

CHOICES: Mapping[Detail, dict[str, Any]] = {
    "fast": {},
    "fine": {"backbone": "efficientnet_lite0"},
    "tiles": {"tiles": TILES["tiles"]},
}
"""The options of `train` behind the choices of the page."""
_REDRAWN = 2.0  # seconds between two drawings of the curves: a training may have thousands of steps


def check(*, normal: str, test: str | None, report: Report) -> dict[str, Any]:
    """See what of the chosen images training and evaluation will use; a `CheckResult`."""
    reasons: dict[str, str] = {}
    images = check_images(normal, report=report, unreadable=reasons.__setitem__)
    dataset, problem = _labelled(test)
    unreadable: dict[str, str] = {}
    leaked: list[LeakedImage] = []
    if dataset:
        labelled = {image.path: image for image in dataset.images}
        places = {image.path: place for place, image in enumerate(images)}
        found = leaked_images(
            images,
            list(labelled),
            report=report,
            unreadable=lambda path, reason: unreadable.update({labelled[path].name: in_words_of_pages(reason)}),
        )
        leaked = [
            LeakedImage(path=str(path), name=labelled[path].name, label=labelled[path].label, normal=places[image.path])
            for path, image in found.items()
        ]
    checked = [
        CheckedImage(
            path=image.path,
            role=image.role,
            group=image.group,
            twin=twin,
            reason=in_words_of_pages(reasons.get(image.path, "")),
        )
        for image, twin in zip(images, twins_of(images), strict=True)
    ]
    return CheckResult(
        normal=normal,
        folder=str(normal_folder(normal).absolute()),
        images=checked,
        test=test,
        labels=Counter(image.label for image in dataset.images) if dataset else {},
        test_problem=in_words_of_pages(problem),
        test_unreadable=unreadable,
        leaked=leaked,
    ).model_dump()


def _labelled(test: str | None) -> tuple[LabelledDataset | None, str]:
    """The labelled images, or why their folder cannot be used."""
    if test is None:
        return None, ""
    try:
        return labelled_dataset(Path(test)), ""
    except MscEdgeError as error:
        return None, str(error)


def train_and_export(*, folder: str, report: Report) -> dict[str, Any]:
    """Train, export, and evaluate where labelled images were chosen.

    Returns `notes`: how the images are used and what they allow; none if the training had finished before.
    """
    notes: list[str] = []
    training = Training(Path(folder))
    plan, run = training.plan, training.folder / RUN
    if not training.is_trained:
        started = any((run / name).is_file() for name in (METRICS, CHECKPOINT))
        if not started:
            shutil.rmtree(run, ignore_errors=True)
        own = _with_curves(training, report)
        train(plan.normal, run, options_of(training), resume=started, report=own, note=notes.append)
    if training.kit is None:
        export(run, training.folder / KIT, name=training.kit_name, precision="fp32", report=report)
    _evaluate(training, report)
    return {"notes": [in_words_of_pages(note) for note in notes]}


def _with_curves(training: Training, report: Report) -> Report:
    """A Report that also draws the curves of the steps so far."""

    drawn = -_REDRAWN

    def reporting(task: str, done: int, total: int, note: str = "") -> None:
        nonlocal drawn
        report(task, done, total, note)
        if task != STEPS or time.monotonic() - drawn < _REDRAWN:
            return
        rows = read_metrics(training.folder / RUN / METRICS, StepMetrics)
        if any(row.loss is not None for row in rows):
            write_curves(training.folder / CURVES, rows, None)
            drawn = time.monotonic()

    return reporting


def export_again(*, folder: str, report: Report, **options: Any) -> dict[str, Any]:
    """Export a finished training with other options of `export`, and evaluate the new kit.

    Returns `notes`: why there is no int8 model.
    """
    training = Training(Path(folder))
    notes: list[str] = []
    run, kit = training.folder / RUN, training.folder / KIT
    export(run, kit, overwrite=True, report=report, note=notes.append, **options)
    _evaluate(training, report)
    return {"notes": [in_words_of_pages(note) for note in notes]}


def _evaluate(training: Training, report: Report) -> None:
    kit, test = training.kit, training.plan.test
    if kit is None or test is None:
        return
    dataset = labelled_dataset(Path(test))
    evaluate(kit, dataset, training.folder / EVALUATION, gallery=24, overwrite=True, report=report)
    with written_whole(training.folder / LABELS) as partial:
        labels = {image.name: {"label": image.label, "path": str(image.path)} for image in dataset.images}
        partial.write_text(json.dumps(labels), encoding="utf-8")


def options_of(training: Training) -> TrainingOptions:
    """The options of `train` for a plan."""
    plan = training.plan
    return TrainingOptions(region=plan.region, ignore_mask=training.mask, steps=plan.steps, **CHOICES[plan.detail])


def compare_kits(*, first: str, second: str, test: str, report: Report) -> dict[str, Any]:
    """Compare two kits on the same labelled images."""
    dataset = labelled_dataset(Path(test))
    return compute_comparison((Path(first), Path(second)), dataset, report=report).model_dump(mode="json")


TASKS: Mapping[str, Callable[..., Any]] = {
    "check": check,
    "train": train_and_export,
    "export": export_again,
    "compare": compare_kits,
}
