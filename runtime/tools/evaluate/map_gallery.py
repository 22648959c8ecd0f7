"""The galleries of the worst and the best heatmaps of an evaluation, with the outlines of their masks.

No map is kept while the images are scored: the few images that are shown are scored again.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from msc_edge.errors import SourceError
from msc_edge.kit.opening import Kit
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import Result
from msc_edge.runtime.tools.evaluate.masks import MaskedImage, read_mask
from msc_edge.runtime.tools.report.gallery import Card, Gallery, card
from msc_edge.runtime.tools.report.mask_outline import mask_outline
from msc_edge.runtime.tools.report.outcome import Truth

_OVERLAP = "Overlap: pixels in the mask and above the limit, divided by pixels in either."


def map_galleries(
    kit: Kit,
    detector: Detector,
    images: Sequence[MaskedImage],
    results: Mapping[Path, Result],
    *,
    count: int,
    by_aupimo: bool,
) -> list[Gallery]:
    """The worst and the best heatmaps, in two galleries with at most `count` images together; none without images.

    `results` are the results of the images by their paths. The order is that of `worst_and_best`.
    """
    if not images:
        return []
    key = "AUPIMO" if by_aupimo else "overlap"
    why = "" if by_aupimo else ", because AUPIMO is not resolved"
    galleries = []
    worst, best = worst_and_best(images, count, by_aupimo=by_aupimo)
    for title, order, chosen in (("Worst heatmaps", "smallest", worst), ("Best heatmaps", "largest", best)):
        text = f"Anomalous images with a mask, {order} {key} first{why}. {_OVERLAP}"
        galleries.append(Gallery(title, text, len(images), _cards(kit, detector, chosen, results), masks=True))
    return galleries


def worst_and_best(
    images: Sequence[MaskedImage], count: int, *, by_aupimo: bool
) -> tuple[list[MaskedImage], list[MaskedImage]]:
    """The images with the smallest and the largest AUPIMO (or overlap), at most `count` together, none twice.

    The smallest comes first in one list, the largest in the other. Ties are ordered by the peak in the mask.
    """
    if by_aupimo:
        ranked = sorted(images, key=lambda image: (image.aupimo or 0.0, image.peak))
    else:
        ranked = sorted(images, key=lambda image: (image.overlap, image.peak))
    shown = min(count, len(images))
    return ranked[: (shown + 1) // 2], ranked[::-1][: shown // 2]


def _cards(kit: Kit, detector: Detector, images: Sequence[MaskedImage], results: Mapping[Path, Result]) -> list[Card]:
    paths = [image.label.path for image in images]
    with closing(score_images(detector, paths, threads=1, thumbnail_if=lambda _: True)) as again:
        return [
            _card(kit, detector, image, scored, results[image.label.path])
            for image, scored in zip(images, again, strict=True)
        ]


def _card(kit: Kit, detector: Detector, image: MaskedImage, scored: ImageResult, earlier: Result) -> Card:
    if scored.result is None:  # it was removed since: the card shows the earlier result, and why there is no image
        scored = replace(scored, result=earlier, error=None)
    aupimo = "" if image.aupimo is None else f"AUPIMO {image.aupimo:.4f} \N{MIDDLE DOT} "
    made = card(
        kit,
        scored,
        name=image.label.name,
        detector=detector,
        truth=Truth(image.label.label, image.label.is_anomalous),
        note=f"{aupimo}overlap {image.overlap:.4f}",
    )
    if made.problem or scored.result is None or scored.result.grid_map is None:
        return made
    geometry = scored.result.grid_map.geometry
    try:
        mask = read_mask(image.mask)
    except SourceError as error:
        # The page has no absolute paths.
        return replace(made, problem=str(error).replace(str(image.mask), image.mask.name))
    return replace(made, outline=mask_outline(mask, height=geometry.frame_height, width=geometry.frame_width))
