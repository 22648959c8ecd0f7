from collections.abc import Callable
from functools import cache

import pytest
from pydantic import ValidationError

from msc_edge.errors import UsageError
from msc_edge.preprocessing import PresetName
from msc_edge.scoring import ScoreKind
from msc_edge.train.checkpoint_selection import held_out_for_selection
from msc_edge.train.options import FineTuningOptions, Select
from msc_edge.train.settings import FineTuning, fine_tuning


@pytest.fixture(scope="module")
def complete(structure: Callable) -> Callable[..., FineTuning]:
    """Complete options for a number of images."""
    backbone_of = cache(structure)

    def complete(
        images: int,
        *,
        backbone: str = "resnet18",
        stop_at: str | None = None,
        recipe: str = "v2",
        scores: ScoreKind = "image",
        seed: int = 0,
        **options,
    ) -> FineTuning:
        return fine_tuning(
            FineTuningOptions(**{"dtype": "fp32", **options}),
            backbone=backbone_of(backbone, stop_at),
            images=images,
            recipe=recipe,
            scores=scores,
            seed=seed,
        )

    return complete


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
def test_the_paper_preset_has_the_settings_of_the_paper(
    recipe: str, backbone: str, images: int, steps: int, frozen: str | None, complete: Callable
) -> None:
    assert complete(images, preset="paper", backbone=backbone, recipe=recipe) == FineTuning(
        recipe=recipe,
        steps=steps,
        batch=64,
        learning_rate=1e-5,
        weight_decay=5e-5,
        temperature=0.25,
        frozen_up_to=frozen,
        dtype="fp32",
        seed=0,
    )


@pytest.mark.parametrize("preset", ["paper", "whole-frame"])
def test_options_override_the_preset(preset: PresetName, complete: Callable) -> None:
    settings = complete(
        500,
        preset=preset,
        backbone="resnet152",
        recipe="v1",
        steps=3,
        batch=7,
        learning_rate=0.5,
        frozen_up_to="layer3",
        dtype="bf16",
        seed=9,
    )
    given = (settings.steps, settings.batch, settings.learning_rate, settings.frozen_up_to, settings.seed)
    assert given == (3, 7, 0.5, "layer3", 9)
    assert (settings.recipe, settings.dtype) == ("v1", "bf16")


def test_an_automatic_dtype_is_resolved(complete: Callable) -> None:
    assert complete(500, accelerator="cpu", dtype="auto").dtype in ("fp32", "bf16")


@pytest.mark.parametrize("preset", ["paper", "whole-frame"])
def test_zero_steps_are_not_replaced_by_the_default(preset: PresetName, complete: Callable) -> None:
    assert complete(500, preset=preset, steps=0).steps == 0


@pytest.mark.parametrize("images", [2, 63, 64, 70, 71, 72])
@pytest.mark.parametrize("preset", ["paper", "whole-frame"])
def test_a_batch_has_at_most_as_many_images_as_there_are(preset: PresetName, images: int, complete: Callable) -> None:
    settings = complete(images, preset=preset)
    held_out = len(held_out_for_selection(images)) if settings.steps and settings.select == "synthetic" else 0
    assert settings.batch <= min(64, images - held_out)
    # The paper trains epochs, on any number of images; the product does not train on less than one batch.
    assert (settings.steps > 0) == (preset == "paper" or images >= 71)  # of 71, 64 are trained on


def test_given_steps_are_trained_with_few_images_too(complete: Callable) -> None:
    settings = complete(5, steps=7)
    assert (settings.steps, settings.batch) == (7, 5)


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"batch": 0}, {"learning_rate": float("nan")}, {"learning_rate": 0}, {"lr": 1e-4}]
)
def test_invalid_settings_are_refused(wrong: dict, complete: Callable) -> None:
    with pytest.raises(ValidationError):
        FineTuning(**{**complete(100).model_dump(), **wrong})


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
def test_the_paper_uses_the_last_step_and_the_product_selects(
    given: Select | None, preset: PresetName, recipe: str, images: int, select: Select, complete: Callable
) -> None:
    assert complete(images, preset=preset, recipe=recipe, steps=4, select=given).select == select


def test_checkpoints_are_selected_by_the_score_of_the_kit(complete: Callable) -> None:
    assert complete(100, scores="both", steps=4).select_by == "both"
    assert complete(100, steps=4).select_by == "image"
    # Nothing is selected: a resumed run must not depend on the score.
    assert complete(100, scores="both", steps=4, select="last").select_by == "image"
    assert complete(100, scores="both", steps=0).select_by == "image"


def test_too_few_images_for_checkpoint_selection_are_refused(complete: Callable) -> None:
    with pytest.raises(UsageError, match="--select synthetic: 10 images are too few"):
        complete(10, select="synthetic")


@pytest.mark.parametrize(
    ("backbone", "stop_at", "given", "frozen"),
    [
        ("resnet18", None, None, "layer2"),
        ("mobilenet_v2", None, None, "features.6"),
        ("edge-small", None, None, "features.6"),
        ("mobilenet_v3_small", None, None, "features.3"),
        ("efficientnet_b0", None, None, "features.3"),
        ("resnet18", "layer2", None, None),  # no stage would be left to train
        ("resnet18", None, "none", None),
        ("resnet18", None, "layer1", "layer1"),
    ],
)
def test_the_stages_up_to_stride_8_are_frozen_by_default(
    backbone: str, stop_at: str | None, given: str | None, frozen: str | None, complete: Callable, structure: Callable
) -> None:
    settings = complete(100, backbone=backbone, stop_at=stop_at, frozen_up_to=given)
    assert settings.frozen_up_to == frozen
    if frozen:
        built = structure(backbone, stop_at)
        built.freeze_up_to(frozen)
        assert any(parameter.requires_grad for parameter in built.parameters())
