import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from msc_edge.calibration import Calibration, alarm_count_interval
from msc_edge.errors import KitError, OutputError, SourceError, UsageError
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import HELD_OUT, HISTORY_KEPT, Manifest, parse_manifest
from msc_edge.kit.opening import Kit, seal
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


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a kit is to stand, in a folder of its own."""
    (tmp_path / "kits").mkdir()
    return tmp_path / "kits" / "new.kit"


def test_the_new_kit_differs_in_its_calibration_alone(toy_kit: Path, fresh: Path, place: Path) -> None:
    before = everything(toy_kit)
    found = calibrate(toy_kit, fresh, out=place, why="new lamp")
    assert found.written == place
    assert everything(toy_kit) == before
    own = {"manifest.json", "manifest.sha256"}
    assert {name: digest for name, digest in everything(place).items() if name not in own} == {
        name: digest for name, digest in before.items() if name not in own
    }
    old, new = manifest_of(toy_kit), manifest_of(place)
    assert new.calibration == found.limits["fp32"].after
    assert new.model_copy(update={"calibration": old.calibration}) == old  # parity and provenance too
    assert list(place.parent.iterdir()) == [place]


def test_the_new_limits_are_those_of_the_fresh_scores(toy_kit: Path, fresh: Path, place: Path) -> None:
    calibrate(toy_kit, fresh, out=place, warn_rate=0.1, reject_rate=0.02)
    detector = Detector.load(place, threads=1)
    scores = sorted(detector.score_file(path).score for path in fresh.iterdir())
    assert detector.manifest.calibration.scores == scores
    # 121 places: twelve of them are 10 %, two are 2 %.
    assert detector.limits.warn.score == scores[-12]
    assert detector.limits.reject.score == scores[-2]
    assert detector.limits.reject.expected_rate == 2 / 121
    assert sum(score > detector.limits.warn.score for score in scores) == 11


def test_the_kits_own_rates_hold_where_none_is_given(toy_kit: Path, fresh: Path) -> None:
    after = calibrate(toy_kit, fresh).limits["fp32"].after
    assert (after.warn_rate, after.reject_rate) == (0.2, 0.01)
    assert after.limits.reject.meets_target


def test_what_was_in_force_becomes_history(toy_kit: Path, fresh: Path, place: Path) -> None:
    old = manifest_of(toy_kit)
    calibrate(toy_kit, fresh, out=place, why="new lamp")
    calibrate(place, fresh, in_place=True, warn_rate=0.1, why="summer")
    now = manifest_of(place).calibration
    first, second = now.history
    assert (now.why, second.why, first.why) == ("summer", "new lamp", HELD_OUT)
    assert first.created == old.provenance.created
    assert first.created < second.created <= (now.created or "")
    assert (first.count, second.count) == (12, 120)
    assert (first.warn_rate, second.warn_rate, now.warn_rate) == (0.2, 0.2, 0.1)
    assert first.limits == old.calibration.limits
    scores = old.calibration.scores
    assert (first.quantiles[0], first.quantiles[2], first.quantiles[4]) == (scores[0], np.median(scores), scores[-1])


def test_each_model_of_a_kit_gets_limits_from_its_own_scores(int8_kit: Path, fresh: Path, place: Path) -> None:
    before = manifest_of(int8_kit)
    found = calibrate(int8_kit, fresh, out=place)
    after = manifest_of(place)
    assert before.int8 is not None
    assert after.int8 is not None
    assert after.calibration == found.limits["fp32"].after
    assert after.int8.calibration == found.limits["int8"].after
    assert after.int8.calibration.history[-1].limits == before.int8.calibration.limits
    assert after.int8.model_copy(update={"calibration": before.int8.calibration}) == before.int8
    for precision in ("fp32", "int8"):
        detector = Detector.load(place, threads=1, precision=precision)
        assert detector.calibration.scores.tolist() == sorted(
            detector.score_file(path).score for path in fresh.iterdir()
        )


def test_the_history_is_cut_at_its_oldest_end(toy_kit: Path) -> None:
    manifest = manifest_of(toy_kit)
    for number in range(HISTORY_KEPT + 5):
        after = recalibrated(
            manifest.calibration,
            [0.1, 0.2, 0.3],
            warn_rate=0.5,
            reject_rate=0.25,
            why=str(number),
            made=manifest.provenance.created,
        )
        manifest = manifest.model_copy(update={"calibration": after})
    assert [each.why for each in manifest.calibration.history] == [str(i) for i in range(4, HISTORY_KEPT + 4)]
    assert parse_manifest(manifest.to_json().encode()) == manifest


def test_the_old_limits_are_tried_on_the_fresh_images(toy_kit: Path, fresh: Path) -> None:
    found = calibrate(toy_kit, fresh).limits["fp32"]
    detector = Detector.load(toy_kit, threads=1)
    scores = [detector.score_file(path).score for path in fresh.iterdir()]
    assert found.warn.flagged == sum(score > detector.limits.warn.score for score in scores)
    assert found.warn.band == alarm_count_interval(2, 12, 120)  # 20 % of 13 places are two
    assert found.reject.band == alarm_count_interval(1, 12, 120)
    assert found.reject.flagged <= found.warn.flagged <= found.warn.images == 120


def test_a_line_that_has_changed_is_seen(toy_kit: Path, toy, save, tmp_path: Path) -> None:
    for seed in range(1000, 1120):
        image = toy.draw(seed)
        image[:, :24] //= 2  # a shadow
        save(tmp_path / "fresh" / f"{seed}.png", image)
    found = calibrate(toy_kit, tmp_path / "fresh").limits["fp32"]
    assert found.reject.band is not None
    assert found.reject.flagged > found.reject.band[1]
    assert found.after.limits.reject.score > found.before.limits.reject.score


def test_a_limit_set_by_hand_promises_nothing_to_be_tried(kit: Path, fresh: Path) -> None:
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    limits = manifest.calibration.limits
    by_hand = type(limits.reject)(score=0.5, target_rate=None, expected_rate=None)
    limits = type(limits)(warn=limits.warn, reject=by_hand)
    changed = manifest.calibration.model_copy(update={"limits": limits})
    seal(kit, manifest.model_copy(update={"calibration": changed}))
    found = calibrate(kit, fresh).limits["fp32"]
    assert (found.reject.band, found.reject.flagged) == (None, 0)


def test_in_place_replaces_the_kit_and_leaves_nothing_beside_it(kit: Path, fresh: Path) -> None:
    calibrate(kit, fresh, in_place=True)
    assert len(manifest_of(kit).calibration.scores) == 120
    assert list(kit.parent.iterdir()) == [kit]


def test_in_place_changes_the_kit_that_a_link_leads_to(kit: Path, fresh: Path) -> None:
    link = kit.parent / "current"
    link.symlink_to(kit.name)
    calibrate(link, fresh, in_place=True)
    assert link.is_symlink()
    assert len(manifest_of(kit).calibration.scores) == 120


def test_a_kit_in_a_zip_gives_a_folder(kit: Path, fresh: Path, place: Path) -> None:
    zipped = Path(shutil.make_archive(str(kit.parent / "zipped"), "zip", kit))
    with pytest.raises(UsageError, match=r"a \.zip cannot be replaced in place; pass --out"):
        calibrate(zipped, fresh, in_place=True)
    calibrate(zipped, fresh, out=place)
    assert len(manifest_of(place).calibration.scores) == 120


def test_without_a_place_nothing_is_written(kit: Path, fresh: Path) -> None:
    before = everything(kit)
    assert calibrate(kit, fresh).written is None
    assert everything(kit) == before
    assert list(kit.parent.iterdir()) == [kit]


def test_too_few_images_are_refused_with_the_number_that_it_takes(toy_kit: Path, fresh: Path, place: Path) -> None:
    said = r"120 image files found, and a false-alarm rate of 0\.1 % takes at least 999; .* these can promise 0\.83 %"
    with pytest.raises(SourceError, match=said):
        calibrate(toy_kit, fresh, out=place, reject_rate=0.001)
    assert list(place.parent.iterdir()) == []


def test_images_of_the_bank_do_not_count(toy_kit: Path, toy, save, tmp_path: Path, place: Path) -> None:
    for seed in range(24):
        save(tmp_path / "trained" / f"{seed}.png", toy.draw(seed))
    said = r"12 of 24 images left \(12 in the kit's bank\), and a false-alarm rate of 5 % takes at least 19"
    with pytest.raises(SourceError, match=said):
        calibrate(toy_kit, tmp_path / "trained", out=place, reject_rate=0.05)
    for seed in range(1, 24, 2):
        (tmp_path / "trained" / f"{seed}.png").unlink()
    with pytest.raises(SourceError, match=r"0 of 12 images left") as refused:
        calibrate(toy_kit, tmp_path / "trained", out=place, reject_rate=0.1)
    assert "can promise" not in str(refused.value)


@pytest.mark.parametrize(("warn", "reject"), [(0.01, 0.05), (0.0, 0.5), (0.5, 0.0), (float("nan"), 0.1), (None, 0.5)])
def test_rates_that_mean_nothing_are_refused(warn: float | None, reject: float, toy_kit: Path, fresh: Path) -> None:
    with pytest.raises(UsageError, match="rate"):
        calibrate(toy_kit, fresh, warn_rate=warn, reject_rate=reject)


def test_places_that_cannot_be_are_refused(kit: Path, fresh: Path, tmp_path: Path) -> None:
    before = everything(kit)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for out, said in (
        (kit, "is the kit itself; pass --in-place"),
        (kit / "new", "lies within the kit"),
        (taken, "exists already; choose another name"),
    ):
        with pytest.raises(UsageError, match=said):
            calibrate(kit, fresh, out=out)
    with pytest.raises(UsageError, match="contradict each other"):
        calibrate(kit, fresh, out=tmp_path / "new", in_place=True)
    with pytest.raises(OutputError, match="cannot write"):
        calibrate(kit, fresh, out=taken / "thesis.txt" / "new")
    assert everything(kit) == before
    assert (taken / "thesis.txt").read_text() == "mine"


def test_a_damaged_kit_is_refused(kit: Path, fresh: Path, change_byte) -> None:
    change_byte(kit / "bank.npy", 300)
    with pytest.raises(KitError, match=r"bank\.npy: SHA-256 differs"):
        calibrate(kit, fresh, in_place=True)


def test_a_second_half_of_the_same_line_is_judged_as_promised(toy_kit: Path, toy, fresh: Path, place: Path) -> None:
    """The use of it: images that nobody has seen exceed the new limits about as often as the new kit says."""
    calibrate(toy_kit, fresh, out=place, warn_rate=0.1, reject_rate=0.02)
    detector = Detector.load(place, threads=1)
    scores = [detector.score(toy.draw(seed)).score for seed in range(3000, 3300)]
    for limit in (detector.limits.warn, detector.limits.reject):
        assert limit.expected_rate is not None
        flagged = Calibration(detector.manifest.calibration.scores).flagged(limit.expected_rate)
        low, high = alarm_count_interval(flagged, 120, 300, confidence=0.999)
        assert low <= sum(score > limit.score for score in scores) <= high


def test_a_kit_that_was_calibrated_meanwhile_keeps_those_limits(kit: Path, fresh: Path) -> None:
    def another_is_quicker(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if done == total:
            calibrate(kit, fresh, in_place=True, why="the quicker")

    with pytest.raises(UsageError, match="was changed while its new limits were measured; calibrate again"):
        calibrate(kit, fresh, in_place=True, why="the slower", report=another_is_quicker)
    assert manifest_of(kit).calibration.why == "the quicker"
    assert [path for path in kit.parent.iterdir() if path.name.startswith(".")] == []


def test_a_kit_that_was_left_aside_by_a_killed_process_is_named(kit: Path, fresh: Path) -> None:
    aside = kit.with_name(f".{kit.name}.0123456789ab.replaced")
    kit.rename(aside)
    with pytest.raises(KitError, match=rf"there is no kit here .*give .*{aside.name} its name back, {kit.name}"):
        calibrate(kit, fresh, in_place=True)
