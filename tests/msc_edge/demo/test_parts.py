import numpy as np
import pytest

from msc_edge.demo.parts import DEFECTS, KINDS, SIDE, Defect, Kind, draw_part


def drawn(kind: Kind, seed: int, defect: Defect | None = None) -> np.ndarray:
    return draw_part(kind, np.random.default_rng(seed), defect)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("defect", [None, *DEFECTS])
def test_every_part_can_have_every_defect_and_is_a_function_of_the_generator(kind: Kind, defect: Defect | None) -> None:
    one, same, other = (drawn(kind, seed, defect) for seed in (1, 1, 2))
    assert one.shape == (SIDE, SIDE, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_is_too_dark_or_too_bright_to_see_its_part(kind: Kind) -> None:
    for seed in range(5):
        image = drawn(kind, seed)
        middle = image[60:196, 60:196]
        assert (image >= 254).mean() < 0.02
        assert middle.mean() > image[:10].mean() + 30  # the part stands out from the belt


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("defect", ["scratch", "dent", "stain"])
def test_damage_is_local(kind: Kind, defect: Defect) -> None:
    # The generator is asked for the damage after the part and before the light: all but the damage is the same part.
    good, bad = (drawn(kind, 5, each).astype(float) for each in (None, defect))
    assert np.abs(good.mean() - bad.mean()) < 12
    assert np.corrcoef(good.ravel(), bad.ravel())[0, 1] > 0.8


def test_a_missing_hole_is_filled() -> None:
    def dark(image: np.ndarray) -> int:
        middle = image[40:216, 30:226].mean(axis=2)
        return int((middle < 60).sum())

    for kind in ("flange", "plate"):
        good, bad = (np.mean([dark(drawn(kind, seed, each)) for seed in range(6)]) for each in (None, "missing_hole"))
        assert bad < good - 100, kind
