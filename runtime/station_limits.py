"""Station limits: limits of a kit with what its station has learned, from images that were held out of it.

They hold for the additions that they were made with, and for more: each addition lowers scores, so no more normal
images are rejected than stated. Where one of these additions is undone, scores rise, and the limits count no more:
those of the kit do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msc_edge.kit.manifest import Precision
from msc_edge.kit.model_entry import CalibrationInfo, Model
from msc_edge.runtime.kept_images import Change, KeptImage, learned_digests


@dataclass(frozen=True)
class StationLimits:
    """Limits that were computed at the station."""

    made: Change
    learned: Sequence[str]
    """The digests of the additions that counted; see `learned_digests`."""
    calibrations: Mapping[Precision, CalibrationInfo]
    """By model: its scores of the held-out images, and the limits that follow from them."""

    @property
    def name(self) -> str:
        """What messages call them."""
        return f"the station limits of {self.made.time}"

    def calibration(self, precision: Precision, model: Model) -> CalibrationInfo:
        """Of one model of the kit. KeyError or ValueError where they cannot be of this kit."""
        info = self.calibrations[precision]
        if (info.regions is None) != (model.calibration.regions is None):
            raise ValueError("the station limits are of a kit with other scores")
        return info

    def withdrawn(self, images: Sequence[KeptImage]) -> str | None:
        """Why additions that were undone have ended them; None: none was. `images`: all that the station keeps."""
        missing = set(self.learned) - set(learned_digests(images))
        gone = {image.digest: f"{image.id} ({image.name})" for image in images if image.digest in missing}
        if not missing:
            return None
        return (
            f"{self.name} count no more, because they were made with the learned images {', '.join(gone.values())}: "
            "scores are higher without. The limits of the kit count; for new ones run: msc-edge calibrate KIT --normal "
            "IMAGES --learned --in-place"
        )

    def texts(self) -> tuple[str, str]:
        """`learned` and `calibrations` as JSON."""
        infos = {model: info.model_dump(mode="json") for model, info in self.calibrations.items()}
        return json.dumps(list(self.learned)), json.dumps(infos)

    @classmethod
    def of_texts(cls, made: Change, learned: str, calibrations: str) -> "StationLimits":
        """The reverse of `texts`. ValueError, TypeError or AttributeError for other texts."""
        infos = {model: CalibrationInfo.model_validate(info) for model, info in json.loads(calibrations).items()}
        return cls(made, [str(each) for each in json.loads(learned)], infos)
