import pytest
import torch

from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.networks import accept_images_of
from msc_edge.train.distillation.taps import features_and_maps


@pytest.mark.parametrize("student", ["edge-small", "efficientnet_lite0"])
def test_a_teacher_of_other_statistics_sees_the_same_pixels(student: str) -> None:
    teacher = build_backbone("efficientnet_lite0")
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def normalised_for(backbone: Backbone) -> torch.Tensor:
        mean, std = (
            torch.tensor(each).view(1, 3, 1, 1) for each in (backbone.architecture.mean, backbone.architecture.std)
        )
        return (pixels - mean) / std

    with torch.no_grad():
        expected, expected_maps = features_and_maps(teacher, normalised_for(teacher), [4])
        accept_images_of(build_backbone(student), teacher)
        found, maps = features_and_maps(teacher, normalised_for(build_backbone(student)), [4])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(maps, expected_maps)
