"""All backbones by name. A new family is one module beside this one and an entry in FAMILIES; see docs/extend.md."""

from collections.abc import Sequence
from typing import Protocol

from msc_edge.errors import UsageError
from msc_edge.train.backbones import edge_small, efficientnet_lite, torchvision_networks
from msc_edge.train.backbones.architecture import Architecture
from msc_edge.train.backbones.backbone import Backbone


class Family(Protocol):
    """What a module of backbones provides."""

    @property
    def NAMES(self) -> Sequence[str]:  # noqa: N802 (a constant of the module)
        """The names that errors list."""
        ...

    @property
    def ABOUT(self) -> str:  # noqa: N802
        """What --help says of these names."""
        ...

    def architecture(self, name: str) -> Architecture | None:
        """The architecture with this name; None for the name of another family."""
        ...


FAMILIES: tuple[Family, ...] = (edge_small, efficientnet_lite, torchvision_networks)


def backbone_names() -> list[str]:
    """The names of all families."""
    return [name for family in FAMILIES for name in family.NAMES]


def describe_backbones() -> str:
    """The names of all families, with what --help says of them."""
    return "; ".join(f"{', '.join(family.NAMES)}: {family.ABOUT}" for family in FAMILIES)


def architecture(name: str) -> Architecture:
    """The architecture of a name. Raises UsageError for an unknown name; the message lists the known ones."""
    found = next((known for family in FAMILIES if (known := family.architecture(name))), None)
    if found is None:
        raise UsageError(
            f"backbone {name}: unknown; choose one of {', '.join(backbone_names())}, "
            "or a narrower network such as mobilenet_v2_x0.5 or resnet50_x0.5 (0.1 to 0.999)"
        )
    return found


def build_backbone(name: str, *, stop_at: str | None = None) -> Backbone:
    """An untrained backbone in eval mode. UsageError for an unknown name or stage; see `Backbone`."""
    return Backbone(architecture(name), stop_at=stop_at)
