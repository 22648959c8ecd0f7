"""Each figure against its definition, written out as loops, and against scikit-learn's own where it has one."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from msc_edge.runtime.tools.evaluate.evaluation import score_labelled
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.runtime.tools.evaluate.metrics import METRICS, tpr_at, with_intervals

# Few different values, so that good and defective parts tie; and any values at all.
SCORES = st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.3]), st.floats(0, 2))
GROUP = st.lists(SCORES, min_size=1, max_size=25)


def together(good: list[float], bad: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0, 1], [len(good), len(bad)]), np.array([*good, *bad])


def cuts(good: list[float], bad: list[float]) -> list[tuple[int, int]]:
    """At every threshold that makes a difference: good parts flagged, defective ones caught."""
    return [
        (sum(score >= cut for score in good), sum(score >= cut for score in bad))
        for cut in sorted({*good, *bad, math.inf}, reverse=True)
    ]


def auroc_by_pairs(good: list[float], bad: list[float]) -> float:
    pairs = [1.0 if b > g else 0.5 if b == g else 0.0 for g, b in itertools.product(good, bad)]
    return sum(pairs) / len(pairs)


def average_precision_by_cuts(good: list[float], bad: list[float]) -> float:
    total, caught_before = 0.0, 0
    for flagged, caught in cuts(good, bad):
        if caught > caught_before:
            total += (caught - caught_before) / len(bad) * caught / (caught + flagged)
        caught_before = caught
    return total


def tpr_by_cuts(good: list[float], bad: list[float], *, percent: int) -> float:
    return max(caught / len(bad) for flagged, caught in cuts(good, bad) if 100 * flagged <= percent * len(good))


def best_f1_by_cuts(good: list[float], bad: list[float]) -> float:
    return max(2 * caught / (caught + flagged + len(bad)) for flagged, caught in cuts(good, bad))


ORACLES = {
    "auroc": auroc_by_pairs,
    "average_precision": average_precision_by_cuts,
    "tpr_at_1_fpr": lambda good, bad: tpr_by_cuts(good, bad, percent=1),
    "tpr_at_5_fpr": lambda good, bad: tpr_by_cuts(good, bad, percent=5),
    "best_f1": best_f1_by_cuts,
}


def test_every_figure_has_an_oracle():
    assert set(ORACLES) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60, deadline=None)
@given(good=GROUP, bad=GROUP)
def test_a_figure_is_what_its_definition_says(name, good, bad):
    assert METRICS[name].of(*together(good, bad)) == pytest.approx(ORACLES[name](good, bad), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(good=st.lists(SCORES, min_size=90, max_size=210), bad=GROUP)
def test_the_share_of_good_parts_flagged_is_met_to_the_image(good, bad):
    """With 100 and 200 good parts one and two may be flagged at 1 %, and not one fewer."""
    for percent in (1, 5):
        assert tpr_at(percent / 100, *together(good, bad)) == tpr_by_cuts(good, bad, percent=percent)


@settings(max_examples=60, deadline=None)
@given(good=GROUP, bad=GROUP)
def test_figures_are_those_of_scikit_learn(good, bad):
    truth, scores = together(good, bad)
    assert METRICS["auroc"].of(truth, scores) == roc_auc_score(truth, scores)
    assert METRICS["average_precision"].of(truth, scores) == average_precision_score(truth, scores)
    best = max(f1_score(truth, scores >= cut) for cut in scores)
    assert METRICS["best_f1"].of(truth, scores) == pytest.approx(best, abs=1e-12)


def test_figures_of_a_kit_are_those_of_scikit_learn(detector, dataset):
    read, _ = score_labelled(detector, labelled_dataset(dataset).images)
    truth, scores = np.array([each.image.is_defect for each in read], int), np.array([each.score for each in read])
    figures = with_intervals(truth, scores, resamples=2)
    assert figures["auroc"].value == roc_auc_score(truth, scores)
    assert figures["average_precision"].value == average_precision_score(truth, scores)
    good, bad = scores[truth == 0].tolist(), scores[truth == 1].tolist()
    for name, oracle in ORACLES.items():
        assert figures[name].value == pytest.approx(oracle(good, bad), abs=1e-12)


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        ([0.1, 0.2], [0.3], {"auroc": 1, "average_precision": 1, "tpr_at_1_fpr": 1, "tpr_at_5_fpr": 1, "best_f1": 1}),
        (
            [0.5],
            [0.5],
            {"auroc": 0.5, "average_precision": 0.5, "tpr_at_1_fpr": 0, "tpr_at_5_fpr": 0, "best_f1": 2 / 3},
        ),
        ([0.9], [0.1], {"auroc": 0, "average_precision": 0.5, "tpr_at_1_fpr": 0, "tpr_at_5_fpr": 0, "best_f1": 2 / 3}),
    ],
    ids=["apart", "all equal", "the wrong way round"],
)
def test_the_ends_are_known(good, bad, expected):
    assert {name: figure.of(*together(good, bad)) for name, figure in METRICS.items()} == pytest.approx(expected)


class TestIntervals:
    def test_a_seed_gives_them_again_and_another_one_does_not(self):
        random = np.random.default_rng(1)
        truth, scores = together(random.normal(0, 1, 30).tolist(), random.normal(1, 1, 30).tolist())
        first, again, other = (with_intervals(truth, scores, resamples=20, seed=seed) for seed in (3, 3, 4))
        assert first == again
        assert first != other
        assert {name: each.value for name, each in first.items()} == {name: each.value for name, each in other.items()}

    def test_they_do_not_depend_on_scale(self):
        truth, scores = together([0.1, 0.2, 0.4], [0.3, 0.5])
        assert with_intervals(truth, scores, resamples=30) == with_intervals(truth, 100 * scores + 7, resamples=30)

    def test_a_point_where_all_resamples_agree(self):
        truth, scores = together([0.1], [0.2])
        assert {(each.low, each.value, each.high) for each in with_intervals(truth, scores, resamples=5).values()} == {
            (1, 1, 1)
        }

    def test_each_resample_has_as_many_of_each_truth(self):
        """Were they drawn together, a resample without the only defective image would have no AUROC."""
        truth, scores = together([0.1] * 50, [0.2])
        assert with_intervals(truth, scores, resamples=50)["auroc"].low == 1

    def test_they_hold_the_true_value_about_as_often_as_they_say(self):
        """Two normal distributions a standard deviation apart have the AUROC Phi(1 / sqrt 2) = 0.760.

        60 times 95 % is 57, give or take 1.7; with 40 images a side and few resamples percentile intervals are
        known to hold somewhat less. 60 of 60 by intervals that are far too wide is ruled out by their width: the
        standard error is known (Hanley & McNeil 1982), and they are 2 times 1.96 of it.
        """
        random = np.random.default_rng(0)
        true = 0.5 * (1 + math.erf(0.5))
        figure, held, widths, n = {"auroc": METRICS["auroc"]}, 0, [], 40
        for seed in range(60):
            truth, scores = together(random.normal(0, 1, n).tolist(), random.normal(1, 1, n).tolist())
            interval = with_intervals(truth, scores, figures=figure, resamples=120, seed=seed)["auroc"]
            held += interval.low <= true <= interval.high
            widths.append(interval.high - interval.low)
        assert 51 <= held <= 60
        both_bad, both_good = true / (2 - true), 2 * true**2 / (1 + true)
        variance = (true * (1 - true) + (n - 1) * (both_bad + both_good - 2 * true**2)) / n**2
        assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.15)


def test_an_interval_holds_its_figure_even_where_resamples_have_other_ties():
    truth, scores = np.repeat([0, 1], 12), np.arange(24.0)[::-1]  # every good part is stranger than every defective one
    for interval in with_intervals(truth, scores, resamples=50).values():
        assert interval.low <= interval.value <= interval.high
