import re
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Calibration, Rates
from msc_edge.errors import KitError, OutputError, SourceError, UsageError
from msc_edge.intervals import alarm_count_interval
from msc_edge.kit.manifest import Manifest, Precision, parse_manifest
from msc_edge.kit.model_entry import HELD_OUT, HISTORY_LENGTH, CalibrationInfo
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.calibrate.recalibration import calibrate, recalibrated


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def manifest_of(kit: Path) -> Manifest:
    with Kit.open(kit) as opened:
        return opened.manifest


def calibration_of(kit: Path, precision: Precision = "fp32") -> CalibrationInfo:
    return manifest_of(kit).models[precision].calibration


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where to write a kit, in a folder of its own."""
    (tmp_path / "kits").mkdir()
    return tmp_path / "kits" / "new.kit"


def test_the_new_kit_differs_only_in_its_calibration(toy_kit: Path, fresh: Path, place: Path) -> None:
    before = everything(toy_kit)
    found = calibrate(toy_kit, fresh, out=place, reason="new lamp")
    assert found.written == place
    assert everything(toy_kit) == before
    own = {"manifest.json", "manifest.sha256"}
    assert {name: digest for name, digest in everything(place).items() if name not in own} == {
        name: digest for name, digest in before.items() if name not in own
    }
    old, new = manifest_of(toy_kit), manifest_of(place)
    assert new.models["fp32"].calibration == found.limits["fp32"].after
    assert new.with_calibrations({"fp32": old.models["fp32"].calibration}) == old  # parity and provenance too
    assert list(place.parent.iterdir()) == [place]


def test_the_new_limits_follow_from_the_new_scores(toy_kit: Path, fresh: Path, place: Path) -> None:
    calibrate(toy_kit, fresh, out=place, warn_rate=0.1, reject_rate=0.02)
    detector = Detector.load(place, threads=1)
    scores = sorted(detector.score_file(path).score for path in fresh.iterdir())
    assert calibration_of(place).scores == scores
    # 121 ranks: twelve of them are 10 %, two are 2 %.
    assert detector.limits.warn.score == scores[-12]
    assert detector.limits.reject.score == scores[-2]
    assert detector.limits.reject.expected_rate == 2 / 121
    assert sum(score > detector.limits.warn.score for score in scores) == 11


def test_the_default_rates_are_those_of_the_kit(toy_kit: Path, fresh: Path) -> None:
    after = calibrate(toy_kit, fresh).limits["fp32"].after
    assert (after.warn_rate, after.reject_rate) == (0.2, 0.01)
    assert after.limits.reject.meets_target


def test_the_earlier_calibration_becomes_history(toy_kit: Path, fresh: Path, place: Path) -> None:
    old = manifest_of(toy_kit)
    calibrate(toy_kit, fresh, out=place, reason="new lamp")
    calibrate(place, fresh, in_place=True, warn_rate=0.1, reason="summer")
    now = calibration_of(place)
    first, second = now.history
    assert (now.reason, second.reason, first.reason) == ("summer", "new lamp", HELD_OUT)
    assert first.created == old.provenance.created
    assert first.created < second.created <= (now.created or "")
    assert (first.count, second.count) == (12, 120)
    assert (first.warn_rate, second.warn_rate, now.warn_rate) == (0.2, 0.2, 0.1)
    assert first.limits == old.models["fp32"].calibration.limits
    scores = old.models["fp32"].calibration.scores
    assert (first.quantiles[0], first.quantiles[2], first.quantiles[4]) == (scores[0], np.median(scores), scores[-1])


def test_each_model_of_a_kit_gets_limits_from_its_own_scores(int8_kit: Path, fresh: Path, place: Path) -> None:
    before = manifest_of(int8_kit)
    found = calibrate(int8_kit, fresh, out=place)
    after = manifest_of(place)
    for precision, old in before.models.items():
        new = after.models[precision].calibration
        assert new == found.limits[precision].after
        assert new.history[-1].limits == old.calibration.limits
        detector = Detector.load(place, threads=1, precision=precision)
        assert new.scores == sorted(detector.score_file(path).score for path in fresh.iterdir())
    assert after.with_calibrations({name: model.calibration for name, model in before.models.items()}) == before


def test_the_history_keeps_the_newest_entries(toy_kit: Path) -> None:
    manifest = manifest_of(toy_kit)
    for number in range(HISTORY_LENGTH + 5):
        after = recalibrated(
            manifest.models["fp32"].calibration,
            [0.1, 0.2, 0.3],
            [],
            rates=Rates(0.5, 0.25, None),
            reason=str(number),
            kit_created=manifest.provenance.created,
        )
        manifest = manifest.with_calibrations({"fp32": after})
    history = manifest.models["fp32"].calibration.history
    assert [each.reason for each in history] == [str(number) for number in range(4, HISTORY_LENGTH + 4)]
    assert parse_manifest(manifest.to_json().encode()) == manifest


def test_the_new_images_are_counted_at_the_old_limits(toy_kit: Path, fresh: Path) -> None:
    found = calibrate(toy_kit, fresh).limits["fp32"]
    detector = Detector.load(toy_kit, threads=1)
    scores = [detector.score_file(path).score for path in fresh.iterdir()]
    assert found.warn.flagged == sum(score > detector.limits.warn.score for score in scores)
    assert found.warn.interval == alarm_count_interval(2, 12, 120)  # 20 % of 13 ranks are two
    assert found.reject.interval == alarm_count_interval(1, 12, 120)
    assert found.reject.flagged <= found.warn.flagged <= found.warn.images == 120


def test_a_line_that_has_changed_is_above_the_interval(toy_kit: Path, toy, save, tmp_path: Path) -> None:
    for seed in range(1000, 1120):
        image = toy.draw(seed)
        image[:, :24] //= 2  # a shadow
        save(tmp_path / "fresh" / f"{seed}.png", image)
    found = calibrate(toy_kit, tmp_path / "fresh").limits["fp32"]
    assert found.reject.interval is not None
    assert found.reject.flagged > found.reject.interval[1]
    assert found.after.limits.reject.score > found.before.limits.reject.score


def test_in_place_replaces_the_kit_and_leaves_nothing_beside_it(kit: Path, fresh: Path) -> None:
    calibrate(kit, fresh, in_place=True)
    assert len(calibration_of(kit).scores) == 120
    assert list(kit.parent.iterdir()) == [kit]


def test_in_place_changes_the_kit_that_a_link_leads_to(kit: Path, fresh: Path) -> None:
    link = kit.parent / "current"
    link.symlink_to(kit.name)
    calibrate(link, fresh, in_place=True)
    assert link.is_symlink()
    assert len(calibration_of(kit).scores) == 120


def test_a_zipped_kit_is_written_as_a_folder(kit: Path, fresh: Path, place: Path) -> None:
    zipped = Path(shutil.make_archive(str(kit.parent / "zipped"), "zip", kit))
    with pytest.raises(UsageError, match=r"a \.zip cannot be replaced in place; pass --out"):
        calibrate(zipped, fresh, in_place=True)
    calibrate(zipped, fresh, out=place)
    assert len(calibration_of(place).scores) == 120


def test_without_out_and_in_place_nothing_is_written(kit: Path, fresh: Path) -> None:
    before = everything(kit)
    assert calibrate(kit, fresh).written is None
    assert everything(kit) == before
    assert list(kit.parent.iterdir()) == [kit]


def test_too_few_images_are_refused_with_the_needed_number(toy_kit: Path, fresh: Path, place: Path) -> None:
    reason = (
        r"120 image files found, and a target false-alarm rate of 0\.1 % needs at least 999; "
        r"add normal images from the line, or pass --reject-rate 0\.00827 or more"
    )
    with pytest.raises(SourceError, match=reason):
        calibrate(toy_kit, fresh, out=place, reject_rate=0.001)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("images", [19, 98, 120])
def test_the_suggested_rate_is_enough(images: int, toy_kit: Path, fresh: Path, tmp_path: Path) -> None:
    for path in sorted(fresh.iterdir())[:images]:
        shutil.copy(path, tmp_path)
    with pytest.raises(SourceError) as refused:
        calibrate(toy_kit, tmp_path, reject_rate=0.001)
    rate = float(re.search(r"pass --reject-rate (\S+) or more", str(refused.value))[1])  # pyright: ignore[reportOptionalSubscript]
    assert calibrate(toy_kit, tmp_path, reject_rate=rate).limits["fp32"].after.limits.reject.meets_target
    assert 1 / (images + 1) <= rate < 1.01 / (images + 1)


def test_images_of_the_memory_bank_do_not_count(toy_kit: Path, toy, save, tmp_path: Path, place: Path) -> None:
    for seed in range(24):
        save(tmp_path / "trained" / f"{seed}.png", toy.draw(seed))
    reason = r"12 of 24 images left \(12 in the kit's memory bank\), and a target .* of 5 % needs at least 19"
    with pytest.raises(SourceError, match=reason):
        calibrate(toy_kit, tmp_path / "trained", out=place, reject_rate=0.05)
    for seed in range(1, 24, 2):
        (tmp_path / "trained" / f"{seed}.png").unlink()
    with pytest.raises(SourceError, match=r"0 of 12 images left") as refused:
        calibrate(toy_kit, tmp_path / "trained", out=place, reject_rate=0.1)
    assert "--reject-rate" not in str(refused.value)


@pytest.fixture
def repeated(toy, save, tmp_path: Path) -> Path:
    """40 parts, each photographed three times in a row with a little noise."""
    rng = np.random.default_rng(0)
    for seed in range(40):
        part = toy.draw(2000 + seed)
        for copy in range(3):
            noisy = np.clip(part.astype(int) + rng.integers(-1, 2, part.shape), 0, 255).astype(np.uint8)
            save(tmp_path / "repeated" / f"{seed:02d}-{copy}.png", noisy)
    return tmp_path / "repeated"


def test_images_of_one_part_count_as_one(toy_kit: Path, repeated: Path, place: Path) -> None:
    after = calibrate(toy_kit, repeated, out=place, reject_rate=0.03).limits["fp32"].after
    assert calibration_of(place) == after
    assert after.groups is not None
    assert len(set(after.groups)) == 40
    assert 39.5 < after.calibration.independent < 45
    reason = (
        r"120 of 120 images left, which show 40 parts and count as 4\d independent images, and .* 1 % needs at least 99"
    )
    with pytest.raises(SourceError, match=reason):
        calibrate(toy_kit, repeated, reject_rate=0.01)


@pytest.mark.parametrize(("warn", "reject"), [(0.01, 0.05), (0.0, 0.5), (0.5, 0.0), (float("nan"), 0.1), (None, 0.5)])
def test_impossible_rates_are_refused(warn: float | None, reject: float, toy_kit: Path, fresh: Path) -> None:
    with pytest.raises(UsageError, match="rate"):
        calibrate(toy_kit, fresh, warn_rate=warn, reject_rate=reject)


def test_unusable_places_are_refused(kit: Path, fresh: Path, tmp_path: Path) -> None:
    before = everything(kit)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for out, reason in (
        (kit, "is the kit itself; choose another name"),
        (kit / "new", "lies within the kit"),
        (taken, "exists already; choose another name"),
    ):
        with pytest.raises(UsageError, match=reason):
            calibrate(kit, fresh, out=out)
    with pytest.raises(UsageError, match="exclude each other"):
        calibrate(kit, fresh, out=tmp_path / "new", in_place=True)
    with pytest.raises(OutputError, match="cannot write"):
        calibrate(kit, fresh, out=taken / "thesis.txt" / "new")
    assert everything(kit) == before
    assert (taken / "thesis.txt").read_text() == "mine"


def test_a_damaged_kit_is_refused(kit: Path, fresh: Path, change_byte) -> None:
    change_byte(kit / "bank.npy", 300)
    with pytest.raises(KitError, match=r"bank\.npy: SHA-256 differs"):
        calibrate(kit, fresh, in_place=True)


def test_further_images_of_the_line_exceed_the_new_limits_as_expected(
    toy_kit: Path, toy, fresh: Path, place: Path
) -> None:
    calibrate(toy_kit, fresh, out=place, warn_rate=0.1, reject_rate=0.02)
    detector = Detector.load(place, threads=1)
    scores = [detector.score(toy.draw(seed)).score for seed in range(3000, 3300)]
    for limit in (detector.limits.warn, detector.limits.reject):
        assert limit.expected_rate is not None
        count = detector.calibration.count_above(limit.expected_rate)
        low, high = alarm_count_interval(count, 120, 300, confidence=0.999)
        assert low <= sum(score > limit.score for score in scores) <= high


def test_a_kit_that_another_process_calibrated_meanwhile_is_kept(kit: Path, fresh: Path) -> None:
    def calibrate_meanwhile(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if done == total:
            calibrate(kit, fresh, in_place=True, reason="first")

    with pytest.raises(UsageError, match="was changed by another process in the meantime; run the command again"):
        calibrate(kit, fresh, in_place=True, reason="second", report=calibrate_meanwhile)
    assert calibration_of(kit).reason == "first"
    assert [path for path in kit.parent.iterdir() if path.name.startswith(".")] == []


def test_the_limit_of_the_map_has_a_target_of_its_own(patch_kit: Path, fresh: Path, place: Path) -> None:
    old = calibration_of(patch_kit)
    found = calibrate(patch_kit, fresh, out=place, reject_rate=0.1, region_rate=0.2).limits["fp32"]
    new = calibration_of(place)
    assert (new.warn_rate, new.reject_rate) == (old.warn_rate, 0.1)
    assert new.regions
    assert new.regions.rate == 0.2
    assert new.regions.limit == Calibration(new.regions.patch_scores).limit(0.2)
    assert found.regions
    with pytest.raises(SourceError, match=r"0\.1 % needs at least 999.*or pass --region-rate 0\.0"):
        calibrate(patch_kit, fresh, reject_rate=0.1, region_rate=0.001)
    with pytest.raises(UsageError, match=r"false-alarm rate 1\.5"):
        calibrate(patch_kit, fresh, region_rate=1.5)


def test_a_kit_without_a_map_has_no_target_for_one(toy_kit: Path, fresh: Path) -> None:
    with pytest.raises(UsageError, match="--region-rate: the kit compares whole images only and has no heatmap"):
        calibrate(toy_kit, fresh, region_rate=0.01)


def test_the_limit_of_the_map_follows_the_new_images(patch_kit: Path, fresh: Path, place: Path) -> None:
    before = manifest_of(patch_kit).models["fp32"]
    calibrate(patch_kit, fresh, out=place, reject_rate=0.1)
    after = manifest_of(place).models["fp32"]
    detector = Detector.load(place, threads=1)
    results = [detector.score_file(path) for path in sorted(fresh.iterdir())]
    assert after.scoring == before.scoring  # standardised as before: scores stay comparable
    assert after.calibration.scores == sorted(result.score for result in results)
    regions = after.calibration.regions
    assert regions
    assert regions.patch_scores == sorted(result.patch_score for result in results if result.patch_score is not None)
    assert before.calibration.regions
    assert regions.rate == before.calibration.regions.rate
    assert after.calibration.history[-1].region_limit == before.calibration.regions.limit
