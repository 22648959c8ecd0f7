"""`edge-small`: a MobileNetV2 with narrower blocks, distilled for this package, which contains its weights."""

from collections import OrderedDict
from dataclasses import replace
from importlib.resources import as_file, files

from torchvision.models.mobilenetv2 import MobileNetV2

from msc_edge import __version__
from msc_edge.train.backbones.architecture import Architecture, Trunk
from msc_edge.train.backbones.torchvision_networks import BLOCKS
from msc_edge.train.weight_files import Pretrained, weights_from_file

EDGE_SMALL = "edge-small"
NAMES = (EDGE_SMALL,)

# Expansion, channels, repeats and stride of each stage (Sandler et al., arXiv 1801.04381, table 2, uses expansion 6
# throughout). The first stages take most of the time and can be narrower; the last ones hold most of the knowledge.
STAGES = [
    [1, 16, 1, 1],
    [3, 24, 2, 2],
    [4, 32, 3, 2],
    [4, 64, 4, 2],
    [4, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


def architecture(name: str) -> Architecture | None:
    """The architecture `edge-small`; None for any other name."""
    if name != EDGE_SMALL:
        return None
    return Architecture(name=name, trunk=_trunk, pretrained=_bundled_weights, blocks=BLOCKS)


def _trunk() -> Trunk:
    return OrderedDict(features=MobileNetV2(inverted_residual_setting=STAGES).features)


def _bundled_weights() -> Pretrained:
    with as_file(files("msc_edge.train.bundled") / f"{EDGE_SMALL}.safetensors") as path:
        pretrained = weights_from_file(path)
    origin = pretrained.origin.model_copy(
        update={
            "source": f"{EDGE_SMALL}, of msc-edge {__version__}",
            "licence": "Apache-2.0 (edge-small.md beside the weights)",
        }
    )
    return replace(pretrained, origin=origin)
