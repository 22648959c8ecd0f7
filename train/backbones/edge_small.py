"""`edge-small-2` and `edge-small`: networks for small CPUs, distilled for this package. It contains their weights."""

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from importlib.resources import as_file, files

from torchvision.models.mobilenetv2 import MobileNetV2

from msc_edge import __version__
from msc_edge.train.backbones.architecture import Architecture, Trunk
from msc_edge.train.backbones.efficientnet_lite import STAGES as LITE0
from msc_edge.train.backbones.efficientnet_lite import lite_architecture
from msc_edge.train.backbones.torchvision_networks import BLOCKS
from msc_edge.train.weight_files import Pretrained, weights_from_file

EDGE_SMALL = "edge-small"
EDGE_SMALL_2 = "edge-small-2"
NAMES = (EDGE_SMALL_2, EDGE_SMALL)
ABOUT = "with weights that are part of msc-edge"

# A MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2): expansion, channels, repeats and stride of each stage. Its
# expansion is 6 throughout. The first stages take most of the time and can be narrower; the last ones hold most of the
# knowledge.
STAGES = [
    [1, 16, 1, 1],
    [3, 24, 2, 2],
    [4, 32, 3, 2],
    [4, 64, 4, 2],
    [4, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
# An EfficientNet-Lite0 with other expansions, and two instead of four blocks of 192 channels.
_EXPANSIONS_2, _REPEATS_2 = (1, 3, 3, 4, 4, 4, 4), (1, 2, 2, 3, 3, 2, 1)
STAGES_2 = [
    replace(stage, expansion=expansion, repeats=repeats)
    for stage, expansion, repeats in zip(LITE0, _EXPANSIONS_2, _REPEATS_2, strict=True)
]


def architecture(name: str) -> Architecture | None:
    """The architecture `edge-small-2` or `edge-small`; None for any other name."""
    weights = partial(_bundled_weights, name)
    if name == EDGE_SMALL_2:
        return lite_architecture(name, STAGES_2, pretrained=weights)
    if name == EDGE_SMALL:
        return Architecture(name=name, trunk=_trunk, pretrained=weights, blocks=BLOCKS)
    return None


def _trunk() -> Trunk:
    return OrderedDict(features=MobileNetV2(inverted_residual_setting=STAGES).features)


def _bundled_weights(name: str) -> Pretrained:
    with as_file(files("msc_edge.train.bundled") / f"{name}.safetensors") as path:
        pretrained = weights_from_file(path)
    origin = pretrained.origin.model_copy(
        update={"source": f"{name}, of msc-edge {__version__}", "licence": f"Apache-2.0 ({name}.md beside the weights)"}
    )
    return replace(pretrained, origin=origin)
