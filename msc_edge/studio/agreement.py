"""Where the verdict and the regions of a heatmap seem to contradict each other, and what it means.

The verdict compares the score with its limit, and a region is where the heatmap is above a limit of its own. Both
follow from the same calibration images, but separately.
"""

from msc_edge.describe import describe_disagreement
from msc_edge.runtime.results.result import Result
from msc_edge.scoring import Scoring


def explain_disagreement(result: Result, scoring: Scoring) -> str:
    """What a verdict without a region, or a region without a verdict, means and what to do; empty if both agree.

    `scoring`: of the model that scored. A kit that compares whole images only has no heatmap to disagree with.
    """
    regions = None if result.grid_map is None else len(result.regions)
    sentence = describe_disagreement(result.verdict, regions=regions)
    return sentence and f"{sentence} {_advice(result, scoring)}"


def _advice(result: Result, scoring: Scoring) -> str:
    if result.verdict == "normal":
        return (
            "If the region is a defect, export again with a higher target false-alarm rate, which lowers the limit of "
            "the score; if it is normal, add such images to the normal images and train again."
        )
    if scoring.deciding_score(result.image_score, result.patch_score) == "image":
        return (
            "The image differs as a whole. Compare it with the nearest normal images: light, position, focus, or "
            "another kind of part."
        )
    return (
        "Its most anomalous part is below the limit of the heatmap, or too small for a region. Compare the image with "
        "the nearest normal images; if it is normal, add such images to the normal images and train again."
    )
