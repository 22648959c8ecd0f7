from collections.abc import Callable

import pytest
import torch
from torch import nn

from msc_edge.train.backbones.registry import backbone_names, build_backbone
from msc_edge.train.folding import folded

# One of each family; the others differ in size only.
QUICK = {"resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_lite0"}
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in backbone_names()]


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_backbone_is_the_same_function_without_batch_norm(name: str, randomise: Callable) -> None:
    with torch.device("meta"):  # without initial values: those of large networks take seconds
        backbone = build_backbone(name)
    randomise(backbone.to_empty(device="cpu"), 0)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    without_batch_norm = folded(backbone)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected, found = (
            torch.nn.functional.normalize(network(pixels), dim=1) for network in (backbone, without_batch_norm)
        )
    assert expected.std() > 1e-4
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in without_batch_norm.modules())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_batch_norm_without_a_convolution_before_it_stays() -> None:
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2)).eval()
    network[1].running_mean += 3  # pyright: ignore[reportOperatorIssue]
    pixels = torch.rand(1, 2, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(pixels), network(pixels))
