"""What a training is about to do, and what its images allow: lines at its start, before the hours that it may take."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from msc_edge.calibration import REJECT_RATE, images_needed
from msc_edge.text import many, percent
from msc_edge.train.dataset import NormalImage
from msc_edge.train.settings import FineTuning

_MOST_HOLDOUT = 0.5  # a larger share leaves fewer images to learn from than to measure with


def announcement(
    images: Sequence[NormalImage], settings: FineTuning, *, backbone: str, device: str, holdout: float
) -> Iterator[str]:
    """The images by their use, the settings, and a warning of too few held-out images."""
    in_bank, held_out = ([image for image in images if image.role == role] for role in ("bank", "calibration"))
    parts, of_parts = ({image.group for image in each} for each in (held_out, [*in_bank, *held_out]))
    groups = f": {len(parts)} of {len(of_parts)} groups" if len(of_parts) < len(in_bank) + len(held_out) else ""
    unused = len(images) - len(in_bank) - len(held_out)
    left_out = f"; {unused} left out, duplicates or unreadable" if unused else ""
    yield (
        f"{many(len(images), 'image')}: {len(in_bank)} for training and the memory bank, "
        f"{len(held_out)} held out{groups}{left_out}"
    )
    yield f"{backbone} on {device}: {_describe(settings)}"
    if warning := held_out_warning(images, holdout=holdout):
        yield f"warning: {warning}"


def held_out_warning(images: Sequence[NormalImage], *, holdout: float, rate: float = REJECT_RATE) -> str:
    """What the held-out images allow where that is not a target false-alarm rate of `rate`; else empty.

    How many independent images a group counts as follows from its scores, which the training gives: here it is a range.
    """
    groups = Counter(image.group for image in images if image.role == "calibration")
    most = groups.total()
    # The scores of a group can be equal: the number of images by the mean size of the group of an image.
    least = most**2 / sum(size**2 for size in groups.values())
    needed = images_needed(rate)
    if least >= needed:
        return ""
    share = f"above the target of {percent(rate)}"
    held_out = many(most, "held-out image")
    if len(groups) == most:
        found = f"with {held_out}, the expected false-alarm rate of a kit is {percent(1 / (most + 1))}, {share}"
    else:
        lowest, highest = percent(1 / (most + 1)).removesuffix(" %"), percent(1 / (least + 1))
        found = (
            f"{held_out} {'shows' if most == 1 else 'show'} {many(len(groups), 'part')} and count as {least:.0f} to "
            f"{most} independent ones: the expected false-alarm rate of a kit is at least {lowest} to {highest}"
        )
        found += f", {share}" if most < needed else f", and may be {share}"
    usable = sum(image.role in ("bank", "calibration") for image in images)
    larger = math.ceil(100 * needed / usable) / 100
    more = f", or pass --holdout {larger:g}" if len(groups) == most and larger <= _MOST_HOLDOUT else ""
    return (
        f"{found}. The target needs {needed} held-out images of different parts: train with about "
        f"{math.ceil(needed / holdout)} images of different parts{more}"
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
