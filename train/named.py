"""Which options of the command line a backbone, its weights and its last stage were named by: errors say those."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """The options that an error about a backbone speaks of."""

    backbone: str = "--backbone"
    weights: str = "--weights"
    stop_at: str = "--stop-at"


OF_TRAIN = Named()
"""Those of `msc-edge train`."""
