"""What a training is about to do, and what its images allow: lines at its start, before the hours that it may take."""

import math
from collections.abc import Iterator, Sequence

from msc_edge.calibration import REJECT_RATE, images_needed
from msc_edge.scoring import ScoreKind
from msc_edge.text import many, percent
from msc_edge.train.dataset import NormalImage
from msc_edge.train.settings import FineTuning
from msc_edge.train.split import Split, fine_tuning_suits, split_of

_MOST_HOLDOUT = 0.5  # a larger share leaves fewer images to learn from than to measure with


def announcement(
    images: Sequence[NormalImage],
    settings: FineTuning,
    *,
    scores: ScoreKind,
    backbone: str,
    device: str,
    holdout: float,
    asked: bool = False,
    found: bool = False,
) -> Iterator[str]:
    """The images by their use, the settings, and a warning of too few images for the target false-alarm rate.

    `asked`: the number of steps is not the default. `found`: the parts were found by likeness, names and times, which
    cannot tell a part that was photographed many times from parts of one kind.
    """
    split = split_of(images, trained=settings.steps > 0, scores=scores)
    used, held_out = split.used, len(split.calibration)
    groups, parts = (len({image.group for image in each}) for each in (split.calibration, used))
    if split.all_calibrate:
        of_groups = f", {many(parts, 'part')}" if parts < len(used) else ""
        use = f"all in the memory bank, each image held out in turn{of_groups}"
    else:
        of_groups = f": {groups} of {parts} parts" if parts < len(used) else ""
        use = (
            f"{len(used) - held_out} for training, {held_out} held out{of_groups}; all in the memory bank"
            if split.in_turn
            else f"{len(used) - held_out} for training and the memory bank, {held_out} held out{of_groups}"
        )
    unused = len(images) - len(used)
    left_out = f"; {unused} left out, duplicates or unreadable" if unused else ""
    yield f"{many(len(images), 'image')}: {use}{left_out}"
    if found:
        yield (
            f"{many(parts, 'part')} found among the images; if they show fewer, pass --group-by: otherwise more normal "
            "parts are rejected than stated"
        )
    yield f"{backbone} on {device}: {_describe(settings)}"
    if not settings.steps and not asked:
        yield f"not fine-tuned: {_reason(images, scores)}; pass --steps N to fine-tune it anyway"
    if warning := rate_warning(split, holdout=holdout):
        yield f"warning: {warning}"
        untrained = split_of(images, trained=False, scores=scores)
        if untrained.all_calibrate and not split.all_calibrate and settings.select == "synthetic":
            yield f"if the fine-tuning is undone: {_allowed(untrained, REJECT_RATE)}"


def rate_warning(split: Split, *, holdout: float, rate: float = REJECT_RATE) -> str:
    """What the calibration images allow where that is not a target false-alarm rate of `rate`; else empty.

    How many independent images a group counts as follows from its scores, which the training gives: here it is a range.
    """
    needed, most, groups = images_needed(rate), len(split.calibration), _groups(split)
    if split.fewest_independent >= needed:
        return ""
    found = _allowed(split, rate)
    if split.all_calibrate:
        if groups >= needed:
            return f"{found}: how alike the scores of a part are decides, and export states it"
        return f"{found}. The target needs {needed} images of different parts: train with at least as many"
    larger = math.ceil(100 * needed / len(split.used)) / 100
    more = f", or pass --holdout {larger:g}" if groups == most and larger <= _MOST_HOLDOUT else ""
    return (
        f"{found}. The target needs {needed} held-out images of different parts: train with about "
        f"{math.ceil(needed / holdout)} images of different parts{more}"
    )


def _groups(split: Split) -> int:
    return len({image.group for image in split.calibration})


def _allowed(split: Split, rate: float) -> str:
    images, least, groups = len(split.calibration), split.fewest_independent, _groups(split)
    share = f"above the target of {percent(rate)}"
    named = f"{many(images, 'image')} held out in turn" if split.all_calibrate else many(images, "held-out image")
    if groups == images:
        text = f"with {named}, the expected false-alarm rate of a kit is {percent(1 / (groups + 1))}"
        return f"{text}, {share}" if groups < images_needed(rate) else text
    shown = f"{named} {'shows' if images == 1 else 'show'} {many(groups, 'part')}"
    if round(least) == groups:
        text = f"{shown}: the expected false-alarm rate of a kit is {percent(1 / (groups + 1))}"
    else:
        lowest, highest = percent(1 / (groups + 1)).removesuffix(" %"), percent(1 / (least + 1))
        text = (
            f"{shown} and count as {least:.0f} to {groups} independent ones: the expected false-alarm rate of a kit is "
            f"{lowest} to {highest}"
        )
    if groups < images_needed(rate):
        return f"{text}, {share}"
    return f"{text}, and may be {share}" if least < images_needed(rate) else text


def _reason(images: Sequence[NormalImage], scores: ScoreKind) -> str:
    """Why the default is not to fine-tune."""
    if fine_tuning_suits(images, scores=scores):
        return "there are fewer images to train on than one batch"
    held_out = split_of(images, trained=True, scores=scores)
    parts = f" of {many(_groups(held_out), 'part')}" if _groups(held_out) < len(held_out.calibration) else ""
    return (
        f"the limits of a fine-tuned network would be from {many(len(held_out.calibration), 'held-out image')}{parts}, "
        f"too few for a false-alarm rate of {percent(REJECT_RATE)}"
    )


def _describe(settings: FineTuning) -> str:
    if not settings.steps:
        return "frozen, without fine-tuning"
    frozen = f"stages up to {settings.frozen_up_to} frozen" if settings.frozen_up_to else "all stages train"
    selection = "checkpoint selection by synthetic anomalies" if settings.select == "synthetic" else "the last step"
    return (
        f"{many(settings.steps, 'step')} of {settings.recipe}, {many(settings.batch, 'image')} each, in "
        f"{settings.dtype}; learning rate {settings.learning_rate:g}; {frozen}; {selection} gives the weights"
    )
