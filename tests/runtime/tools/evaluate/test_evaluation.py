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
from msc_edge.kit.opening import seal
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.runtime.batch import Row
from msc_edge.runtime.tools.evaluate.evaluation import AtLimit, Evaluation, Scored, evaluate, score_labelled
from msc_edge.runtime.tools.evaluate.labelled import Labelled, labelled_dataset


def scored(*labelled: tuple[str, float]) -> list[Scored]:
    return [
        Scored(Labelled(Path(f"{number}.png"), label, f"{number}.png"), Row(f"{number}.png", score, 0.5, "normal", "n"))
        for number, (label, score) in enumerate(labelled)
    ]


def unread(label: str) -> Scored:
    return Scored(Labelled(Path("x.png"), label, "x.png"), Row("x.png", error="the file is empty"))


@pytest.fixture
def drawn(detector) -> Detector:
    """Limits at 0.2 and 0.3, promised by 99 held-out good parts: one of them is above reject, five above warn."""
    calibration = Calibration([*np.linspace(0.0, 0.2, 95), 0.25, 0.26, 0.27, 0.3])
    return replace(detector, calibration=calibration, limits=calibration.limits(warn_rate=0.05, reject_rate=0.01))


IMAGE_TABLE = scored(
    ("good", 0.1), ("good", 0.25), ("good", 0.3), ("dent", 0.3), ("dent", 0.31), ("rust", 0.2), ("rust", 0.9)
)


class TestAtTheLimits:
    def test_a_image_is_flagged_above_a_limit_and_not_at_it(self, drawn):
        found = evaluate(drawn, IMAGE_TABLE, kit_sha256="", resamples=1)
        assert (found.warn.score, found.reject.score) == (0.2, 0.3)
        assert (found.warn.false_alarms, found.warn.missed) == (2, 1)
        assert (found.reject.false_alarms, found.reject.missed) == (0, 2)
        assert (found.good, found.defective) == (3, 4)

    def test_each_kind_is_counted_and_ranked_against_all_good_parts(self, drawn):
        dent, rust = evaluate(drawn, IMAGE_TABLE, kit_sha256="", resamples=1).kinds
        assert (dent.label, dent.images, dent.warned, dent.rejected) == ("dent", 2, 2, 1)
        assert (rust.label, rust.images, rust.warned, rust.rejected) == ("rust", 2, 1, 1)
        # Of three good parts each: 0.3 is above two and ties with one, 0.31 and 0.9 are above all, 0.2 above one.
        assert dent.auroc == pytest.approx((2.5 + 3) / 6)
        assert rust.auroc == pytest.approx((1 + 3) / 6)

    def test_the_counts_are_those_of_the_verdicts(self, detector, dataset):
        read, left_out = score_labelled(detector, labelled_dataset(dataset).images)
        found = evaluate(detector, read, left_out, kit_sha256="", resamples=1)
        good = [each.row.verdict for each in read if not each.image.is_defect]
        bad = [each.row.verdict for each in read if each.image.is_defect]
        assert found.reject.false_alarms == good.count("reject")
        assert found.warn.false_alarms == good.count("reject") + good.count("warn")
        assert found.reject.missed == len(bad) - bad.count("reject")
        assert found.warn.missed == bad.count("normal")

    def test_a_limit_by_hand_promises_nothing(self, detector):
        found = evaluate(detector.with_limits(threshold=0.5), IMAGE_TABLE, kit_sha256="", resamples=1).reject
        assert (found.score, found.expected_rate, found.band, found.kept) == (0.5, None, None, None)

    def test_the_band_holds_the_false_alarms_of_images_like_the_held_out_ones(self, detector):
        """Simulated: kits whose held-out scores and whose good parts come from the same distribution."""
        random = np.random.default_rng(5)
        kept = []
        for _ in range(300):
            calibration = Calibration(random.normal(0, 1, 99))
            kit = replace(detector, calibration=calibration, limits=calibration.limits(warn_rate=0.1, reject_rate=0.05))
            images = scored(*(("good", float(score)) for score in random.normal(0, 1, 80)), ("dent", 9.0))
            kept.append(evaluate(kit, images, kit_sha256="", resamples=1).reject.kept)
        # At least 90 % of 300, less three standard deviations.
        assert kept.count("as promised") >= 270 - 16
        assert kept.count("more than promised") <= 15 + 12

    @pytest.mark.parametrize(
        ("false_alarms", "words"),
        [(1, "fewer than promised"), (2, "as promised"), (7, "as promised"), (8, "more than promised")],
    )
    def test_the_promise_in_words(self, false_alarms, words):
        limit = AtLimit(
            score=1,
            target_rate=0.05,
            expected_rate=0.05,
            good=99,
            band=(2, 7),
            defective=1,
            missed=0,
            false_alarms=false_alarms,
        )
        assert limit.kept == words


class TestOddSets:
    @pytest.mark.parametrize(
        "images",
        [scored(("good", 0.1), ("dent", 0.2)), scored(*[("good", 0.5)] * 5, *[("dent", 0.5)] * 3)],
        ids=["one of each", "all scores equal"],
    )
    def test_are_evaluated_all_the_same(self, drawn, images):
        found = evaluate(drawn, images, kit_sha256="", resamples=10)
        assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found.figures.values())

    def test_a_kind_that_could_not_be_read_is_still_there(self, drawn):
        found = evaluate(
            drawn, IMAGE_TABLE, [unread("stain"), unread("dent"), unread("good")], kit_sha256="", resamples=1
        )
        assert [(kind.label, kind.images, kind.unreadable) for kind in found.kinds] == [
            ("dent", 2, 1),
            ("rust", 2, 0),
            ("stain", 0, 1),
        ]
        assert (found.kinds[2].auroc, found.kinds[2].average_precision) == (None, None)
        assert len(found.unreadable) == 3
        assert (found.good, found.defective) == (3, 4)

    def test_without_a_good_or_a_defective_image_there_is_nothing_to_say(self, detector, tmp_path, toy, save):
        paths = {"good": save(tmp_path / "a.png", toy.draw(1)), "dent": tmp_path / "b.png", "stain": tmp_path / "c.png"}
        paths["dent"].touch()
        images = [Labelled(path, label, path.name) for label, path in paths.items()]
        with pytest.raises(
            SourceError, match=r"none of the defective images could be read; the first: .*b\.png: the file is empty"
        ):
            score_labelled(detector, images)

    def test_images_that_do_not_hold_the_region_are_told_of(self, kit, dataset):
        manifest = parse_manifest((kit / "manifest.json").read_bytes())
        region = Region(x=0, y=0, width=640, height=480)
        seal(
            kit,
            manifest.model_copy(update={"preprocessing": manifest.preprocessing.model_copy(update={"region": region})}),
        )
        with pytest.raises(SourceError, match=r"none of the good images could be read; .*the kit looks at 640x480"):
            score_labelled(Detector.load(kit, threads=1), labelled_dataset(dataset).images)


def test_every_image_is_scored_or_told_of_in_the_order_given(detector, photos):
    images = [
        Labelled(path, "good" if "good" in path.name else "odd", path.name) for path in find_images([photos]).paths
    ]
    told = []

    def report(task: str, done: int, total: int, note: str = "") -> None:
        told.append((task, done, total, note))

    read, left_out = score_labelled(detector, images, threads=3, report=report)
    assert [each.image for each in read] == [each for each in images if each.path.name not in ("cut.png", "zero.png")]
    assert {each.image.path.name for each in left_out} == {"cut.png", "zero.png"}
    assert told == [("scoring", done, len(images), "") for done in range(1, len(images) + 1)]


def test_images_that_the_kit_has_learnt_from_are_counted(detector, tmp_path, toy, save):
    """The toy kit's bank holds parts 0, 2, 4...; part 1 was held out, and part 300 it has never seen."""
    images = [Labelled(save(tmp_path / f"{n}.png", toy.draw(n)), "good", f"{n}.png") for n in (0, 1, 2, 300)]
    images.append(Labelled(save(tmp_path / "dent.png", toy.draw(4)), "dent", "dent.png"))
    read, _ = score_labelled(detector, images)
    assert [each.in_bank for each in read] == [True, False, True, False, True]
    assert evaluate(detector, read, kit_sha256="", resamples=1).in_bank == 3


def test_json_follows_its_schema_and_is_read_again(drawn):
    found = evaluate(drawn, IMAGE_TABLE, [unread("stain")], kit_sha256="0" * 64, resamples=10)
    document = json.loads(found.model_dump_json())
    jsonschema.Draft202012Validator(Evaluation.model_json_schema(mode="serialization")).validate(document)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_limits_where_warn_never_comes_first(drawn):
    """A reject limit below the kit's warn limit: both are then the same."""
    low = drawn.with_limits(threshold=0.15)
    assert low.limits == Limits(warn=low.limits.reject, reject=Limit(0.15, None, None))
    found = evaluate(low, IMAGE_TABLE, kit_sha256="", resamples=1)
    assert (found.warn.false_alarms, found.warn.missed) == (found.reject.false_alarms, found.reject.missed) == (2, 0)
    assert [(kind.warned, kind.rejected) for kind in found.kinds] == [(2, 2), (2, 2)]
