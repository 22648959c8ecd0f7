from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from msc_edge.errors import UsageError
from msc_edge.train.backbones import BACKBONES, Backbone, build_backbone, is_finite, whole_network
from msc_edge.train.weights import load_into

LARGE = {"resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2", "efficientnet_b3", "efficientnet_b4"}
NARROWER = ("mobilenet_v2_x0.5", "mobilenet_v2_x0.25", "resnet50_x0.5")
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in (*BACKBONES, *NARROWER)]


def images(batch: int = 2, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def torchvisions_own(name: str, randomise: Callable) -> nn.Module:
    network = whole_network(name).eval()
    randomise(network, 1)
    return network


def features(network: nn.Module, stage: str, of: Tensor) -> Tensor:
    """What torchvision's network computes at a stage, averaged over the image."""
    with torch.no_grad():
        return create_feature_extractor(network, {stage: "stage"})(of)["stage"].mean(dim=(2, 3))


def ours(backbone: Backbone, network: nn.Module, of: Tensor) -> Tensor:
    load_into(backbone, network.state_dict(), source="torchvision")
    with torch.no_grad():
        return backbone(of)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_what_torchvisions_network_gives_to_its_head(name: str, randomise: Callable) -> None:
    network, backbone = torchvisions_own(name, randomise), build_backbone(name)
    assert set(backbone.state_dict()) <= set(network.state_dict())
    result = ours(backbone, network, images())
    head = "fc" if hasattr(network, "fc") else "classifier"
    setattr(network, head, nn.Identity())
    with torch.no_grad():
        expected = network(images())
    assert float(expected.std()) > 0
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("resnet18", "conv1"),
        ("resnet18", "layer1"),
        ("resnet18", "layer2.0"),
        ("resnet18", "layer4"),
        ("resnet50", "layer3"),
        ("mobilenet_v2", "features.13"),
        ("mobilenet_v3_small", "features.0"),
        ("mobilenet_v3_small", "features.4"),
        ("efficientnet_b0", "features.3"),
    ],
)
def test_stopping_at_a_stage_gives_the_features_of_that_stage(name: str, stage: str, randomise: Callable) -> None:
    network, backbone = torchvisions_own(name, randomise), build_backbone(name, stop_at=stage)
    assert set(backbone.state_dict()) <= set(network.state_dict())
    expected = features(network, stage, images())
    torch.testing.assert_close(ours(backbone, network, images()), expected, rtol=1e-4, atol=1e-5)
    assert len(backbone.state_dict()) < len(build_backbone(name).state_dict()) or stage == "layer4"


def test_backbones_are_built_for_evaluation() -> None:
    assert not any(module.training for module in build_backbone("mobilenet_v3_small").modules())


@pytest.mark.parametrize(
    "name", ["resnet19", "resnet18_x0.5", "mobilenet_v2_x0.01", "mobilenet_v2_x2", "mobilenet_v2_x", "edge-small_x0.5"]
)
def test_an_unknown_backbone_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=f"--backbone {name}: not known") as refused:
        build_backbone(name)
    assert all(name in str(refused.value) for name in (*BACKBONES, "mobilenet_v2_x0.5", "resnet50_x0.5"))


def parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in build_backbone(name).parameters())


def test_narrower_networks_are_smaller() -> None:
    assert parameters("mobilenet_v2") > parameters("mobilenet_v2_x0.75") > parameters("mobilenet_v2_x0.5")
    assert parameters("resnet50_x0.5") < 0.6 * parameters("resnet50")
    assert parameters("edge-small") * 2 < 5e6  # bytes, as float16


def test_edge_small_leaves_the_stream_of_mobilenet_v2_as_wide_as_it_is() -> None:
    ours, theirs = build_backbone("edge-small"), build_backbone("mobilenet_v2")
    with torch.no_grad():
        one = other = images()
        for (_, our_step), (_, their_step) in zip(ours.chain(), theirs.chain(), strict=True):
            one, other = our_step(one), their_step(other)
            assert one.shape == other.shape


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_the_chain_is_the_whole_backbone(name: str, randomise: Callable) -> None:
    backbone = build_backbone(name)
    randomise(backbone, 0)
    with torch.no_grad():
        features = images()
        for _, step in backbone.chain():
            features = step(features)
        torch.testing.assert_close(features.mean(dim=(2, 3)), backbone(images()))


@pytest.mark.parametrize(
    ("name", "stage", "choices"),
    [
        ("resnet18", "layer5", ["layer1", "layer2", "layer3", "layer4"]),
        ("resnet18", "fc", ["layer1", "layer4"]),
        ("resnet18", "layer1.7", ["layer1", "layer4"]),
        ("resnet18", "relu.0", ["layer1", "layer4"]),
        ("resnet18", "", ["layer1", "layer4"]),
        ("mobilenet_v2", "features.19", ["features.0", "features.18"]),
        ("mobilenet_v2", "layer2", ["features.0", "features.18"]),
        ("mobilenet_v2", "features.-1", ["features.0", "features.18"]),
        ("mobilenet_v3_small", "classifier", ["features.0", "features.12"]),
    ],
)
def test_an_unknown_stage_is_refused_with_the_stages_there_are(name: str, stage: str, choices: list[str]) -> None:
    with pytest.raises(UsageError, match="--stop-at") as refused:
        build_backbone(name, stop_at=stage)
    assert all(choice in str(refused.value) for choice in choices)
    with pytest.raises(UsageError, match="--freeze-to") as refused:
        build_backbone(name).freeze_up_to(stage)
    assert all(choice in str(refused.value) for choice in choices)


@pytest.mark.parametrize(
    ("name", "stage", "frozen"),
    [
        ("resnet18", "layer2", ("conv1.", "bn1.", "layer1.", "layer2.")),
        ("resnet18", "conv1", ("conv1.",)),
        ("resnet18", "layer1.0", ("conv1.", "bn1.", "layer1.0.")),
        ("mobilenet_v3_small", "features.1", ("features.0.", "features.1.")),  # and not features.10 to 12
        ("mobilenet_v3_small", "features", ("features.",)),
    ],
)
def test_freezing_up_to_a_stage_freezes_exactly_the_parameters_up_to_it(
    name: str, stage: str, frozen: tuple[str, ...]
) -> None:
    backbone = build_backbone(name)
    backbone.freeze_up_to(stage)
    for key, parameter in backbone.named_parameters():
        assert parameter.requires_grad != key.startswith(frozen), key


@pytest.mark.parametrize("key", ["features.0.0.weight", "features.0.1.bias", "features.0.1.running_var"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_value_that_is_not_finite_is_seen(key: str, value: float) -> None:
    backbone = build_backbone("mobilenet_v2", stop_at="features.0")
    assert is_finite(backbone)
    backbone.state_dict()[key].view(-1)[-1] = value
    assert not is_finite(backbone)
