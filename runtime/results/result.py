"""What a scored image is answered with."""

from dataclasses import dataclass

from msc_edge.calibration import Verdict

# An image is nearer than this to its own row of the bank (by int8 up to 1.1e-6), and a second image of the same part
# is not.
_SAME_IMAGE = 1e-5


@dataclass(frozen=True)
class NearestImage:
    """One of the normal images nearest to the one that was scored."""

    row: int
    """Row of the bank, and the number in the name of its thumbnail."""
    path: str
    """Its path in the folder that was trained on."""
    distance: float
    """Cosine distance `1 - cos`, in [0, 2]."""


@dataclass(frozen=True)
class Result:
    """Score, p-value and verdict of one image, and the normals that it was compared with."""

    score: float
    """Mean cosine distance to the k nearest normals, in [0, 2]: 0 is identical, larger is stranger."""
    p_value: float
    """Share of held-out normals (and this image) that are at least as strange, in (0, 1]."""
    verdict: Verdict
    nearest_images: tuple[NearestImage, ...]
    """Nearest first."""

    @property
    def is_in_bank(self) -> bool:
        """Whether the kit has learnt from this very image: its score is then near 0 whatever it shows."""
        return self.nearest_images[0].distance < _SAME_IMAGE
