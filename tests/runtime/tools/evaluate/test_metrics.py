"""Each metric compared with its definition, written as loops, and with scikit-learn's own where it has one."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from msc_edge.runtime.batch import score_images
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.runtime.tools.evaluate.metrics import METRICS, Metric, tpr_at, with_intervals

DOCS = Path(__file__).parents[4] / "docs"

# A few values, so that normal and anomalous images tie; and any values.
SCORES = st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.3]), st.floats(0, 2))
GROUP = st.lists(SCORES, min_size=1, max_size=25)


def together(normal: list[float], anomalous: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0, 1], [len(normal), len(anomalous)]), np.array([*normal, *anomalous])


def cuts(normal: list[float], anomalous: list[float]) -> list[tuple[int, int]]:
    """At every threshold that makes a difference: normal images flagged, anomalous images found."""
    return [
        (sum(score >= cut for score in normal), sum(score >= cut for score in anomalous))
        for cut in sorted({*normal, *anomalous, math.inf}, reverse=True)
    ]


def auroc_by_pairs(normal: list[float], anomalous: list[float]) -> float:
    pairs = [1.0 if b > g else 0.5 if b == g else 0.0 for g, b in itertools.product(normal, anomalous)]
    return sum(pairs) / len(pairs)


def average_precision_by_cuts(normal: list[float], anomalous: list[float]) -> float:
    total, found_before = 0.0, 0
    for flagged, found in cuts(normal, anomalous):
        if found > found_before:
            total += (found - found_before) / len(anomalous) * found / (found + flagged)
        found_before = found
    return total


def tpr_by_cuts(normal: list[float], anomalous: list[float], *, percent: int) -> float:
    return max(
        found / len(anomalous) for flagged, found in cuts(normal, anomalous) if 100 * flagged <= percent * len(normal)
    )


def best_f1_by_cuts(normal: list[float], anomalous: list[float]) -> float:
    return max(2 * found / (found + flagged + len(anomalous)) for flagged, found in cuts(normal, anomalous))


ORACLES = {
    "auroc": auroc_by_pairs,
    "average_precision": average_precision_by_cuts,
    "tpr_at_1_fpr": lambda normal, anomalous: tpr_by_cuts(normal, anomalous, percent=1),
    "tpr_at_5_fpr": lambda normal, anomalous: tpr_by_cuts(normal, anomalous, percent=5),
    "best_f1": best_f1_by_cuts,
}


@pytest.mark.parametrize("page", ["integrate.md", "studio.md"])
def test_docs_name_each_metric_as_reports_and_the_studio_do(page):
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert [metric.title for metric in METRICS.values() if metric.title not in text] == []


def test_every_metric_has_an_oracle():
    assert set(ORACLES) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=40, deadline=None)
@given(normal=GROUP, anomalous=GROUP)
def test_a_metric_follows_its_definition(name, normal, anomalous):
    assert METRICS[name].compute(*together(normal, anomalous)) == pytest.approx(
        ORACLES[name](normal, anomalous), abs=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(normal=st.lists(SCORES, min_size=90, max_size=210), anomalous=GROUP)
def test_the_share_of_normal_images_flagged_is_exact(normal, anomalous):
    """Of 100 and 200 normal images exactly one and two may be flagged at 1 %."""
    for percent in (1, 5):
        assert tpr_at(percent / 100, *together(normal, anomalous)) == tpr_by_cuts(normal, anomalous, percent=percent)


@settings(max_examples=30, deadline=None)
@given(normal=GROUP, anomalous=GROUP)
def test_metrics_are_those_of_scikit_learn(normal, anomalous):
    truth, scores = together(normal, anomalous)
    assert METRICS["auroc"].compute(truth, scores) == roc_auc_score(truth, scores)
    assert METRICS["average_precision"].compute(truth, scores) == average_precision_score(truth, scores)
    best = max(f1_score(truth, scores >= cut) for cut in set(scores))
    assert METRICS["best_f1"].compute(truth, scores) == pytest.approx(best, abs=1e-12)


def test_metrics_of_a_kit_are_those_of_scikit_learn(detector, dataset):
    labelled = labelled_dataset(dataset).images
    images = score_images(detector, [each.path for each in labelled])
    scores = np.array([image.result.score for image in images if image.result])
    truth = np.array([each.is_anomalous for each in labelled], int)
    metrics = with_intervals(truth, scores, resamples=2)
    assert metrics["auroc"].value == roc_auc_score(truth, scores)
    assert metrics["average_precision"].value == average_precision_score(truth, scores)
    normal, anomalous = scores[truth == 0].tolist(), scores[truth == 1].tolist()
    for name, oracle in ORACLES.items():
        assert metrics[name].value == pytest.approx(oracle(normal, anomalous), abs=1e-12)


@pytest.mark.parametrize(
    ("normal", "anomalous", "expected"),
    [
        ([0.1, 0.2], [0.3], {"auroc": 1, "average_precision": 1, "tpr_at_1_fpr": 1, "tpr_at_5_fpr": 1, "best_f1": 1}),
        (
            [0.5],
            [0.5],
            {"auroc": 0.5, "average_precision": 0.5, "tpr_at_1_fpr": 0, "tpr_at_5_fpr": 0, "best_f1": 2 / 3},
        ),
        ([0.9], [0.1], {"auroc": 0, "average_precision": 0.5, "tpr_at_1_fpr": 0, "tpr_at_5_fpr": 0, "best_f1": 2 / 3}),
    ],
    ids=["separated", "all equal", "reversed"],
)
def test_the_extremes_are_known(normal, anomalous, expected):
    assert {name: metric.compute(*together(normal, anomalous)) for name, metric in METRICS.items()} == pytest.approx(
        expected
    )


def mean_difference(truth: np.ndarray, scores: np.ndarray) -> float:
    """A metric that is cheap to compute."""
    return float(scores[truth == 1].mean() - scores[truth == 0].mean())


def auroc_of_all_pairs(truth: np.ndarray, scores: np.ndarray) -> float:
    """The AUROC of scores without ties; scikit-learn takes fifty times as long for a few images."""
    return float((scores[truth == 1][:, None] > scores[truth == 0]).mean())


class TestIntervals:
    def test_a_seed_gives_the_same_intervals_and_another_seed_others(self):
        random = np.random.default_rng(1)
        truth, scores = together(random.normal(0, 1, 30).tolist(), random.normal(1, 1, 30).tolist())
        first, again, other = (with_intervals(truth, scores, resamples=20, seed=seed) for seed in (3, 3, 4))
        assert first == again
        assert first != other
        assert {name: each.value for name, each in first.items()} == {name: each.value for name, each in other.items()}

    def test_they_do_not_depend_on_the_scale_of_the_scores(self):
        truth, scores = together([0.1, 0.2, 0.4], [0.3, 0.5])
        assert with_intervals(truth, scores, resamples=30) == with_intervals(truth, 100 * scores + 7, resamples=30)

    def test_they_are_a_point_where_all_resamples_agree(self):
        truth, scores = together([0.1], [0.2])
        assert {(each.low, each.value, each.high) for each in with_intervals(truth, scores, resamples=5).values()} == {
            (1, 1, 1)
        }

    def test_each_resample_has_as_many_normal_and_anomalous_images(self):
        """Drawn together, a resample without the only anomalous image would have no AUROC."""
        truth, scores = together([0.1] * 50, [0.2])
        assert with_intervals(truth, scores, resamples=50)["auroc"].low == 1

    def test_progress_is_reported_for_each_resample(self):
        steps = []

        def report(task: str, done: int, total: int, note: str = "") -> None:
            steps.append((task, done, total, note))

        metrics = {"mean": Metric("mean", "", mean_difference)}
        with_intervals(*together([0.1, 0.3], [0.2]), metrics=metrics, resamples=4, report=report)
        assert steps == [("resampling", done, 4, "") for done in range(1, 5)]

    def test_they_hold_the_true_value_about_as_often_as_they_state(self):
        """Two normal distributions one standard deviation apart have the AUROC Phi(1 / sqrt 2) = 0.760.

        60 times 95 % is 57, with a standard deviation of 1.7; with 40 images a side and few resamples percentile
        intervals hold the value slightly less often. Intervals that are far too wide would hold it 60 times; they are
        ruled out by their width: the standard error is known (Hanley & McNeil 1982), the width is 2 times 1.96 of it.
        """
        random = np.random.default_rng(0)
        true = 0.5 * (1 + math.erf(0.5))
        metrics, held, widths, n = {"auroc": Metric("AUROC", "", auroc_of_all_pairs)}, 0, [], 40
        for seed in range(60):
            truth, scores = together(random.normal(0, 1, n).tolist(), random.normal(1, 1, n).tolist())
            interval = with_intervals(truth, scores, metrics=metrics, resamples=120, seed=seed)["auroc"]
            assert interval.value == pytest.approx(METRICS["auroc"].compute(truth, scores))
            held += interval.low <= true <= interval.high
            widths.append(interval.high - interval.low)
        assert 51 <= held <= 60
        both_anomalous, both_normal = true / (2 - true), 2 * true**2 / (1 + true)
        variance = (true * (1 - true) + (n - 1) * (both_anomalous + both_normal - 2 * true**2)) / n**2
        assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.15)

    def test_they_hold_their_value_although_resamples_have_other_ties(self):
        truth, scores = np.repeat([0, 1], 12), np.arange(24.0)[::-1]  # every normal image scores above every anomalous
        for interval in with_intervals(truth, scores, resamples=50).values():
            assert interval.low <= interval.value <= interval.high
