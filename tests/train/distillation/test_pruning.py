from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.losses import embedding_loss, spread_of_embeddings
from msc_edge.train.distillation.pruning import initialise_pruned, is_pruned_version
from msc_edge.train.weight_files import weights_from_file
from msc_edge.train.weights import load_into


def images(seed: int, batch: int = 8, side: int = 64) -> Tensor:
    """Normalised images with large and small structures."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return smooth + 0.3 * torch.randn(batch, 3, side, side, generator=generator)


@pytest.fixture(scope="module")
def cached(structure: Callable) -> Callable[..., Backbone]:
    return cache(structure)


@pytest.fixture
def teacher(randomise: Callable) -> Backbone:
    backbone = build_backbone("mobilenet_v2")
    randomise(backbone, 0)
    return backbone


def blocks(one: Backbone, other: Backbone) -> list[tuple[Any, Any]]:
    return [(ours, theirs) for (_, ours), (_, theirs) in zip(one.chain(), other.chain(), strict=True)]


def unexplained(student: Backbone, teacher: Backbone) -> float:
    with torch.no_grad():
        ours, theirs = (torch.nn.functional.normalize(net(images(9, 32)), dim=1) for net in (student, teacher))
    return float(embedding_loss(ours, theirs, spread=spread_of_embeddings(theirs)))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ("edge-small", "mobilenet_v2", True),
        ("mobilenet_v2", "mobilenet_v2", True),  # a copy
        ("mobilenet_v2", "edge-small", False),
        ("mobilenet_v2_x0.5", "mobilenet_v2", False),  # narrower between the blocks, too
        ("resnet18", "resnet18", False),
        ("edge-small", "resnet18", False),
        ("mobilenet_v3_small", "mobilenet_v3_large", False),
    ],
)
def test_only_the_hidden_channels_can_differ(student: str, teacher: str, expected: bool, cached: Callable) -> None:
    assert is_pruned_version(cached(student), cached(teacher)) == expected


def test_a_complete_student_is_not_a_pruned_version_of_a_cut_teacher(cached: Callable) -> None:
    assert not is_pruned_version(cached("edge-small"), cached("mobilenet_v2", "features.13"))


def test_channels_without_influence_are_pruned_without_changing_the_teacher(teacher: Backbone) -> None:
    student = build_backbone("edge-small")
    generator = torch.Generator().manual_seed(3)
    for ours, theirs in blocks(student, teacher):
        if hasattr(theirs, "conv") and len(theirs.conv) == 4:
            hidden, kept = theirs.conv[2].weight.shape[1], ours.conv[2].weight.shape[1]
            silent = torch.randperm(hidden, generator=generator)[kept:]
            theirs.conv[2].weight.data[:, silent] = 0
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    initialise_pruned(student, teacher, [images(seed, batch=64, side=32) for seed in range(2)])
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    with torch.no_grad():
        ours, theirs = (backbone(images(9, 32, side=32)) for backbone in (student, teacher))
    # Equal up to the ridge of the least squares, over seventeen blocks.
    assert float((ours - theirs).norm() / theirs.norm()) < 0.06


def test_a_student_of_the_same_widths_is_a_copy(teacher: Backbone) -> None:
    student = build_backbone("mobilenet_v2")
    initialise_pruned(student, teacher, [images(0, side=32)])
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in student.state_dict().items())


def test_least_squares_reduce_the_error_of_pruning_a_real_network(real_weights: Path) -> None:
    teacher = build_backbone("mobilenet_v2")
    load_into(teacher, weights_from_file(real_weights).state, source="real")
    fitted, cut = build_backbone("edge-small"), build_backbone("edge-small")
    initialise_pruned(fitted, teacher, [images(seed, batch=16) for seed in range(2)])
    cut.load_state_dict(fitted.state_dict())
    for ours, theirs in blocks(cut, teacher):
        if hasattr(theirs, "conv") and len(theirs.conv) == 4:
            # The same channels, with the teacher's own projection.
            kept = [
                int((theirs.conv[0][0].weight - weight).abs().sum(dim=(1, 2, 3)).argmin())
                for weight in ours.conv[0][0].weight
            ]
            ours.conv[2].weight.data = theirs.conv[2].weight.data[:, kept]
            ours.conv[3].load_state_dict(theirs.conv[3].state_dict())
    assert unexplained(fitted, teacher) < 0.7 * unexplained(cut, teacher)
