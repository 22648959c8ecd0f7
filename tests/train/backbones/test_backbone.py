from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from msc_edge.errors import UsageError
from msc_edge.train.backbones.backbone import Backbone, is_finite
from msc_edge.train.backbones.edge_small import EDGE_SMALL, STAGES
from msc_edge.train.backbones.registry import backbone_names, build_backbone
from msc_edge.train.backbones.torchvision_networks import NAMES as TORCHVISION
from msc_edge.train.weights import load_into

NARROWER = {
    "mobilenet_v2_x0.5": ("mobilenet_v2", {"width_mult": 0.5}),
    "mobilenet_v2_x0.25": ("mobilenet_v2", {"width_mult": 0.25}),
    "resnet50_x0.5": ("resnet50", {"width_per_group": 32}),
    EDGE_SMALL: ("mobilenet_v2", {"inverted_residual_setting": STAGES}),
}
# One of each family; the others differ in size only.
QUICK = {"edge-small", "resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "mobilenet_v2_x0.25"}
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in (*TORCHVISION, *NARROWER)]


def images(batch: int = 2, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def torchvision_network(name: str, randomise: Callable) -> nn.Module:
    family, widths = NARROWER.get(name, (name, {}))
    with torch.device("meta"):  # without initial values: those of large networks take seconds
        network = torchvision.models.get_model(family, weights=None, **widths).eval()
    randomise(network.to_empty(device="cpu"), 1)
    return network


def features(network: nn.Module, stage: str, of: Tensor) -> Tensor:
    """The output of a stage of torchvision's network, averaged over the image."""
    with torch.no_grad():
        return create_feature_extractor(network, {stage: "stage"})(of)["stage"].mean(dim=(2, 3))


def backbone_features(backbone: Backbone, network: nn.Module, of: Tensor) -> Tensor:
    load_into(backbone, network.state_dict(), source="torchvision")
    with torch.no_grad():
        return backbone(of)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_the_input_of_the_head_of_torchvisions_network(name: str, randomise: Callable) -> None:
    network = torchvision_network(name, randomise)
    with torch.device("meta"):
        backbone = build_backbone(name)
    backbone.to_empty(device="cpu")
    assert set(backbone.state_dict()) <= set(network.state_dict())
    result = backbone_features(backbone, network, images())
    head = "fc" if hasattr(network, "fc") else "classifier"
    setattr(network, head, nn.Identity())
    with torch.no_grad():
        expected = network(images())
    assert float(expected.std()) > 0
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("resnet18", "layer2.0"),
        ("mobilenet_v3_small", "features.4"),
    ],
)
def test_stop_at_gives_the_features_of_that_stage(
    name: str, stage: str, randomise: Callable, structure: Callable
) -> None:
    network, backbone = torchvision_network(name, randomise), build_backbone(name, stop_at=stage)
    assert set(backbone.state_dict()) <= set(network.state_dict())
    expected = features(network, stage, images())
    torch.testing.assert_close(backbone_features(backbone, network, images()), expected, rtol=1e-4, atol=1e-5)
    assert len(backbone.state_dict()) < len(structure(name).state_dict())


def test_backbones_are_in_eval_mode(structure: Callable) -> None:
    assert not any(module.training for module in structure("mobilenet_v3_small").modules())


@pytest.mark.parametrize(
    "name", ["resnet19", "resnet18_x0.5", "mobilenet_v2_x0.01", "mobilenet_v2_x2", "mobilenet_v2_x", "edge-small_x0.5"]
)
def test_the_error_for_an_unknown_backbone_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=f"^backbone {name}: unknown") as refused:
        build_backbone(name)
    assert all(name in str(refused.value) for name in (*backbone_names(), "mobilenet_v2_x0.5", "resnet50_x0.5"))


def test_narrower_networks_are_smaller(structure: Callable) -> None:
    def parameters(name: str) -> int:
        return sum(parameter.numel() for parameter in structure(name).parameters())

    assert parameters("mobilenet_v2") > parameters("mobilenet_v2_x0.75") > parameters("mobilenet_v2_x0.5")
    assert parameters("resnet50_x0.5") < 0.6 * parameters("resnet50")
    assert parameters("edge-small") * 2 < 5e6  # bytes, as float16


def test_edge_small_has_the_feature_maps_of_mobilenet_v2() -> None:
    edge_small, mobilenet = build_backbone("edge-small"), build_backbone("mobilenet_v2")
    with torch.no_grad():
        one = other = images()
        for (_, our_module), (_, their_module) in zip(edge_small.chain(), mobilenet.chain(), strict=True):
            one, other = our_module(one), their_module(other)
            assert one.shape == other.shape


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_chain_contains_the_whole_backbone(name: str, randomise: Callable) -> None:
    backbone = build_backbone(name)
    randomise(backbone, 0)
    with torch.no_grad():
        features = images()
        for _, module in backbone.chain():
            features = module(features)
        torch.testing.assert_close(features.mean(dim=(2, 3)), backbone(images()))


@pytest.mark.parametrize(
    ("name", "stage", "choices"),
    [
        ("resnet18", "layer5", ["layer1", "layer2", "layer3", "layer4"]),
        ("resnet18", "layer1.7", ["layer1", "layer4"]),
        ("resnet18", "relu.0", ["layer1", "layer4"]),
        ("resnet18", "", ["layer1", "layer4"]),
        ("mobilenet_v2", "features.19", ["features.0", "features.18"]),
        ("mobilenet_v2", "classifier", ["features.0", "features.18"]),
    ],
)
def test_the_error_for_an_unknown_stage_lists_the_known_ones(
    name: str, stage: str, choices: list[str], structure: Callable
) -> None:
    for use in (lambda: structure(name, stage), lambda: structure(name).freeze_up_to(stage)):
        with pytest.raises(UsageError, match=f"^stage {stage}: unknown; choose one of") as refused:
            use()
        assert all(choice in str(refused.value) for choice in choices)


@pytest.mark.parametrize(
    ("name", "stage", "frozen"),
    [
        ("resnet18", "layer2", ("conv1.", "bn1.", "layer1.", "layer2.")),
        ("resnet18", "conv1", ("conv1.",)),
        ("resnet18", "layer1.0", ("conv1.", "bn1.", "layer1.0.")),
        ("mobilenet_v3_small", "features.1", ("features.0.", "features.1.")),  # not features.10 to 12
        ("mobilenet_v3_small", "features", ("features.",)),
    ],
)
def test_freeze_up_to_freezes_exactly_the_parameters_up_to_the_stage(
    name: str, stage: str, frozen: tuple[str, ...], structure: Callable
) -> None:
    backbone = structure(name)
    backbone.freeze_up_to(stage)
    for key, parameter in backbone.named_parameters():
        assert parameter.requires_grad != key.startswith(frozen), key


@pytest.mark.parametrize("key", ["features.0.0.weight", "features.0.1.bias", "features.0.1.running_var"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_single_value_that_is_not_finite_is_detected(key: str, value: float) -> None:
    backbone = build_backbone("mobilenet_v2", stop_at="features.0")
    assert is_finite(backbone)
    backbone.state_dict()[key].view(-1)[-1] = value
    assert not is_finite(backbone)
