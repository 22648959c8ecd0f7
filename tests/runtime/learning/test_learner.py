"""Learning with a real kit: what is learned, what is refused, and the way back."""

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from msc_edge.errors import UnreadableImageError, UsageError
from msc_edge.kit.layout import THUMBNAILS
from msc_edge.kit.writing import seal
from msc_edge.patch_rows import ROUNDING, distances_to
from msc_edge.preprocessing import Region
from msc_edge.runtime import Detector
from msc_edge.runtime.kept_images import Change
from msc_edge.runtime.learning import guards
from msc_edge.runtime.learning.learner import Learner

WHO = {"by": "Anna", "reason": "new supplier"}


@pytest.fixture
def learner(station: Path) -> Iterator[Learner]:
    with Learner(station / "patches.kit", threads=1) as opened:
        yield opened


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's patches are colours: an addition of a stain covers synthetic ones of its colour. Not tested here."""
    monkeypatch.setattr(guards, "MAX_LOST", 1.0)


@pytest.mark.usefixtures("generous")
class TestAnAddition:
    def test_makes_the_image_normal_and_like_ones_more_normal(self, learner: Learner, picture: Callable) -> None:
        image, like = picture("a.png", 100, "stain"), picture("b.png", 101, "stain")
        alone = Detector.load(learner.detector.path, threads=1)
        learned = learner.add(image, **WHO)
        assert (learned.before.verdict, learned.after.verdict) == ("reject", "normal")
        assert learned.before == alone.score_file(image)
        assert learned.after == learner.detector.score_file(image)
        assert learner.detector.score_file(like).score < alone.score_file(like).score
        assert (learned.image.name, learned.image.added.by, learned.image.added.reason) == ("a.png", *WHO.values())

    def test_has_a_row_for_each_patch_that_is_unlike_the_bank(
        self, learner: Learner, picture: Callable, toy: ModuleType
    ) -> None:
        learned = learner.add(picture("a.png", 100, "stain"), **WHO)
        (added,) = learner.detector.additions.learned
        output = Detector.load(learner.detector.path, threads=1).run(toy.draw(100, "stain"))
        assert output.patch_embeddings is not None
        assert output.patch_distances is not None
        bank = learner.detector.manifest.models["fp32"].banks.patches
        assert bank is not None
        assert bank.median_distance is not None
        assert 0 < learned.patches == len(added.rows.patches) < output.patch_distances.size / 2
        to_added = distances_to(added.rows.patches, output.patch_embeddings.reshape(-1, 3))
        least = np.sqrt(ROUNDING) * np.linalg.norm(output.patch_embeddings, axis=2).max()  # of any distance
        assert np.minimum(to_added, output.patch_distances.ravel()).max() <= max(bank.median_distance, least)

    def test_leaves_the_kit_as_it_is(self, learner: Learner, picture: Callable, station: Path) -> None:
        before = {path: path.read_bytes() for path in (station / "patches.kit").rglob("*") if path.is_file()}
        learner.add(picture("a.png", 100, "stain"), **WHO)
        assert {path: path.read_bytes() for path in (station / "patches.kit").rglob("*") if path.is_file()} == before

    def test_undone_restores_all_scores_to_the_last_digit_in_any_order(
        self, learner: Learner, picture: Callable, toy: ModuleType
    ) -> None:
        images = [toy.draw(seed, defect) for seed in range(20) for defect in (None, "scratch", "stain")]

        def scores() -> list[tuple[float, float | None]]:
            results = [learner.detector.score(image) for image in images]
            return [(result.score, result.patch_score) for result in results]

        alone = scores()
        one = learner.add(picture("a.png", 100, "stain"), **WHO).image.id
        with_one = scores()
        other = learner.add(picture("b.png", 100, "scratch"), **WHO).image.id
        assert scores() != with_one != alone
        learner.file.undo(one, Change.now("Ben", "mistake"))
        with_other = scores()
        again = learner.add(picture("a.png", 100, "stain"), **WHO).image.id
        learner.file.undo(other, Change.now("Ben", "mistake"))
        assert scores() == with_one
        learner.file.undo(again, Change.now("Ben", "mistake"))
        assert scores() == alone
        learner.add(picture("b.png", 100, "scratch"), **WHO)
        assert scores() == with_other

    def test_is_not_learned_twice(self, learner: Learner, picture: Callable) -> None:
        learner.add(picture("a.png", 100, "stain"), **WHO)
        with pytest.raises(UsageError, match=r"b\.png: is an addition already, number 1; --undo it first"):
            learner.add(picture("b.png", 100, "stain"), **WHO)

    def test_of_a_normal_image_is_nothing_to_learn(self, learner: Learner, picture: Callable) -> None:
        with pytest.raises(UsageError, match=r"a\.png: is normal already \(score .*, limit .*\); there is nothing to"):
            learner.add(picture("a.png", 200), **WHO)
        assert learner.file.images() == []

    def test_counts_by_the_limit_of_the_line(self, station: Path, picture: Callable) -> None:
        image = picture("a.png", 200)
        with Learner(station / "patches.kit", threads=1, threshold=-1.0) as strict:
            assert strict.add(image, **WHO).before.limit == -1.0

    def test_of_an_image_that_cannot_be_read_names_it(self, learner: Learner, station: Path) -> None:
        broken = station / "broken.png"
        broken.write_bytes(b"\x89PNG\r\n\x1a\n")
        with pytest.raises(UnreadableImageError, match=r"broken\.png: "):
            learner.add(broken, **WHO)
        with pytest.raises(UnreadableImageError, match=r"absent\.png: .*No such file"):
            learner.add(station / "absent.png", **WHO)

    def test_is_one_of_a_few_each_day(self, station: Path, picture: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        with Learner(station / "patches.kit", threads=1, per_day=2, threshold=-1.0) as learner:
            first = learner.add(picture("a.png", 100, "stain"), **WHO)
            learner.add(picture("b.png", 100, "scratch"), **WHO)
            with pytest.raises(UsageError, match="2 images were learned today, which is the most of a day"):
                learner.add(picture("c.png", 101, "stain"), **WHO)
            learner.file.undo(first.image.id, Change.now("Ben", "mistake"))
            learner.add(picture("c.png", 101, "stain"), **WHO)
            tomorrow = datetime.now().astimezone() + timedelta(days=1)

            class Later(datetime):
                @classmethod
                def now(cls, tz: object = None) -> datetime:  # noqa: ARG003
                    return tomorrow

            monkeypatch.setattr("msc_edge.runtime.learning.learner.datetime", Later)
            learner.add(picture("d.png", 102, "stain"), **WHO)


class TestGuards:
    def test_an_image_of_another_shape_is_not_of_this_camera(
        self, learner: Learner, station: Path, toy: ModuleType, save: Callable
    ) -> None:
        for name, image in (("strip.png", toy.draw(1)[:9]), ("dot.png", toy.draw(1)[:1, :1])):
            with pytest.raises(
                UsageError, match=rf"{name}: is not learned: its shape is \d+x\d, and the normal images"
            ):
                learner.add(save(station / name, image), **WHO)

    def test_a_defect_that_the_kit_does_not_reject_is_kept_with_its_verdict(
        self, learner: Learner, picture: Callable
    ) -> None:
        assert learner.keep_defect(picture("faint.png", 200), by="Anna", reason="faint")[1] == "normal"
        assert learner.keep_defect(picture("clear.png", 200, "empty"), by="Anna", reason="empty")[1] == "reject"

    def test_no_addition_makes_a_confirmed_defect_milder(self, learner: Learner, picture: Callable) -> None:
        learner.keep_defect(picture("defect.png", 100, "scratch"), by="Anna", reason="scratch")
        with pytest.raises(UsageError, match=r"a\.png: is not learned: the confirmed defect 1 would be 'normal', and"):
            learner.add(picture("a.png", 101, "scratch"), **WHO)
        assert [image.kind for image in learner.file.images()] == ["defect"]
        assert len(learner.detector.additions) == 0

    def test_a_defect_that_counts_no_more_guards_nothing(
        self, learner: Learner, picture: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guards, "MAX_LOST", 1.0)
        kept, _ = learner.keep_defect(picture("defect.png", 100, "scratch"), by="Anna", reason="scratch")
        learner.file.undo(kept.id, Change.now("Ben", "was normal"))
        assert learner.add(picture("a.png", 101, "scratch"), **WHO).defects.of == 0

    def test_synthetic_anomalies_must_stay_rejected(self, learner: Learner, station: Path, save: Callable) -> None:
        """An image with a defect, drawn as for the guard, is learned as if it was normal."""
        anomalies = guards._synthetic_anomalies(guards._thumbnails(learner.detector))
        rejected = next(image for image in anomalies if learner.detector.score(image).verdict == "reject")
        with pytest.raises(UsageError, match=r"not learned: of 10 synthetic anomalies that the kit rejects, 8 would"):
            learner.add(save(station / "defect.png", rejected), **WHO)
        assert learner.file.images() == []

    def test_a_defect_is_not_learned_and_an_addition_is_no_defect(
        self, learner: Learner, picture: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guards, "MAX_LOST", 1.0)
        learner.keep_defect(picture("defect.png", 100, "scratch"), by="Anna", reason="scratch")
        with pytest.raises(UsageError, match="is a confirmed defect already, number 1"):
            learner.add(picture("defect.png", 100, "scratch"), **WHO)
        learner.add(picture("a.png", 100, "stain"), **WHO)
        with pytest.raises(UsageError, match="is an addition already, number 2"):
            learner.keep_defect(picture("a.png", 100, "stain"), by="Anna", reason="stain")
        with pytest.raises(UsageError, match=r"b\.png: the kit rejects it, and with what was learned it is '\w+'"):
            learner.keep_defect(picture("b.png", 101, "stain"), by="Anna", reason="stain")

    def test_without_thumbnails_and_defects_nothing_is_learned(self, station: Path, picture: Callable) -> None:
        kit = station / "patches.kit"
        manifest = Detector.load(kit, threads=1).manifest
        shutil.rmtree(kit / THUMBNAILS)
        (kit / "manifest.json").unlink()
        (kit / "manifest.sha256").unlink()
        seal(kit, manifest)
        with Learner(kit, threads=1) as learner:
            with pytest.raises(UsageError, match=r"nothing shows what it would cost\. The kit has no thumbnails"):
                learner.add(picture("a.png", 100, "stain"), **WHO)
            learner.keep_defect(picture("defect.png", 100, "empty"), by="Anna", reason="empty")
            learned = learner.add(picture("a.png", 100, "stain"), **WHO)
            assert (learned.defects.of, learned.defects.after, learned.synthetic.of) == (1, 1, 0)

    def test_a_kit_with_a_region_learns_from_whole_frames(
        self, station: Path, toy: ModuleType, save: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its thumbnails are smaller than the frames, and would not contain the region."""
        monkeypatch.setattr(guards, "MAX_LOST", 1.0)
        kit = station / "patches.kit"
        manifest = Detector.load(kit, threads=1).manifest
        region = Region(x=0, y=0, width=128, height=96)
        preprocessing = manifest.preprocessing.model_copy(update={"region": region})
        (kit / "manifest.json").unlink()
        (kit / "manifest.sha256").unlink()
        seal(kit, manifest.model_copy(update={"preprocessing": preprocessing}))
        frame = cv2.resize(toy.draw(100, "stain"), (128, 96), interpolation=cv2.INTER_NEAREST)
        with Learner(kit, threads=1) as learner:
            learned = learner.add(save(station / "frame.png", frame), **WHO)
        assert (learned.before.verdict, learned.after.verdict) == ("reject", "normal")
        assert learned.synthetic.of > 0
