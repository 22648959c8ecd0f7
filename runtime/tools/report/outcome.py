"""Whether a verdict is right, where the label of the image is known."""

from dataclasses import dataclass
from typing import Literal

from msc_edge.calibration import Verdict


@dataclass(frozen=True)
class Truth:
    """The label of an image."""

    label: str
    """`good` for a normal image, else the defect type."""
    is_anomalous: bool


@dataclass(frozen=True)
class Outcome:
    """A verdict compared with the label of the image."""

    kind: Literal["right", "wrong"]
    text: str


def outcome_of(verdict: Verdict, truth: Truth) -> Outcome:
    """Anomalous images should be rejected, and normal images should get neither a reject nor a warning."""
    if truth.is_anomalous:
        if verdict == "reject":
            return Outcome("right", "defect found")
        return Outcome("wrong", "missed defect, warning only" if verdict == "warn" else "missed defect")
    if verdict == "normal":
        return Outcome("right", "good part passed")
    return Outcome("wrong", "false alarm, warning only" if verdict == "warn" else "false alarm")
