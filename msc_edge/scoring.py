"""From the scores of an image's parts to the score that its verdict is made of.

The image score compares the whole image with the normal images; the patch score is the largest value of the anomaly
map. A wrong part raises the first, a small defect the second. The score is the larger of both, each in standard
deviations of what harmless changes do to it: other light, another place, another focus. A score that such changes move
far must be far above ordinary ones to count. The calibration of a kit holds scores that were combined in the same way,
so target rates are those of the verdict.
"""

from dataclasses import dataclass, replace
from typing import Literal, overload

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

ScoreKind = Literal["image", "patch", "both"]

_IMAGE_SCORES = (-1e-5, 2 + 1e-5)  # of cosine distances, with rounding
_PATCH_SCORES = (0.0, float(np.finfo(np.float32).max))
_LEAST_DEVIATION = 0.01  # of the mean: a few held-out images may have almost equal scores


@dataclass(frozen=True)
class Standard:
    """What scores are standardised by: those of harmlessly changed copies of calibration images."""

    image: np.ndarray
    """Image scores, float64 (m,)."""
    patch: np.ndarray
    """Patch scores, float64 (m,), in the same order."""
    places: np.ndarray
    """Which calibration image each is a copy of, int64 (m,)."""
    offset: float = 0.0
    """Added to every score."""

    @classmethod
    def of_images(cls, image: np.ndarray, patch: np.ndarray) -> "Standard":
        """The calibration images as they are."""
        return cls(image, patch, np.arange(len(image)))

    def from_zero(self, image: np.ndarray, patch: np.ndarray) -> "Standard":
        """The same with the offset that makes 0 the mean score of the calibration images as they are.

        `image`, `patch`: their scores, float64 (n,). A changed copy has a higher score: without the offset most normal
        images would be below 0, and a limit could be, too.
        """
        scales = Scale.of(self.image), Scale.of(self.patch)
        both = [scale.standardised(scores) for scale, scores in zip(scales, (image, patch), strict=True)]
        return replace(self, offset=-float(np.maximum(*both).mean()))

    def without(self, place: int) -> "Standard":
        """The same without the copies of one image; with them, if there are no others."""
        kept = self.places != place
        if not kept.any():
            return self
        return Standard(self.image[kept], self.patch[kept], self.places[kept], self.offset)


class Scale(BaseModel):
    """How a score is standardised."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float = Field(description="becomes 0")
    deviation: PositiveFloat = Field(
        description="becomes 1: standard deviation over changed copies of normal images, at least 1 % of their mean"
    )

    @classmethod
    def of(cls, scores: np.ndarray, *, offset: float = 0.0) -> "Scale":
        """The scale of scores, float64 (n,), n >= 1: their mean becomes `offset`."""
        mean = float(scores.mean())
        deviation = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
        deviation = max(deviation, _LEAST_DEVIATION * abs(mean), 1e-9)
        return cls(mean=mean - offset * deviation, deviation=deviation)

    @overload
    def standardised(self, score: float) -> float: ...
    @overload
    def standardised(self, score: np.ndarray) -> np.ndarray: ...
    def standardised(self, score: float | np.ndarray) -> float | np.ndarray:
        """The score, or scores, in standard deviations from the mean."""
        return (score - self.mean) / self.deviation


class MapSettings(BaseModel):
    """How patch distances become an anomaly map and regions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    smoothing: float = Field(ge=0, le=8, description="standard deviation of the blur, in positions of the grid")
    least_area: PositiveInt = Field(description="smallest region, in pixels of the network's input")


class Scoring(BaseModel):
    """What the score of a model is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ScoreKind = Field(
        default="image",
        description="image: the score is the image score; patch: the patch score; both: the larger of the two, each "
        "standardised",
    )
    image: Scale | None = Field(default=None, description="standardises the image score; null: not used")
    patch: Scale | None = Field(default=None, description="standardises the patch score; null: not used")
    map: MapSettings | None = Field(default=None, description="null: the model has no patch distances")

    @model_validator(mode="after")
    def _complete(self) -> "Scoring":
        if (self.kind == "both") != (self.image is not None and self.patch is not None):
            raise ValueError(f"kind {self.kind} does not fit the scales")
        if (self.kind == "image") != (self.map is None):
            raise ValueError(f"kind {self.kind} {'needs no' if self.map else 'needs a'} map")
        return self

    @classmethod
    def fitted(cls, kind: ScoreKind, standard: Standard | None, settings: MapSettings | None) -> "Scoring":
        """The scoring of a model. `standard`: needed for kind `both`."""
        if kind != "both":
            return cls(kind=kind, map=settings)
        assert standard is not None
        image, patch = (Scale.of(scores, offset=standard.offset) for scores in (standard.image, standard.patch))
        return cls(kind=kind, image=image, patch=patch, map=settings)

    @property
    def possible_scores(self) -> tuple[float, float]:
        """The smallest and the largest score that any image can have."""
        if self.kind == "image":
            return _IMAGE_SCORES
        if self.image is None or self.patch is None:
            return _PATCH_SCORES
        (low, high), (least, most) = _IMAGE_SCORES, _PATCH_SCORES
        return self.score(low, least), self.score(high, most)

    def score(self, image_score: float, patch_score: float | None) -> float:
        """The score of one image. `patch_score`: None for a model without patch distances."""
        if self.kind == "image":
            return image_score
        assert patch_score is not None, "a model with patch distances has a patch score"
        if self.image is None or self.patch is None:
            return patch_score
        return max(self.image.standardised(image_score), self.patch.standardised(patch_score))

    def deciding_score(self, image_score: float, patch_score: float | None) -> Literal["image", "patch"]:
        """Which of the two makes the score of one image: with kind `both`, the larger one in standard deviations."""
        if self.kind == "image" or patch_score is None:
            return "image"
        if self.image is None or self.patch is None:
            return "patch"
        return "image" if self.image.standardised(image_score) > self.patch.standardised(patch_score) else "patch"


def calibration_scores(
    kind: ScoreKind,
    image_scores: np.ndarray,
    patch_scores: np.ndarray | None,
    standard: Standard | None,
    settings: MapSettings | None,
) -> np.ndarray:
    """The scores of calibration images that set the limits of a kit, float64 (n,), from both scores of each.

    With kind `both`, each image is standardised by copies of the *other* images, as a new image is. By all of them, its
    own extreme value would enlarge the deviation that it is divided by: with six images a limit at 14 % would reject 20
    to 23 %, with thirty images one at 3.2 % would reject 3.8 to 4.2 %. This way it is 9 to 10 % and 2.3 to 2.5 %
    (measured with the images themselves as copies).
    """
    if kind == "image" or patch_scores is None:
        return image_scores
    if kind == "patch":
        return patch_scores
    assert standard is not None
    by_all = Scoring.fitted(kind, standard, settings)
    scores, copied = np.empty(len(image_scores)), set(standard.places.tolist())
    for place, each in enumerate(zip(image_scores.tolist(), patch_scores.tolist(), strict=True)):
        own = place in copied
        scoring = Scoring.fitted(kind, standard.without(place), settings) if own else by_all
        scores[place] = scoring.score(*each)
    return scores
