"""Torchvision's classification networks with their first ImageNet weights, and narrower networks of two families.

Narrower ones have no weights of their own: `mobilenet_v2_x0.5` (all widths times 0.5), and `resnet50_x0.5` (the inner
width of each bottleneck times 0.5, as torchvision's `wide_resnet50_2` doubles it).
"""

import re
from collections import OrderedDict
from functools import partial

import torchvision
from torch import nn
from torchvision.models.efficientnet import MBConv
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.mobilenetv3 import InvertedResidual as InvertedResidualV3

from msc_edge.train.backbones.architecture import Architecture, Trunk
from msc_edge.train.torchvision_weights import weights_from_torchvision

NAMES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"efficientnet_b{i}" for i in range(5)),
)
ABOUT = "of torchvision, also narrower, such as mobilenet_v2_x0.5 and resnet50_x0.5"
BLOCKS: dict[type[nn.Module], str] = {InvertedResidual: "conv", InvertedResidualV3: "block", MBConv: "block"}

_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_NARROWER = re.compile(r"(mobilenet_v2|resnet50|resnet101|resnet152)_x(0\.[0-9]{1,3})")


def architecture(name: str) -> Architecture | None:
    """The architecture of one of torchvision's names, or of a narrower network; None for any other name."""
    family = name
    widths: dict[str, float] = {}
    if (narrower := _NARROWER.fullmatch(name)) and float(narrower[2]) >= 0.1:
        family, width = narrower[1], float(narrower[2])
        widths = {"width_mult": width} if family == "mobilenet_v2" else {"width_per_group": round(64 * width)}
    if family not in NAMES:
        return None
    return Architecture(
        name=name,
        trunk=partial(_trunk, family, widths),
        pretrained=partial(weights_from_torchvision, name),
        blocks=BLOCKS,
    )


def _trunk(family: str, widths: dict[str, float]) -> Trunk:
    network = torchvision.models.get_model(family, weights=None, **widths)
    stages = ("features",) if hasattr(network, "features") else _RESNET
    return OrderedDict((stage, getattr(network, stage)) for stage in stages)
