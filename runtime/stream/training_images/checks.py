"""Which frames are worth keeping: not dark, bright, blurred, or similar to an image that is kept."""

from collections.abc import Collection, Iterable
from typing import Literal, get_args

import numpy as np

from msc_edge.runtime.stream.training_images.exposure import exposure_fault
from msc_edge.runtime.stream.training_images.focus import BLURRED_BELOW, FocusCheck, Sharpness, sharpness
from msc_edge.runtime.stream.training_images.similarity import SimilarityCheck, view_of

Refusal = Literal["similar", "blurred", "dark", "bright"]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)

EXPLANATIONS: dict[Refusal, str] = {
    "similar": "it shows nothing that the images in the folder do not show; --keep-similar keeps such frames",
    "blurred": "its edges are less sharp than those of the sharpest frames; check focus, exposure time and vibration, "
    "or pass --keep-all",
    "dark": "nearly all of it is dark; check lamp, exposure time and lens cap, or pass --keep-all",
    "bright": "more than half of it is saturated, and shows no detail there; lower the exposure, or pass --keep-bright "
    "if the background is meant to be white",
}
_FOCUS_INTERVAL = 0.5  # seconds between frames that are measured although they are not examined


class FrameChecks:
    """Examines the frames of one source."""

    def __init__(self, *, allowed: Collection[Refusal] = (), kept: Iterable[np.ndarray] = ()) -> None:
        """`allowed`: what is no reason to refuse a frame. `kept`: images of an earlier run, the latest one last."""
        self._allowed = frozenset(allowed)
        self._similarity = SimilarityCheck([] if "similar" in self._allowed else kept)
        self._focus = FocusCheck()
        self._measured: float | None = None
        self.last: Sharpness = (None, None)
        """Of the last frame that was kept."""

    def observe(self, image: np.ndarray, moment: float | None) -> None:
        """Learn from any frame, uint8 (height, width, 3) RGB, how much frames differ, and how sharp they can be.

        `moment`: its time in seconds; None if it does not belong to the frame before, as the files of a folder.
        """
        if "similar" not in self._allowed:
            self._similarity.observe(view_of(image), moment)
        if "blurred" in self._allowed or moment is None:
            return
        if self._measured is None or not 0 <= moment - self._measured < _FOCUS_INTERVAL:
            self._measured = moment
            self._focus.observe(sharpness(image))

    def refusal(self, image: np.ndarray) -> Refusal | None:
        """Why not to keep a frame; None to keep it."""
        fault = exposure_fault(image)
        if fault and fault not in self._allowed:
            return fault
        view = view_of(image)
        if "similar" not in self._allowed and self._similarity.is_similar(view):
            return "similar"
        if "blurred" not in self._allowed:
            self.last = sharpness(image)
            self._focus.observe(self.last)
            if self.is_blurred(self.last):
                return "blurred"
        self._similarity.keep(view)
        return None

    def is_blurred(self, measured: Sharpness) -> bool:
        """Whether a frame is less sharp than the sharpest ones so far. The first ones were compared with few others."""
        return "blurred" not in self._allowed and self._focus.share(measured) < BLURRED_BELOW
