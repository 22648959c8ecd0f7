from functools import cache

import numpy as np
import pytest

from msc_edge.demo.parts import DEFECTS, KINDS, SIDE, Defect, Kind, draw_part

SEEDS = (1, 2, 5)


@cache
def drawn(kind: Kind, seed: int, defect: Defect | None = None) -> np.ndarray:
    return draw_part(kind, np.random.default_rng(seed), defect)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("defect", [None, *DEFECTS])
def test_every_part_can_have_every_defect(kind: Kind, defect: Defect | None) -> None:
    image = drawn(kind, 1, defect)
    assert image.shape == (SIDE, SIDE, 3)
    assert image.dtype == np.uint8
    assert not np.array_equal(image, drawn(kind, 1 if defect else 2))


@pytest.mark.parametrize(("kind", "defect"), [*((kind, None) for kind in KINDS), *(("card", each) for each in DEFECTS)])
def test_the_same_generator_gives_the_same_image(kind: Kind, defect: Defect | None) -> None:
    assert np.array_equal(drawn(kind, 1, defect), draw_part(kind, np.random.default_rng(1), defect))


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_is_too_dark_or_too_bright_to_show_its_part(kind: Kind) -> None:
    for seed in SEEDS:
        image = drawn(kind, seed)
        middle = image[60:196, 60:196]
        assert (image >= 254).mean() < 0.02
        assert middle.mean() > image[:10].mean() + 30  # the part is brighter than the belt


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("defect", ["scratch", "dent", "stain"])
def test_damage_is_local(kind: Kind, defect: Defect) -> None:
    # The damage is drawn after the part and before the light: the part itself is the same.
    normal, damaged = (drawn(kind, 1, each).astype(float) for each in (None, defect))
    assert np.abs(normal.mean() - damaged.mean()) < 12
    assert np.corrcoef(normal.ravel(), damaged.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("kind", ["flange", "plate"])
def test_a_missing_hole_is_filled(kind: Kind) -> None:
    def dark_pixels(defect: Defect | None) -> float:
        return float(np.mean([(drawn(kind, seed, defect)[40:216, 30:226].mean(axis=2) < 60).sum() for seed in SEEDS]))

    assert dark_pixels("missing_hole") < dark_pixels(None) - 100
