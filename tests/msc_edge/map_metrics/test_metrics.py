"""Metrics of anomaly maps: brute force over all thresholds, closed forms, invariances, bootstrap, memory."""

import itertools
import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import precision_recall_curve, roc_auc_score

from msc_edge.map_metrics.curves import Estimate
from msc_edge.map_metrics.metrics import GroupMetrics, MapEvaluation, MapMetrics

few = settings(max_examples=15, deadline=None, derandomize=True)
AREAS = ("pixel_auroc", "au_pro_30", "au_pro_5", "aupimo")


@dataclass(frozen=True)
class Image:
    anomaly_map: np.ndarray
    mask: np.ndarray | None = None
    group: str = ""

    @property
    def truth(self) -> np.ndarray:
        return np.zeros(self.anomaly_map.shape, dtype=bool) if self.mask is None else self.mask


def evaluate(images: Sequence[Image], *, seed: int = 0, resamples: int = 20) -> MapMetrics:
    evaluation = MapEvaluation(seed=seed, resamples=resamples)
    for image in images:
        evaluation.add(image.anomaly_map, image.mask, image.group)
    return evaluation.result()


def random_images(seed: int = 0, *, normal: int = 4, anomalous: int = 5, quantised: bool = False) -> list[Image]:
    """Images of different sizes; the masks have one to four regions of different sizes, the classes are "a" and "b"."""
    random = np.random.default_rng(seed)
    images = []
    for number in range(normal + anomalous):
        height, width = random.integers(10, 18, 2)
        anomaly_map = random.gamma(2, 1, (height, width)).astype(np.float32)
        mask = None
        if number >= normal:
            mask = np.zeros((height, width), dtype=bool)
            for _ in range(random.integers(1, 5)):
                y, x = random.integers(0, 8, 2)
                mask[y : y + random.integers(1, 5), x : x + random.integers(1, 5)] = True
            anomaly_map[mask] += np.float32(random.gamma(2, 2))
        if quantised:
            anomaly_map = quantise(anomaly_map)
        images.append(Image(anomaly_map, mask, "" if mask is None else "ab"[number % 2]))
    return images


def quantise(values: np.ndarray) -> np.ndarray:
    """Values with 10 mantissa bits, which no bin of the evaluation merges."""
    return (values.view(np.int32) & ~0x1FFF).view(np.float32)


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


def pixels(images: Sequence[Image]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and values of all pixels."""
    return (
        np.concatenate([image.truth.ravel() for image in images]),
        np.concatenate([image.anomaly_map.ravel() for image in images]),
    )


def all_thresholds(images: Sequence[Image]) -> list[float]:
    return sorted({float(each) for image in images for each in image.anomaly_map.ravel()}, reverse=True)


def brute_force_au_pro(images: Sequence[Image], limit: float) -> float:
    """A loop over all thresholds, all images and all regions, then over the trapezoids up to the limit."""
    regions = []
    for image in images:
        labels = np.zeros(image.truth.shape, dtype=np.int32)
        ndimage.label(image.truth, structure=np.ones((3, 3)), output=labels)
        regions += [image.anomaly_map[labels == label] for label in range(1, labels.max() + 1)]
    negatives = np.concatenate([image.anomaly_map[~image.truth] for image in images])
    area, before = 0.0, (0.0, 0.0)
    for threshold in all_thresholds(images):
        point = float((negatives >= threshold).mean()), float(np.mean([(each >= threshold).mean() for each in regions]))
        if point[0] > limit:
            at_limit = before[1] + (point[1] - before[1]) * (limit - before[0]) / (point[0] - before[0])
            return (area + (limit - before[0]) * (before[1] + at_limit) / 2) / limit
        area += (point[0] - before[0]) * (before[1] + point[1]) / 2
        before = point
    raise AssertionError("the last threshold has a false-positive rate of 1")


def brute_force_aupimo(images: Sequence[Image], image: Image) -> float:
    """The mean of the recall on a fine grid of the logarithm of the false-positive rate of the normal images."""
    normal = [each.anomaly_map for each in images if each.mask is None]
    rates, recalls = [0.0], [0.0]
    for threshold in all_thresholds(images):
        rates.append(float(np.mean([(each >= threshold).mean() for each in normal])))
        recalls.append(float((image.anomaly_map[image.truth] >= threshold).mean()))
    grid = np.exp(np.linspace(math.log(1e-5), math.log(1e-4), 20001))
    return float(np.interp(grid, rates, recalls).mean())


@pytest.mark.parametrize(("quantised", "tolerance"), [(True, 1e-9), (False, 1e-3)])
@pytest.mark.parametrize("seed", range(4))
class TestBruteForce:
    def test_pixel_auroc(self, seed: int, quantised: bool, tolerance: float) -> None:
        images = random_images(seed, quantised=quantised)
        expected = roc_auc_score(*pixels(images))
        assert value(evaluate(images).overall.pixel_auroc) == pytest.approx(expected, abs=tolerance)

    def test_au_pro(self, seed: int, quantised: bool, tolerance: float) -> None:
        images = random_images(seed, quantised=quantised)
        overall = evaluate(images).overall
        assert value(overall.au_pro_30) == pytest.approx(brute_force_au_pro(images, 0.3), abs=tolerance)
        assert value(overall.au_pro_5) == pytest.approx(brute_force_au_pro(images, 0.05), abs=tolerance)

    def test_best_f1(self, seed: int, quantised: bool, tolerance: float) -> None:
        images = random_images(seed, quantised=quantised)
        truth, values = pixels(images)
        precision, recall, _ = precision_recall_curve(truth, values)
        expected = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        best = evaluate(images).overall.best_f1
        assert best is not None
        assert best.value == pytest.approx(expected, abs=5 * tolerance)  # one of some 100 pixels may change
        flagged = values >= best.threshold
        assert best.value == pytest.approx(2 * (flagged & truth).sum() / (flagged.sum() + truth.sum()), abs=1e-12)

    def test_aupimo(self, seed: int, quantised: bool, tolerance: float) -> None:
        images = random_images(seed, quantised=quantised)
        result = evaluate(images)
        assert result.image_aupimo is not None
        assert [each.index for each in result.image_aupimo] == [4, 5, 6, 7, 8]
        for each in result.image_aupimo:
            assert each.group == images[each.index].group
            expected = brute_force_aupimo(images, images[each.index])
            assert each.value == pytest.approx(expected, abs=max(tolerance, 1e-6))
        mean = np.mean([each.value for each in result.image_aupimo])
        assert value(result.overall.aupimo) == pytest.approx(mean, abs=1e-9)


def test_aupimo_between_its_bounds() -> None:
    """With 450 000 pixels in normal images of two sizes, the steps of the curve lie between 1e-5 and 1e-4.

    Without ties the curve has steps: the recall at a rate is the share above the next lower value of a normal image.
    """
    random = np.random.default_rng(5)
    normal = [random.exponential(1, size).astype(np.float32) for size in ((300, 300), (600, 300), (300, 600))]
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:35, 5:35] = True
    anomalous = np.where(mask, random.normal(10, 1, mask.shape).clip(0), 0.1).astype(np.float32)

    steps = sorted(((float(v), 1 / each.size / 3) for each in normal for v in each.ravel() if v > 7), reverse=True)
    rates = [0.0, *itertools.accumulate(step for _, step in steps)]
    expected = 0.0
    for (threshold, _), low, high in zip(steps, rates, rates[1:], strict=False):
        width = math.log(min(max(high, 1e-5), 1e-4) / min(max(low, 1e-5), 1e-4))
        expected += float((anomalous[mask] > threshold).mean()) * width / math.log(10)

    result = evaluate([*(Image(each) for each in normal), Image(anomalous, mask, "a")])
    assert 0.1 < expected < 0.9
    assert value(result.overall.aupimo) == pytest.approx(expected, abs=1e-3)
    assert result.fpr_step == pytest.approx(1 / (3 * 90_000))


class TestClosedForms:
    def test_perfect_maps(self) -> None:
        images = [replace(each, anomaly_map=each.truth.astype(np.float32)) for each in random_images()]
        overall = evaluate(images, resamples=50).overall
        for name in AREAS:
            estimate = getattr(overall, name)
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1, 1, 1), abs=1e-12)
        assert overall.best_f1 is not None
        assert (overall.best_f1.value, overall.best_f1.threshold) == (1, 1)

    def test_inverse_maps(self) -> None:
        images = [replace(each, anomaly_map=(~each.truth).astype(np.float32)) for each in random_images()]
        overall = evaluate(images).overall
        assert [value(getattr(overall, name)) for name in AREAS] == [0, 0, 0, 0]
        truth, _ = pixels(images)
        assert overall.best_f1 is not None  # all pixels flagged: precision is the share of anomalous pixels
        assert overall.best_f1.value == pytest.approx(2 * truth.mean() / (1 + truth.mean()))
        assert overall.best_f1.threshold == 0

    @pytest.mark.parametrize("constant", [0.0, -0.0, 1e-42, 0.3, 3.4e38])
    def test_constant_maps(self, constant: float) -> None:
        images = [replace(each, anomaly_map=np.full_like(each.anomaly_map, constant)) for each in random_images()]
        overall = evaluate(images).overall
        assert value(overall.pixel_auroc) == pytest.approx(0.5)  # recall = false-positive rate, for all metrics
        assert value(overall.au_pro_30) == pytest.approx(0.15)
        assert value(overall.au_pro_5) == pytest.approx(0.025)
        assert value(overall.aupimo) == pytest.approx((1e-4 - 1e-5) / math.log(10))

    def test_each_region_has_the_same_weight_and_diagonal_neighbours_are_one_region(self) -> None:
        mask = np.zeros((20, 20), dtype=bool)
        mask[[2, 3, 4], [2, 3, 4]] = True  # three pixels on a diagonal
        mask[10:16, 10:16] = True  # 36 pixels
        anomaly_map = np.zeros((20, 20), dtype=np.float32)
        anomaly_map[[2, 3, 4], [2, 3, 4]] = 1
        overall = evaluate([Image(anomaly_map, mask, "a")]).overall
        assert overall.regions == 2
        # The overlap starts at 1/2 and rises to 1 along a line.
        assert value(overall.au_pro_30) == pytest.approx(0.5 + 0.5 * 0.15)
        assert value(overall.au_pro_5) == pytest.approx(0.5 + 0.5 * 0.025)

    def test_aupimo_ignores_false_positives_in_anomalous_images(self) -> None:
        mask = np.zeros((20, 20), dtype=bool)
        mask[:5, :5] = True
        anomaly_map = np.where(mask, 2, 3).astype(np.float32)
        overall = evaluate([Image(np.ones((20, 20), dtype=np.float32)), Image(anomaly_map, mask, "a")]).overall
        assert value(overall.aupimo) == pytest.approx(1)
        assert value(overall.pixel_auroc) == pytest.approx(400 / 775)

    def test_the_highest_of_equally_good_thresholds(self) -> None:
        anomaly_map = np.array([[3, 1, 1, 1, 0.5]], dtype=np.float32)
        mask = np.array([[True, True, False, False, False]])
        best = evaluate([Image(anomaly_map, mask, "a")]).overall.best_f1
        assert best is not None  # 3: one of two found, no false positive; 1: both found, two false positives
        assert (best.value, best.threshold) == (pytest.approx(2 / 3), 3)

    def test_counts(self) -> None:
        images = random_images()
        overall = evaluate(images).overall
        truth, _ = pixels(images)
        assert (overall.normal_images, overall.anomalous_images) == (4, 5)
        assert (overall.normal_pixels, overall.anomalous_pixels) == ((~truth).sum(), truth.sum())

    def test_fpr_step_is_that_of_the_smallest_normal_image(self) -> None:
        images = [Image(np.ones(size, dtype=np.float32)) for size in ((10, 10), (20, 30))]
        assert evaluate(images).fpr_step == pytest.approx(1 / 200)


class TestInvariance:
    @few
    @given(seed=st.integers(0, 99), exponent=st.integers(-40, 40))
    def test_a_power_of_two_changes_only_the_threshold(self, seed: int, exponent: int) -> None:
        images = random_images(seed)
        factor = np.float32(2.0**exponent)
        scaled = evaluate([replace(each, anomaly_map=each.anomaly_map * factor) for each in images])
        expected = evaluate(images)
        assert expected.overall.best_f1 is not None
        assert scaled.overall.best_f1 is not None
        assert scaled.overall.best_f1.threshold == expected.overall.best_f1.threshold * factor
        assert areas(scaled.overall) == areas(expected.overall)
        assert scaled.image_aupimo == expected.image_aupimo

    @few
    @given(seed=st.integers(0, 99), order=st.permutations(range(9)))
    def test_the_order_of_the_images_does_not_change_a_value(self, seed: int, order: list[int]) -> None:
        images = random_images(seed)
        expected, other = evaluate(images), evaluate([images[index] for index in order])
        for name in AREAS:
            assert value(getattr(other.overall, name)) == pytest.approx(value(getattr(expected.overall, name)))
        assert other.overall.best_f1 == expected.overall.best_f1
        assert expected.image_aupimo is not None
        assert other.image_aupimo is not None
        by_image = {order[each.index]: each.value for each in other.image_aupimo}
        assert by_image == pytest.approx({each.index: each.value for each in expected.image_aupimo})

    @few
    @given(seed=st.integers(0, 99))
    def test_a_class_is_evaluated_as_if_it_were_alone(self, seed: int) -> None:
        images = random_images(seed)
        result = evaluate(images)
        assert list(result.groups) == ["a", "b"]
        for name, group in result.groups.items():
            alone = evaluate([each for each in images if each.group in ("", name)]).overall
            assert np.array(areas(group)) == pytest.approx(np.array(areas(alone)))
            assert group.best_f1 == alone.best_f1
            assert (group.normal_pixels, group.regions) == (alone.normal_pixels, alone.regions)

    @few
    @given(seed=st.integers(0, 99))
    def test_classes_do_not_change_the_overall_metrics(self, seed: int) -> None:
        images = random_images(seed)
        one_class = [each if each.mask is None else replace(each, group="all") for each in images]
        expected, result = evaluate(images), evaluate(one_class)
        assert result.overall == expected.overall
        assert result.groups == {"all": expected.overall}

    @few
    @given(seed=st.integers(0, 99), copies=st.integers(2, 4))
    def test_copies_of_all_images_do_not_change_a_value(self, seed: int, copies: int) -> None:
        images = random_images(seed)
        expected, result = evaluate(images).overall, evaluate(images * copies).overall
        for name in AREAS:
            assert value(getattr(result, name)) == pytest.approx(value(getattr(expected, name)))

    def test_transposed_images(self) -> None:
        images = random_images()
        transposed = [
            Image(each.anomaly_map.T, None if each.mask is None else each.mask.T, each.group) for each in images
        ]
        assert evaluate(transposed) == evaluate(images)

    def test_the_maps_are_not_changed(self) -> None:
        images = random_images()
        before = [each.anomaly_map.copy() for each in images]
        for image in images:
            image.anomaly_map.flags.writeable = False
        evaluate(images)
        assert all(np.array_equal(old, new.anomaly_map) for old, new in zip(before, images, strict=True))

    def test_images_can_follow_a_result(self) -> None:
        images = random_images()
        evaluation = MapEvaluation(resamples=20)
        for image in images:
            evaluation.add(image.anomaly_map, image.mask, image.group)
            evaluation.result()
        assert evaluation.result() == evaluate(images)


def areas(metrics: GroupMetrics) -> list[tuple[float, float, float]]:
    estimates: list[Estimate] = [getattr(metrics, name) for name in AREAS]
    return [(each.value, each.low, each.high) for each in estimates]


class TestBootstrap:
    @few
    @given(seed=st.integers(0, 99))
    def test_intervals_include_their_value(self, seed: int) -> None:
        result = evaluate(random_images(seed), seed=seed)
        for group in (result.overall, *result.groups.values()):
            assert all(0 <= low <= middle <= high <= 1 for middle, low, high in areas(group))

    def test_equal_seeds_give_equal_intervals(self) -> None:
        images = random_images()
        assert evaluate(images, seed=3) == evaluate(images, seed=3)
        assert areas(evaluate(images, seed=3).overall) != areas(evaluate(images, seed=4).overall)

    def test_equal_images_have_intervals_without_width(self) -> None:
        normal, *_, anomalous = random_images()
        for middle, low, high in areas(evaluate([normal, anomalous] * 4).overall):
            assert (low, high) == pytest.approx((middle, middle), abs=1e-12)

    def test_agrees_with_evaluations_of_resampled_images(self) -> None:
        images = random_images(1, normal=8, anomalous=12)
        images.sort(key=lambda image: (image.mask is not None, float(image.anomaly_map[image.truth].sum())))
        random = np.random.default_rng(7)
        drawn = []
        for _ in range(250):
            chosen = [*random.integers(0, 8, 8), *random.integers(8, 20, 12)]
            overall = evaluate([images[index] for index in chosen], resamples=1).overall
            drawn.append([value(getattr(overall, name)) for name in AREAS])
        expected = np.quantile(drawn, (0.025, 0.975), axis=0).T
        intervals = np.array([(low, high) for _, low, high in areas(evaluate(images, resamples=1000).overall)])
        width = np.diff(expected)
        assert (width > 0.05).all()
        assert (np.abs(intervals - expected) < 0.2 * width).all()


class TestMissingMetrics:
    def test_no_images(self) -> None:
        result = evaluate([])
        assert result.overall == GroupMetrics(0, 0, 0, 0, 0, None, None, None, None, None)
        assert (result.groups, result.image_aupimo, result.fpr_step) == ({}, None, None)

    def test_only_normal_images(self) -> None:
        result = evaluate(random_images(anomalous=0))
        overall = result.overall
        assert overall.normal_images == 4
        assert [getattr(overall, name) for name in (*AREAS, "best_f1")] == [None] * 5
        assert (result.groups, result.image_aupimo) == ({}, None)
        assert result.fpr_step is not None

    def test_only_anomalous_images(self) -> None:
        images = random_images(normal=0, quantised=True)
        result = evaluate(images)
        assert value(result.overall.pixel_auroc) == pytest.approx(roc_auc_score(*pixels(images)))
        assert value(result.overall.au_pro_30) == pytest.approx(brute_force_au_pro(images, 0.3))
        assert (result.overall.aupimo, result.image_aupimo, result.fpr_step) == (None, None, None)

    def test_no_normal_pixel(self) -> None:
        image = Image(np.ones((4, 4), dtype=np.float32), np.ones((4, 4), dtype=bool), "a")
        overall = evaluate([image]).overall
        assert (overall.normal_pixels, overall.anomalous_pixels) == (0, 16)
        assert [getattr(overall, name) for name in (*AREAS, "best_f1")] == [None] * 5

    def test_resamples_without_a_normal_pixel_are_left_out(self) -> None:
        full = Image(np.ones((4, 4), dtype=np.float32), np.ones((4, 4), dtype=bool), "a")
        mask = np.eye(4, dtype=bool)
        half = Image(mask.astype(np.float32), mask, "a")
        estimate = evaluate([full, half], resamples=200).overall.pixel_auroc
        assert estimate == Estimate(1, 1, 1)


class TestErrors:
    map_ = np.ones((4, 5), dtype=np.float32)
    mask = np.ones((4, 5), dtype=bool)

    @pytest.mark.parametrize(
        ("anomaly_map", "mask", "group", "message"),
        [
            (map_.astype(np.float64), None, "", "float32"),
            (map_[0], None, "", "height, width"),
            (map_[:0], None, "", "height, width"),
            (-map_, None, "", "negative"),
            (map_ * np.float32(np.nan), None, "", "non-finite"),
            (map_ * np.float32(np.inf), None, "", "non-finite"),
            (map_, mask[:3], "a", r"mask is bool \(3, 5\), expected bool \(4, 5\)"),
            (map_, mask.T, "a", "mask is"),
            (map_, mask.astype(np.uint8), "a", "mask is uint8"),
            (map_, ~mask, "a", "no True pixel"),
            (map_, mask, "", "name of its class"),
            (map_, None, "a", "needs a mask"),
        ],
    )
    def test_arguments(self, anomaly_map: np.ndarray, mask: np.ndarray | None, group: str, message: str) -> None:
        evaluation = MapEvaluation(resamples=1)
        with pytest.raises(ValueError, match=message):
            evaluation.add(anomaly_map, mask, group)
        assert evaluation.result() == MapEvaluation().result()  # a rejected image leaves no trace

    def test_resamples(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            MapEvaluation(resamples=0)


class TestMemory:
    """Maps from 1 to 4 have 2048 bins: at most 16 KiB for the normal pixels and 32 KiB for the anomalous pixels."""

    def add_images(self, evaluation: MapEvaluation, count: int, size: int) -> None:
        random = np.random.default_rng(0)
        mask = np.zeros((size, size), dtype=bool)
        mask[: size // 2] = True
        for number in range(count):
            anomaly_map = random.uniform(1, 4, (size, size)).astype(np.float32)
            evaluation.add(anomaly_map, mask if number % 2 else None, "a" if number % 2 else "")

    @pytest.mark.parametrize("size", [128, 512])
    def test_kept_per_image(self, size: int) -> None:
        evaluation = MapEvaluation()
        self.add_images(evaluation, 2, size)  # imports and caches
        tracemalloc.start()
        try:
            self.add_images(evaluation, 20, size)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 20 * 50 * 1024

    def test_peak_is_less_than_the_maps(self) -> None:
        evaluation = MapEvaluation(resamples=50)
        tracemalloc.start()
        try:
            self.add_images(evaluation, 60, 512)  # 60 MiB of maps
            evaluation.result()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 24 * 2**20
