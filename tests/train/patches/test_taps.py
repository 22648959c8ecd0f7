from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.mnasnet import _InvertedResidual  # pyright: ignore[reportPrivateUsage]

from msc_edge.errors import UsageError
from msc_edge.train.backbones.architecture import Architecture
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.patches.taps import Tap, TappedBackbone, find_taps
from msc_edge.train.torchvision_weights import weights_from_torchvision


@pytest.mark.parametrize(
    ("name", "stop_at", "expected"),
    [
        ("edge-small", None, [Tap("features.7.conv.0", 8, 128), Tap("features.14.conv.0", 16, 576)]),
        ("mobilenet_v2", None, [Tap("features.7.conv.0", 8, 192), Tap("features.14.conv.0", 16, 576)]),
        ("mobilenet_v3_small", None, [Tap("features.4.block.0", 8, 96), Tap("features.9.block.0", 16, 288)]),
        ("efficientnet_b0", None, [Tap("features.4.0.block.0", 8, 240), Tap("features.6.0.block.0", 16, 672)]),
        ("resnet18", None, [Tap("layer2.1", 8, 128), Tap("layer3.1", 16, 256)]),
        # Cut after stride 16: no block leaves it, so the last map is the tap.
        ("edge-small", "features.13", [Tap("features.7.conv.0", 8, 128), Tap("features.13", 16, 96)]),
    ],
)
def test_taps_by_backbone(name: str, stop_at: str | None, expected: list[Tap]) -> None:
    assert list(find_taps(build_backbone(name, stop_at=stop_at))) == expected


def test_a_backbone_without_a_stride_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no feature map at 1/16 of the image.*keep more stages"):
        find_taps(build_backbone("resnet18", stop_at="layer2"))
    squeezenet = Architecture(
        name="squeezenet1_1",
        trunk=lambda: OrderedDict(features=models.squeezenet1_1().features),
        pretrained=partial(weights_from_torchvision, "squeezenet1_1"),
    )
    with pytest.raises(UsageError, match="no feature map at 1/8 of the image, which patch embeddings need; pass"):
        find_taps(Backbone(squeezenet))


def test_the_layers_of_a_block_may_be_flat_or_nested() -> None:
    """The blocks of MNASNet hold convolutions, norms and activations side by side, those of MobileNetV2 nested."""
    mnasnet = Architecture(
        name="mnasnet1_0",
        trunk=lambda: OrderedDict(layers=models.mnasnet1_0().layers[:-3]),
        pretrained=partial(weights_from_torchvision, "mnasnet1_0"),
        blocks={_InvertedResidual: "layers"},
    )
    backbone = Backbone(mnasnet)
    taps = find_taps(backbone)
    assert [(tap.stride, tap.channels) for tap in taps] == [(8, 240), (16, 576)]
    for tap in taps:
        assert isinstance(backbone.get_submodule(tap.module), nn.ReLU)


@pytest.mark.parametrize("name", ["edge-small", "resnet18"])
@pytest.mark.parametrize("side", [64, 72])
def test_maps_have_the_stated_size_and_features_stay(name: str, side: int) -> None:
    backbone = build_backbone(name)
    images = torch.randn(2, 3, side, side)
    taps = find_taps(backbone)
    expected = backbone(images)
    features, maps = TappedBackbone(backbone, taps)(images)
    assert torch.equal(features, expected)
    assert [tuple(each.shape) for each in maps] == [
        (2, tap.channels, -(-side // tap.stride), -(-side // tap.stride)) for tap in taps
    ]
