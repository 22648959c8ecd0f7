import numpy as np
import pytest
from pydantic import ValidationError

from msc_edge.scoring import MapSettings, Scale, Scoring

MAP = MapSettings(smoothing=0.5, least_area=16)
IMAGES = np.array([0.1, 0.2, 0.3])  # mean 0.2, standard deviation 0.1
PATCHES = np.array([1.0, 2.0, 3.0])  # mean 2, standard deviation 1


def test_both_is_the_larger_one_in_standard_deviations() -> None:
    scoring = Scoring.fitted("both", IMAGES, PATCHES, MAP)
    assert scoring.score(0.5, 2.0) == pytest.approx(3)  # 3 deviations as a whole, 0 by its patches
    assert scoring.score(0.2, 6.0) == pytest.approx(4)
    assert scoring.score(0.1, 1.0) == pytest.approx(-1)


def test_both_does_not_depend_on_the_units_of_its_parts() -> None:
    one, other = Scoring.fitted("both", IMAGES, PATCHES, MAP), Scoring.fitted("both", 5 * IMAGES, PATCHES / 7, MAP)
    for image, patch in zip(IMAGES, reversed(PATCHES), strict=True):
        assert one.score(image, patch) == pytest.approx(other.score(5 * image, patch / 7))


def test_alone_each_score_stays_as_it_is() -> None:
    assert Scoring().score(0.25, None) == 0.25
    assert Scoring.fitted("patch", IMAGES, PATCHES, MAP).score(0.25, 1.5) == 1.5


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5, 0.5], [0.5, 0.5001]])
def test_a_deviation_is_at_least_a_hundredth_of_the_mean(scores: list[float]) -> None:
    assert Scale.of(np.array(scores)).deviation == pytest.approx(0.005, rel=1e-3)


def test_scores_that_are_all_zero_have_a_scale() -> None:
    assert Scale.of(np.zeros(4)).standardised(1e-6) > 0


@pytest.mark.parametrize(
    "parts",
    [
        {"kind": "both", "map": MAP},
        {"kind": "both", "image": Scale.of(IMAGES), "map": MAP},
        {"kind": "patch"},
        {"kind": "image", "map": MAP},
        {"kind": "image", "image": Scale.of(IMAGES), "patch": Scale.of(PATCHES)},
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict) -> None:
    with pytest.raises(ValidationError):
        Scoring(**parts)
