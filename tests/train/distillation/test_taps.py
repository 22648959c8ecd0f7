from collections.abc import Callable

import pytest
import torch
from torch import nn

from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.taps import StudentWithAdapters, features_and_maps, taps_of


@pytest.mark.parametrize(
    ("student", "teacher", "stop_at", "names"),
    [
        ("edge-small", "mobilenet_v2", None, [("features.6", "features.6"), ("features.13", "features.13")]),
        ("edge-small", "resnet18", None, [("features.6", "layer2.1"), ("features.13", "layer3.1")]),
        ("resnet18", "resnet34", "layer3", [("layer2.1", "layer2.3"), ("layer3.1", "layer3.5")]),
        ("mobilenet_v3_small", "resnet18", "layer2", [("features.3", "layer2.1")]),
        ("resnet18", "resnet18", "layer1", []),
    ],
)
def test_the_taps_are_the_last_maps_at_strides_8_and_16_of_both_networks(
    student: str, teacher: str, stop_at: str | None, names: list[tuple[str, str]], structure: Callable
) -> None:
    one, other = structure(student), structure(teacher, stop_at)
    taps = taps_of(one, other)
    ours, theirs = ([name for name, _ in backbone.chain()] for backbone in (one, other))
    assert [(ours[tap.student], theirs[tap.teacher]) for tap in taps] == names


@pytest.mark.parametrize("side", [32, 97])
def test_the_maps_of_the_student_have_the_shape_of_the_teachers(side: int) -> None:
    student, teacher = build_backbone("mobilenet_v3_small"), build_backbone("resnet18")
    taps = taps_of(student, teacher)
    pixels = torch.zeros(2, 3, side, side)
    with torch.no_grad():
        _, ours = StudentWithAdapters(student, taps)(pixels)
        _, theirs = features_and_maps(teacher, pixels, [tap.teacher for tap in taps])
    assert len(ours) == 2
    assert [found.shape for found in ours] == [found.shape for found in theirs]


def test_features_equal_those_of_the_backbone(randomise: Callable) -> None:
    backbone = build_backbone("resnet18")
    randomise(backbone, 0)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, maps = features_and_maps(backbone, pixels, [0])
        torch.testing.assert_close(features, backbone(pixels))
        torch.testing.assert_close(maps[0], next(backbone.chain())[1](pixels))


def test_channels_are_adapted_only_where_they_differ(structure: Callable) -> None:
    equal, different = structure("mobilenet_v2"), structure("resnet18")
    student = structure("edge-small")
    assert all(
        isinstance(adapter, nn.Identity) for adapter in StudentWithAdapters(student, taps_of(student, equal)).adapters
    )
    assert all(
        isinstance(adapter, nn.Conv2d) for adapter in StudentWithAdapters(student, taps_of(student, different)).adapters
    )
