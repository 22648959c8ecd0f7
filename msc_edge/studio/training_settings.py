"""What tells trainings apart: their settings in the words of the pages, and those that differ."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from msc_edge.errors import MscEdgeError
from msc_edge.ignore_mask import WHITE
from msc_edge.images import read_image
from msc_edge.studio.results import Results
from msc_edge.studio.training import MASK, Detail, Training, TrainingPlan
from msc_edge.text import percent

DETAILS: Mapping[Detail, str] = {"fast": "Fast", "fine": "Finer heatmaps", "tiles": "Small defects"}
"""The names of the choices of speed or detail."""
CREATED, KIT = "created", "name of the kit"
"""Shown also where they are equal: they name a training."""


def plan_of(training: Training) -> TrainingPlan | None:
    """The plan; None if its file is damaged: pages show the training all the same, and it can be deleted."""
    try:
        return training.plan
    except MscEdgeError:
        return None


def settings_of(training: Training) -> dict[str, str]:
    """The settings of a training and of its kit, by their names on pages; without those that cannot be read."""
    found = {}
    plan, results = plan_of(training), _results_of(training)
    if plan:
        region = plan.region
        found = {
            CREATED: created(plan),
            "speed or detail": DETAILS[plan.detail],
            "steps of fine-tuning": "by the number of images" if plan.steps is None else str(plan.steps),
            "normal images": plan.normal,
            "region": f"{region.x}, {region.y}, {region.width} x {region.height}" if region else "the whole image",
            "ignore mask": _mask(training.folder / MASK) if plan.ignore_mask else "none",
        }
    if results:
        found[KIT] = results.manifest.name
        found["images in the memory bank"] = str(results.manifest.normal_images.count)
        found["model"] = results.manifest.default_precision
        for name in ("warn", "reject"):
            limit = getattr(results.limits, name)
            found[f"target false-alarm rate of the {name} limit"] = (
                percent(limit.target_rate) if limit.target_rate else "set by hand"
            )
    return found


def created(plan: TrainingPlan) -> str:
    """When a training was asked for, such as `2026-11-30 17:06 UTC`."""
    return f"{plan.created[:16].replace('T', ' ')} UTC"


def differing(trainings: Iterable[Training]) -> dict[Training, dict[str, str | None]]:
    """The kit and the date of each training, and the settings that two of them do not share.

    All have the same names, in the same order. None: a training has no kit yet, or its files are damaged.
    """
    settings = {training: settings_of(training) for training in trainings}
    values: dict[str, set[str]] = {}
    for own in settings.values():
        for name, value in own.items():
            values.setdefault(name, set()).add(value)
    names = [name for name, found in values.items() if name in (KIT, CREATED) or len(found) > 1]
    return {training: {name: own.get(name) for name in names} for training, own in settings.items()}


def _results_of(training: Training) -> Results | None:
    try:
        return Results.of(training)
    except MscEdgeError:  # its own page says so
        return None


def _mask(path: Path) -> str:
    try:
        return f"covers {percent(_covered(path, path.stat().st_mtime_ns))} of the image"
    except (OSError, MscEdgeError):
        return "cannot be read"


@lru_cache(maxsize=64)
def _covered(path: Path, stamp: int) -> float:  # noqa: ARG001 (another stamp is another mask)
    return float((read_image(path) > WHITE).all(axis=2).mean())
