import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from msc_edge.calibration import Calibration, Limit, Limits
from msc_edge.errors import SourceError
from msc_edge.image_files import find_images
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.tools.evaluate.evaluation import (
    AtLimit,
    Evaluation,
    Scored,
    at_limit,
    compute_evaluation,
    match_labels,
)
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, LabelledImage, labelled_dataset

Labelled = list[tuple[str, float]]


def evaluated(
    detector: Detector, labelled: Labelled, unreadable: tuple[str, ...] = (), *, resamples: int = 1
) -> Evaluation:
    """The evaluation of images with these labels and scores, and of unreadable images with these labels."""
    scored = [Scored(image(number, label), result(score)) for number, (label, score) in enumerate(labelled)]
    failed = [(image(100 + number, label), "the file is empty") for number, label in enumerate(unreadable)]
    dataset = LabelledDataset((*(each.label for each in scored), *(label for label, _ in failed)), (), 0)
    return compute_evaluation(detector, dataset, scored, failed, resamples=resamples)


def image(number: int, label: str) -> LabelledImage:
    return LabelledImage(Path(f"{number}.png"), label, f"{number}.png")


def result(score: float) -> Result:
    return Result(score, score, None, 0.5, "normal", 0.3, (), (NearestImage(0, "n.png", 0.1),), "fp32", "ab" * 32)


@pytest.fixture
def drawn(detector: Detector) -> Detector:
    """Limits at 0.2 and 0.3 from 99 calibration images: one of them is above reject, five are above warn."""
    calibration = Calibration([*np.linspace(0.0, 0.2, 95), 0.25, 0.26, 0.27, 0.3])
    return replace(detector, calibration=calibration, limits=calibration.limits(warn_rate=0.05, reject_rate=0.01))


IMAGES: Labelled = [
    ("good", 0.1),
    ("good", 0.25),
    ("good", 0.3),
    ("dent", 0.3),
    ("dent", 0.31),
    ("rust", 0.2),
    ("rust", 0.9),
]


class TestAtTheLimits:
    def test_an_image_is_flagged_above_a_limit_and_not_at_it(self, drawn):
        found = evaluated(drawn, IMAGES)
        assert (found.warn.score, found.reject.score) == (0.2, 0.3)
        assert (found.warn.false_alarms, found.warn.missed) == (2, 1)
        assert (found.reject.false_alarms, found.reject.missed) == (0, 2)
        assert (found.normal_images, found.anomalous_images) == (3, 4)

    def test_each_defect_type_is_counted_and_ranked_against_all_normal_images(self, drawn):
        dent, rust = evaluated(drawn, IMAGES).defect_types
        assert (dent.name, dent.images, dent.warned, dent.rejected) == ("dent", 2, 2, 1)
        assert (rust.name, rust.images, rust.warned, rust.rejected) == ("rust", 2, 1, 1)
        # Of three normal images each: 0.3 is above two and ties with one, 0.31 and 0.9 are above all, 0.2 above one.
        assert dent.auroc == pytest.approx((2.5 + 3) / 6)
        assert rust.auroc == pytest.approx((1 + 3) / 6)

    def test_the_counts_are_those_of_the_verdicts(self, detector, dataset):
        labelled = labelled_dataset(dataset)
        images = list(score_images(detector, [each.path for each in labelled.images]))
        found = compute_evaluation(detector, labelled, *match_labels(labelled, images), resamples=1)
        verdicts = [each.result.verdict for each in images if each.result]
        normal = [each for each, label in zip(verdicts, labelled.images, strict=True) if not label.is_anomalous]
        anomalous = [each for each, label in zip(verdicts, labelled.images, strict=True) if label.is_anomalous]
        assert found.reject.false_alarms == normal.count("reject")
        assert found.warn.false_alarms == normal.count("reject") + normal.count("warn")
        assert found.reject.missed == len(anomalous) - anomalous.count("reject")
        assert found.warn.missed == anomalous.count("normal")

    def test_a_limit_set_by_hand_has_no_expected_rate(self, detector):
        found = evaluated(detector.with_limits(threshold=0.5), IMAGES).reject
        assert (found.score, found.expected_rate, found.interval, found.comparison) == (0.5, None, None, None)

    def test_the_interval_holds_the_false_alarms_of_images_like_the_calibration_images(self):
        """Simulated: calibration scores and normal images come from the same distribution."""
        random = np.random.default_rng(5)
        comparisons = []
        for _ in range(300):
            calibration = Calibration(random.normal(0, 1, 99))
            normal, anomalous = random.normal(0, 1, 80), np.array([9.0])
            comparisons.append(at_limit(calibration.limit(0.05), calibration, normal, anomalous).comparison)
        # At least 90 % of 300, minus three standard deviations.
        assert comparisons.count("inside the interval") >= 270 - 16
        assert comparisons.count("above the interval") <= 15 + 12

    @pytest.mark.parametrize(
        ("false_alarms", "comparison"),
        [
            (1, "below the interval"),
            (2, "inside the interval"),
            (7, "inside the interval"),
            (8, "above the interval"),
        ],
    )
    def test_the_ends_belong_to_the_interval(self, false_alarms, comparison):
        limit = AtLimit(
            score=1,
            target_rate=0.05,
            expected_rate=0.05,
            normal_images=99,
            interval=(2, 7),
            anomalous_images=1,
            missed=0,
            false_alarms=false_alarms,
        )
        assert limit.comparison == comparison

    def test_a_reject_limit_below_the_warn_limit_is_both(self, drawn):
        low = drawn.with_limits(threshold=0.15)
        assert low.limits == Limits(warn=low.limits.reject, reject=Limit(0.15, None, None))
        found = evaluated(low, IMAGES)
        assert (found.warn.false_alarms, found.warn.missed) == (2, 0)
        assert (found.reject.false_alarms, found.reject.missed) == (2, 0)
        assert [(each.warned, each.rejected) for each in found.defect_types] == [(2, 2), (2, 2)]


class TestUnusualDataSets:
    @pytest.mark.parametrize(
        "images",
        [[("good", 0.1), ("dent", 0.2)], [*[("good", 0.5)] * 5, *[("dent", 0.5)] * 3]],
        ids=["one of each", "all scores equal"],
    )
    def test_they_have_metrics_between_0_and_1(self, drawn, images):
        found = evaluated(drawn, images, resamples=10)
        assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found.metrics.values())

    def test_a_defect_type_without_a_readable_image_is_listed(self, drawn):
        found = evaluated(drawn, IMAGES, ("stain", "dent", "good"))
        assert [(each.name, each.images, each.unreadable) for each in found.defect_types] == [
            ("dent", 2, 1),
            ("rust", 2, 0),
            ("stain", 0, 1),
        ]
        assert (found.defect_types[2].auroc, found.defect_types[2].average_precision) == (None, None)
        assert len(found.unreadable) == 3
        assert (found.normal_images, found.anomalous_images) == (3, 4)

    def test_images_of_the_memory_bank_are_counted(self, detector, tmp_path, toy, save):
        """The memory bank of the toy kit holds parts 0, 2, 4...; part 1 was held out, part 300 is new."""
        labels = [LabelledImage(save(tmp_path / f"{n}.png", toy.draw(n)), "good", f"{n}.png") for n in (0, 1, 2, 300)]
        labels.append(LabelledImage(save(tmp_path / "dent.png", toy.draw(4)), "dent", "dent.png"))
        dataset = LabelledDataset(tuple(labels), (tmp_path,), 0)
        images = list(score_images(detector, [each.path for each in labels]))
        assert [each.result and each.result.is_in_bank for each in images] == [True, False, True, False, True]
        found = compute_evaluation(detector, dataset, *match_labels(dataset, images), resamples=1)
        assert found.in_bank == 3


class TestMatchLabels:
    def test_results_keep_the_order_of_the_data_set(self, detector, photos):
        labels = [
            LabelledImage(path, "good" if "good" in path.name else "odd", path.name)
            for path in find_images([photos]).paths
        ]
        images = list(score_images(detector, [each.path for each in labels], threads=3))
        scored, unreadable = match_labels(LabelledDataset(tuple(labels), (photos,), 0), images)
        assert [each.label for each in scored] == [
            each for each in labels if each.path.name not in ("cut.png", "zero.png")
        ]
        assert [each.result for each in scored] == [each.result for each in images if each.result]
        assert {label.path.name: bool(error) for label, error in unreadable} == {"cut.png": True, "zero.png": True}

    @pytest.mark.parametrize(("label", "name"), [("good", "normal"), ("dent", "anomalous")])
    def test_without_a_readable_image_of_either_kind_the_first_error_is_given(self, scored, label, name):
        other = {"good": "dent", "dent": "good"}[label]
        labels = (image(1, other), image(2, label), image(3, label))
        images = [scored(), ImageResult("2.png", None, error="the file is empty"), ImageResult("3", None, error="x")]
        with pytest.raises(
            SourceError, match=rf"none of the {name} images could be read; the first: 2\.png: the file is empty"
        ):
            match_labels(LabelledDataset(labels, (), 0), images)

    def test_images_without_the_region_of_interest_are_unreadable(self, kit, dataset):
        manifest = parse_manifest((kit / "manifest.json").read_bytes())
        region = Region(x=0, y=0, width=640, height=480)
        preprocessing = manifest.preprocessing.model_copy(update={"region": region})
        seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))
        labelled = labelled_dataset(dataset)
        images = list(score_images(Detector.load(kit, threads=1), [each.path for each in labelled.images]))
        with pytest.raises(SourceError, match=r"none of the normal images could be read; .*region of interest is 640x"):
            match_labels(labelled, images)


def test_json_follows_its_schema_and_is_read_again(drawn):
    found = evaluated(drawn, IMAGES, ("stain",), resamples=10)
    document = json.loads(found.model_dump_json())
    jsonschema.Draft202012Validator(Evaluation.model_json_schema(mode="serialization")).validate(document)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_progress_is_reported_for_each_resample(drawn):
    steps = []

    def report(task: str, done: int, total: int, note: str = "") -> None:
        steps.append((task, done, total, note))

    scored = [Scored(image(number, label), result(score)) for number, (label, score) in enumerate(IMAGES)]
    dataset = LabelledDataset(tuple(each.label for each in scored), (), 0)
    found = compute_evaluation(drawn, dataset, scored, resamples=3, report=report)
    assert found.resamples == len(steps) == 3
