"""Where the verdict and the regions of a heatmap seem to contradict each other, and what it means.

The verdict compares the score with its limit, and a region is where the heatmap is above a limit of its own. Both
follow from the same held-out normal images, but separately.
"""

from msc_edge.runtime.results.result import Result
from msc_edge.scoring import Scoring

_VERDICTS = {"warn": "Warning", "reject": "Rejected"}


def explain_disagreement(result: Result, scoring: Scoring) -> str:
    """What a verdict without a region, or a region without a verdict, means and what to do; empty if both agree.

    `scoring`: of the model that scored. A kit that compares whole images only has no heatmap to disagree with.
    """
    if result.grid_map is None or not disagree(flagged=result.verdict != "normal", regions=len(result.regions)):
        return ""
    if result.verdict == "normal":
        return (
            "Normal, although a region is outlined: verdict and heatmap have limits of their own, and only the heatmap "
            "is above its limit. If the region is a defect, export again with a higher target false-alarm rate, which "
            "lowers the limit of the score; if it is normal, add such images to the normal images and train again."
        )
    beginning = (
        f"{_VERDICTS[result.verdict]}, although no region is outlined: verdict and heatmap have limits of their own, "
        "and only the score is above its limit"
    )
    if scoring.deciding_score(result.image_score, result.patch_score) == "image":
        return (
            f"{beginning}, because the image differs as a whole. Compare it with the nearest normal images: light, "
            "position, focus, or another kind of part."
        )
    return (
        f"{beginning}; its most anomalous part is below the limit of the heatmap, or too small for a region. Compare "
        "the image with the nearest normal images; if it is normal, add such images to the normal images and train "
        "again."
    )


def disagree(*, flagged: bool, regions: int | None) -> bool:
    """Whether an image is flagged without a region, or has regions and is not flagged. None: there is no heatmap."""
    return regions is not None and flagged != (regions > 0)
