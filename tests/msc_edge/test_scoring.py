import numpy as np
import pytest
from pydantic import ValidationError

from msc_edge.scoring import MapSettings, Scale, Scoring, Standard, calibration_scores

MAP = MapSettings(smoothing=0.5, least_area=16)
IMAGES = np.array([0.1, 0.2, 0.3])  # mean 0.2, standard deviation 0.1
PATCHES = np.array([1.0, 2.0, 3.0])  # mean 2, standard deviation 1
STANDARD = Standard.of_images(IMAGES, PATCHES)


def test_both_is_the_larger_one_in_standard_deviations() -> None:
    scoring = Scoring.fitted("both", STANDARD, MAP)
    assert scoring.score(0.5, 2.0) == pytest.approx(3)  # 3 deviations as a whole, 0 by its patches
    assert scoring.score(0.2, 6.0) == pytest.approx(4)
    assert scoring.score(0.1, 1.0) == pytest.approx(-1)


@pytest.mark.parametrize(("image", "patch", "part"), [(0.5, 2.0, "image"), (0.2, 6.0, "patch"), (0.1, 1.5, "patch")])
def test_the_deciding_score_is_the_one_that_the_score_equals(image: float, patch: float, part: str) -> None:
    scoring = Scoring.fitted("both", STANDARD, MAP)
    assert scoring.deciding_score(image, patch) == part
    other = {"image": (image, -100.0), "patch": (-100.0, patch)}[part]  # without the other part
    assert scoring.score(image, patch) == scoring.score(*other)
    assert Scoring().deciding_score(0.25, None) == "image"
    assert Scoring.fitted("patch", None, MAP).deciding_score(0.25, 1.5) == "patch"


def test_both_does_not_depend_on_the_units_of_its_parts() -> None:
    one, other = (
        Scoring.fitted("both", Standard.of_images(*parts), MAP)
        for parts in ((IMAGES, PATCHES), (5 * IMAGES, PATCHES / 7))
    )
    for image, patch in zip(IMAGES, reversed(PATCHES), strict=True):
        assert one.score(image, patch) == pytest.approx(other.score(5 * image, patch / 7))


def test_alone_each_score_stays_as_it_is() -> None:
    assert Scoring().score(0.25, None) == 0.25
    assert Scoring.fitted("patch", None, MAP).score(0.25, 1.5) == 1.5


def test_each_calibration_image_is_standardised_by_the_others() -> None:
    images, patches = np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, 2.0, 3.0, 2.0])
    scores = calibration_scores("both", images, patches, Standard.of_images(images, patches), MAP)
    assert scores[3] == pytest.approx(7)  # the others have mean 0.2 and standard deviation 0.1
    assert (calibration_scores("image", images, None, None, None) == images).all()
    assert (calibration_scores("patch", images, patches, None, MAP) == patches).all()
    one = Standard.of_images(images[:1], patches[:1])
    assert calibration_scores("both", images[:1], patches[:1], one, MAP) == pytest.approx([0])


def test_a_calibration_image_is_standardised_without_its_own_copies() -> None:
    """Four images; the second has two copies, the fourth one."""
    images, patches = np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, 2.0, 3.0, 2.0])
    standard = Standard(np.array([0.1, 0.3, 9.0]), np.array([1.0, 3.0, 9.0]), np.array([1, 1, 3]))
    scores = calibration_scores("both", images, patches, standard, MAP)
    by_all = Scoring.fitted("both", standard, MAP)
    assert scores[[0, 2]] == pytest.approx([by_all.score(0.1, 1.0), by_all.score(0.3, 3.0)])
    assert scores[3] == pytest.approx(max((0.9 - 0.2) / np.std([0.1, 0.3], ddof=1), 0))
    assert scores[1] == pytest.approx(Scoring.fitted("both", standard.without(1), MAP).score(0.2, 2.0))


def test_the_mean_score_of_the_calibration_images_is_zero_and_their_order_stays() -> None:
    images, patches = np.array([0.1, 0.12, 0.15, 0.11]), np.array([1.0, 1.2, 0.9, 1.4])
    plain = Standard.of_images(IMAGES, PATCHES)
    centred = plain.from_zero(images, patches)
    before, after = (
        np.array([Scoring.fitted("both", each, MAP).score(*one) for one in zip(images, patches, strict=True)])
        for each in (plain, centred)
    )
    assert before.max() < 0
    assert after.mean() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(after - before, centred.offset)
    scores = calibration_scores("both", images, patches, Standard(IMAGES, PATCHES, np.array([9, 9, 9]), 2.0), MAP)
    np.testing.assert_allclose(scores, before + 2)


def test_a_score_that_harmless_changes_move_far_counts_less() -> None:
    calm, moved = IMAGES, 0.2 + 10 * (IMAGES - 0.2)
    of_calm, of_moved = (Scoring.fitted("both", Standard.of_images(each, PATCHES), MAP) for each in (calm, moved))
    assert of_calm.score(0.5, 3.5) == pytest.approx(3)
    assert of_moved.score(0.5, 3.5) == pytest.approx(1.5), "the patches decide"
    assert (of_calm.deciding_score(0.5, 3.5), of_moved.deciding_score(0.5, 3.5)) == ("image", "patch")


@pytest.mark.parametrize("count", [6, 30])
def test_new_normal_images_are_rejected_no_more_often_than_expected(count: int) -> None:
    rng = np.random.default_rng(0)
    rejected, trials = 0, 12_000 // count
    for _ in range(trials):
        images, patches = np.exp(rng.normal(size=(2, count + 1)) * [[0.3], [0.1]])
        standard = Standard.of_images(images[:-1], patches[:-1])
        # The expected rate is 1 / (count + 1).
        limit = calibration_scores("both", images[:-1], patches[:-1], standard, MAP).max()
        new = Scoring.fitted("both", standard, MAP).score(images[-1], patches[-1])
        rejected += new > limit
    expected = trials / (count + 1)
    # Three standard errors. Standardised by all images, 6 of them would reject 1.6 times the expected number.
    assert 0.5 * expected < rejected < expected + 3 * np.sqrt(expected)


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
