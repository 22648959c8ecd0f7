import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from msc_edge.errors import UsageError
from msc_edge.preprocessing import PresetName
from msc_edge.train.backbones import build_backbone
from msc_edge.train.checkpoint_selection import held_out_for_selection
from msc_edge.train.losses.mean_shifted import mean_shifted_loss
from msc_edge.train.recipes import FineTuning, RecipeName, center_of, fine_tuning, recipe_loss


def unit_rows(seed: int, rows: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def test_centre_is_the_mean_in_v2_and_its_direction_in_v1() -> None:
    embeddings = unit_rows(0, 30, 12)
    mean = np.mean(embeddings.numpy(), axis=0)
    assert np.linalg.norm(mean) < 0.9
    np.testing.assert_allclose(center_of(embeddings, "v2"), mean, atol=1e-12)
    np.testing.assert_allclose(center_of(embeddings, "v1"), mean / np.linalg.norm(mean), atol=1e-12)


def test_v2_is_the_mean_shifted_loss_and_v1_adds_four_minus_twice_the_cosines() -> None:
    first, second, normals = unit_rows(1, 8, 12), unit_rows(2, 8, 12), unit_rows(3, 20, 12)
    raw, unit = center_of(normals, "v2"), center_of(normals, "v1")
    angular = 4 - 2 * float((first @ unit).mean() + (second @ unit).mean())
    for temperature in (0.25, 1.0):
        shifted_raw = float(mean_shifted_loss(first, second, raw, temperature=temperature))
        shifted_unit = float(mean_shifted_loss(first, second, unit, temperature=temperature))
        v2 = float(recipe_loss("v2", first, second, raw, temperature=temperature))
        v1 = float(recipe_loss("v1", first, second, unit, temperature=temperature))
        assert v2 == pytest.approx(shifted_raw, abs=1e-10)
        assert v1 == pytest.approx(shifted_unit + angular, abs=1e-10)


@pytest.mark.parametrize(
    ("recipe", "backbone", "images", "steps", "frozen"),
    [
        ("v2", "resnet152", 5000, 20 * 78, "layer2"),  # 20 epochs of 78 full batches
        ("v1", "resnet152", 5000, 100 * 78, "layer2"),  # 100 epochs
        ("v2", "resnet18", 640, 20 * 10, None),
        ("v1", "resnet18", 64, 100, None),
        ("v2", "mobilenet_v2", 70, 20, None),
    ],
)
def test_paper_preset_has_the_settings_of_the_paper(
    recipe: RecipeName, backbone: str, images: int, steps: int, frozen: str | None
) -> None:
    settings = fine_tuning("paper", backbone=build_backbone(backbone), images=images, recipe=recipe)
    assert settings == FineTuning(
        recipe=recipe,
        steps=steps,
        batch=64,
        learning_rate=1e-5,
        weight_decay=5e-5,
        temperature=0.25,
        frozen_up_to=frozen,
        precision="fp32",
        seed=0,
    )


@pytest.mark.parametrize("preset", ["paper", "whole-frame"])
def test_what_is_given_wins_over_the_preset(preset: PresetName) -> None:
    settings = fine_tuning(
        preset,
        backbone=build_backbone("resnet152"),
        images=500,
        recipe="v1",
        steps=3,
        batch=7,
        learning_rate=0.5,
        frozen_up_to="layer3",
        precision="bf16",
        seed=9,
    )
    given = (settings.steps, settings.batch, settings.learning_rate, settings.frozen_up_to, settings.seed)
    assert given == (3, 7, 0.5, "layer3", 9)
    assert (settings.recipe, settings.precision) == ("v1", "bf16")


@pytest.mark.parametrize("preset", ["paper", "whole-frame"])
def test_no_steps_are_a_choice_and_not_an_absent_one(preset: PresetName) -> None:
    assert fine_tuning(preset, backbone=build_backbone("resnet18"), images=500, steps=0).steps == 0


@pytest.mark.parametrize("images", [2, 63, 64, 70, 71, 72])
@pytest.mark.parametrize("preset", ["paper", "whole-frame"])
def test_a_batch_never_holds_more_images_than_there_are(preset: PresetName, images: int) -> None:
    settings = fine_tuning(preset, backbone=build_backbone("resnet18"), images=images)
    held_out = len(held_out_for_selection(images)) if settings.steps and settings.select == "synthetic" else 0
    assert settings.batch <= min(64, images - held_out)
    # The paper counts epochs, whatever the set; the product leaves a backbone alone that no batch can teach.
    assert (settings.steps > 0) == (preset == "paper" or images >= 71)  # of 71, 64 are trained on


def test_steps_that_are_asked_for_are_made_however_few_the_images() -> None:
    settings = fine_tuning("whole-frame", backbone=build_backbone("resnet18"), images=5, steps=7)
    assert (settings.steps, settings.batch) == (7, 5)


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"batch": 0}, {"learning_rate": float("nan")}, {"learning_rate": 0}, {"lr": 1e-4}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict) -> None:
    right = fine_tuning("whole-frame", backbone=build_backbone("resnet18"), images=100).model_dump()
    with pytest.raises(ValidationError):
        FineTuning(**{**right, **wrong})


@pytest.mark.parametrize(
    ("given", "preset", "recipe", "images", "select"),
    [
        (None, "whole-frame", "v2", 100, "synthetic"),
        (None, "whole-frame", "v1", 100, "synthetic"),
        (None, "whole-frame", "contrastive", 100, "last"),
        (None, "paper", "v2", 100, "last"),
        (None, "whole-frame", "v2", 63, "last"),
        ("last", "whole-frame", "v2", 100, "last"),
        ("synthetic", "paper", "v2", 100, "synthetic"),
        ("synthetic", "whole-frame", "v2", 40, "synthetic"),
    ],
)
def test_the_last_step_is_the_papers_and_the_product_chooses(given, preset, recipe, images, select) -> None:
    backbone = build_backbone("resnet18")
    settings = fine_tuning(preset, backbone=backbone, images=images, recipe=recipe, steps=4, select=given)
    assert settings.select == select


def test_too_few_images_to_choose_by_are_refused() -> None:
    with pytest.raises(UsageError, match="--select synthetic: 10 images are too few"):
        fine_tuning("whole-frame", backbone=build_backbone("resnet18"), images=10, select="synthetic")


@pytest.mark.parametrize(
    ("backbone", "stop_at", "given", "frozen"),
    [
        ("resnet18", None, None, "layer2"),
        ("mobilenet_v2", None, None, "features.6"),
        ("edge-small", None, None, "features.6"),
        ("mobilenet_v3_small", None, None, "features.3"),
        ("efficientnet_b0", None, None, "features.3"),
        ("resnet18", "layer2", None, None),  # nothing would be left to train
        ("resnet18", None, "none", None),
        ("resnet18", None, "layer1", "layer1"),
    ],
)
def test_the_first_stages_stay_as_they_are_up_to_stride_8(
    backbone: str, stop_at: str | None, given: str | None, frozen: str | None
) -> None:
    built = build_backbone(backbone, stop_at=stop_at)
    settings = fine_tuning("whole-frame", backbone=built, images=100, frozen_up_to=given)
    assert settings.frozen_up_to == frozen
    if frozen:
        built.freeze_up_to(frozen)
        assert any(parameter.requires_grad for parameter in built.parameters())
