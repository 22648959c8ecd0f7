"""Fast convolutions, compared with torch's own in float64."""

import math
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from msc_edge.train.backbones.efficientnet_lite import SamePaddingConv2d
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.fast_convolutions import FastConvolutions

_CHANNELS, _SIDE, _BATCH = 24, 15, 4


def gradients_of(convolution: nn.Conv2d, features: Tensor, outgoing: Tensor, mode: str) -> list[Tensor]:
    """The output, and the gradients of features and weight: in float64, in bf16, or in bf16 with the context."""
    exact = mode == "float64"
    layer = SamePaddingConv2d if isinstance(convolution, SamePaddingConv2d) else nn.Conv2d
    copy = layer(
        _CHANNELS,
        _CHANNELS,
        convolution.kernel_size[0],
        stride=convolution.stride[0],
        padding=convolution.padding[0],
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    copy.load_state_dict(convolution.state_dict())
    copy.to(torch.float64 if exact else torch.float32)
    inside = features.to(torch.float64 if exact else torch.float32).contiguous(memory_format=torch.channels_last)
    inside.requires_grad_()
    if exact:
        out = copy(inside)
    elif mode == "bf16":
        with torch.autocast("cpu", torch.bfloat16):
            out = copy(inside)
    else:
        with torch.autocast("cpu", torch.bfloat16), FastConvolutions(copy):
            out = copy(inside)
    out.backward(outgoing[..., : out.shape[-2], : out.shape[-1]].to(out.dtype))
    assert inside.grad is not None
    assert copy.weight.grad is not None
    return [out.detach(), inside.grad, copy.weight.grad]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("same_padding", [False, True])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [_CHANNELS, 1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_those_of_bf16_and_gradients_are_no_less_exact(same_padding, kernel, stride, groups, bias):
    torch.manual_seed(kernel)
    padding = {} if same_padding else {"padding": kernel // 2}
    layer = SamePaddingConv2d if same_padding else nn.Conv2d
    convolution = layer(_CHANNELS, _CHANNELS, kernel, stride=stride, groups=groups, bias=bias, **padding)
    with torch.no_grad():  # values that bf16 holds: only the arithmetic differs
        for parameter in convolution.parameters():
            parameter.copy_(parameter.bfloat16())
    features = torch.randn(_BATCH, _CHANNELS, _SIDE, _SIDE).bfloat16()
    outgoing = torch.randn(_BATCH, _CHANNELS, _SIDE, _SIDE).bfloat16()
    exact, plain, fast = (
        gradients_of(convolution, features, outgoing, mode) for mode in ("float64", "bf16", "fast gradients")
    )
    assert torch.equal(fast[0], plain[0])
    for found, in_bf16, expected in zip(fast[1:], plain[1:], exact[1:], strict=True):
        assert found.shape == expected.shape
        assert error(found, expected) < max(1.2 * error(in_bf16, expected), 1e-6)
        assert error(found, expected) < 1e-2  # processors that emulate bf16 round more often: 6e-3


def test_only_gradients_that_are_slow_in_bf16_change():
    """In fp32, without gradients, and for 3 x 3 kernels without a stride torch's own function is called."""
    features = torch.randn(2, _CHANNELS, 9, 9, requires_grad=True)
    large = nn.Conv2d(_CHANNELS, _CHANNELS, 5, groups=_CHANNELS, bias=False)
    small = nn.Conv2d(_CHANNELS, _CHANNELS, 3, groups=_CHANNELS, bias=False)
    with FastConvolutions(nn.Identity()):
        assert "Convolution" in large(features).grad_fn.name()
        with torch.autocast("cpu", torch.bfloat16):
            assert "_Depthwise" in large(features).grad_fn.name()
            assert "Convolution" in small(features).grad_fn.name()
            with torch.no_grad():
                assert large(features).grad_fn is None


def test_a_convolution_that_does_not_train_has_torchs_own_gradients():
    features = torch.randn(2, _CHANNELS, 9, 9, requires_grad=True)
    frozen = nn.Conv2d(_CHANNELS, _CHANNELS, 5, groups=_CHANNELS, bias=False).requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16), FastConvolutions(nn.Identity()):
        assert "Convolution" in frozen(features).grad_fn.name()


def features_and_gradients(network: nn.Module, images: Tensor, mode: str) -> dict[str, Tensor]:
    """Features, and the gradient of a function of them by each weight: in float64, or in fp32 with the context."""
    network.zero_grad()
    if mode == "float64":
        features = network(images)
    else:
        with FastConvolutions(network):
            features = network(images)
    features.double().square().sum().backward()
    gradients = {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
    return {"features": features.detach(), **gradients}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "edge-small", "efficientnet_lite0", "edge-small-2"])
def test_a_network_with_folded_batch_norm_has_the_same_gradients(
    name: str, randomise: Callable[[nn.Module, int], None]
) -> None:
    backbone = build_backbone(name).eval()
    randomise(backbone, 0)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = features_and_gradients(backbone, images, "fp32")
    exact = features_and_gradients(backbone.double(), images.double(), "float64")
    assert set(found) == set(exact)
    assert len(found) > 20
    for key, expected in exact.items():
        assert error(found[key], expected) < 1e-4, key


def test_batch_norm_that_learns_its_statistics_is_not_folded() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train()
    images = torch.randn(4, 3, 12, 12)
    with FastConvolutions(network):
        fast = network(images)
    assert network[1].num_batches_tracked == 1
    assert torch.equal(fast, network(images))


def test_a_batch_norm_elsewhere_is_an_error() -> None:
    class Detour(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            return self.norm(self.convolution(images) + images)

    network = Detour().eval()
    with pytest.raises(AssertionError, match="did not follow"), FastConvolutions(network):
        network(torch.randn(1, 3, 4, 4))


_SPECIAL = (0.0, -0.0, 1e-40, -1e-40, 5.96875, 6.0, 6.03125, 1e38, -1e38, math.inf, -math.inf)


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.ReLU6(inplace=True), nn.ReLU(), nn.ReLU(inplace=True)])
@pytest.mark.parametrize("trains", [True, False])
def test_relu_of_bf16_is_that_of_torch_with_its_gradient(activation: nn.Module, trains: bool) -> None:
    values = torch.cat([torch.tensor(_SPECIAL), 6 * torch.randn(1000)]).bfloat16()
    outgoing = torch.randn(len(values)).bfloat16()
    found = []
    for context in (nullcontext(), FastConvolutions(nn.Identity())):
        given = values.clone().requires_grad_(trains)
        with context:
            out = activation(given * 1)
        if trains:
            out.backward(outgoing)
        found.append((out.detach(), given.grad))
    assert torch.equal(found[1][0], found[0][0])
    assert found[1][1] is found[0][1] is None or torch.equal(found[1][1], found[0][1])


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf])
def test_weights_that_are_not_finite_show_in_the_features(value: float) -> None:
    network = nn.Sequential(first := nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        first.weight[0, 0] = value
        with torch.autocast("cpu", torch.bfloat16), FastConvolutions(network):
            found = network(torch.zeros(1, 3, 4, 4))
    assert not found.isfinite().all()
