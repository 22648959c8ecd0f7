import pytest
import torch

from msc_edge.train.distillation.crops import StepDraws, batch_of, make_crops, sides_of
from msc_edge.train.views import make_views

CPU = torch.device("cpu")
IMAGES = [
    torch.randint(0, 256, (3, 40 + seed, 60), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    for seed in range(8)
]


def drawn(step: int = 0, seed: int = 0) -> tuple[list[int], StepDraws]:
    return batch_of(step, images=len(IMAGES), batch=8, image_size=64, seed=seed)


@pytest.mark.parametrize(
    ("image_size", "sides"), [(224, [128, 160, 192, 224]), (112, [64, 96, 112]), (64, [32, 64]), (32, [32])]
)
def test_sides_are_the_image_size_and_smaller_multiples_of_32(image_size: int, sides: list[int]) -> None:
    assert sides_of(image_size) == sides


def test_the_draws_of_a_step_depend_on_the_seed_and_the_step_only() -> None:
    def crops(step: int, seed: int) -> torch.Tensor:
        chosen, draws = drawn(step, seed)
        return make_crops([IMAGES[i] for i in chosen], draws, slice(0, 8), device=CPU)

    assert torch.equal(crops(3, 1), crops(3, 1))
    sums = {float(crops(step, seed).double().sum()) for step in range(3) for seed in range(3)}
    assert len(sums) == 9


def test_every_side_is_drawn() -> None:
    assert {batch_of(step, images=8, batch=8, image_size=224, seed=0)[1].side for step in range(60)} == {*sides_of(224)}


@pytest.mark.parametrize("part", [slice(0, 4), slice(4, 8), slice(2, 4)])
def test_the_part_of_a_rank_equals_that_part_of_the_batch(part: slice) -> None:
    _, draws = drawn()
    whole = make_crops(IMAGES, draws, slice(0, 8), device=CPU)
    assert torch.equal(make_crops(IMAGES[part], draws, part, device=CPU), whole[part])


def test_a_crop_is_blended_with_the_other_crop_of_its_pair() -> None:
    _, draws = drawn()
    blend = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.0, 0.0, 0.1, 0.4])
    views = make_views(IMAGES, draws.views, size=draws.side, device=CPU)
    crops = make_crops(IMAGES, StepDraws(draws.views, blend, draws.side), slice(0, 8), device=CPU)
    for i in range(8):
        other = views[i + 1 if i % 2 == 0 else i - 1]
        torch.testing.assert_close(crops[i], (1 - blend[i]) * views[i] + blend[i] * other)


def test_half_of_the_crops_are_blended_with_up_to_half_of_the_other() -> None:
    blends = torch.cat([batch_of(step, images=8, batch=8, image_size=32, seed=0)[1].blend for step in range(500)])
    assert float((blends > 0).float().mean()) == pytest.approx(0.5, abs=0.035)
    assert float(blends.max()) < 0.5
    assert float(blends[blends > 0].mean()) == pytest.approx(0.25, abs=0.015)
