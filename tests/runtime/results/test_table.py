import os
from pathlib import Path

import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.images import find_images
from msc_edge.runtime.batch import Row, score_files
from msc_edge.runtime.results.rows import path_as_written, read_rows
from msc_edge.runtime.results.table import ScoreTable

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])


def good(path: str = "a.png", **changes: object) -> Row:
    fields = {"score": 0.1234567, "p_value": 1 / 13, "verdict": "reject", "nearest": "n.png", "milliseconds": 2.34}
    return Row(path, **{**fields, **changes})  # pyright: ignore[reportArgumentType]


def written(target: Path, some: list[Row]) -> Path:
    with ScoreTable.create(target, overwrite=True) as table:
        for row in some:
            table.write(row)
    return target


class TestCreate:
    @pytest.mark.parametrize("name", ["scores", "scores.txt", "scores.csv.gz", "scores.json", ".csv"])
    def test_another_suffix_is_refused_by_naming_the_two(self, tmp_path, name):
        with pytest.raises(UsageError, match=r"\.csv or \.jsonl"):
            ScoreTable.create(tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_the_suffix_may_be_in_capitals(self, tmp_path):
        assert list(read_rows(written(tmp_path / "S.CSV", [Row("a", error="x")]))) == [Row("a", error="x")]

    def test_an_existing_file_is_kept_and_both_ways_on_are_named(self, tmp_path):
        target = written(tmp_path / "s.csv", [good()])
        before = target.read_bytes()
        with pytest.raises(UsageError, match=r"--resume.*--overwrite"):
            ScoreTable.create(target)
        assert target.read_bytes() == before

    def test_overwriting_begins_anew(self, tmp_path):
        target = written(tmp_path / "s.csv", [good(), good()])
        ScoreTable.create(target, overwrite=True).close()
        assert list(read_rows(target)) == []

    def test_missing_folders_are_made(self, tmp_path):
        written(tmp_path / "a" / "b" / "s.csv", [good()])
        assert (tmp_path / "a" / "b" / "s.csv").is_file()

    @SUFFIXES
    def test_each_row_is_in_the_file_as_soon_as_it_is_written(self, tmp_path, suffix):
        target = tmp_path / f"s{suffix}"
        with ScoreTable.create(target) as table:
            for number in range(3):
                table.write(Row(str(number), error="x"))
                assert len(list(read_rows(target))) == number + 1 == table.rows

    @pytest.mark.parametrize("place", ["a file/s.csv", "x" * 300 + ".csv", "folder.csv"])
    def test_a_place_that_cannot_be_written_to(self, tmp_path, place):
        (tmp_path / "a file").touch()
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(OutputError, match="cannot write"):
            ScoreTable.create(tmp_path / place, overwrite=True)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_full_disk(self, tmp_path):
        (tmp_path / "s.csv").symlink_to("/dev/full")
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            ScoreTable.create(tmp_path / "s.csv", overwrite=True)


@pytest.fixture
def images(photos, toy, save, tmp_path) -> list[Path]:
    """Some good, some bad, some unreadable; names with a line end and with bytes that are no text."""
    names = ["line\nend.png", os.fsdecode(b"\xff.png")]
    try:
        made = [save(tmp_path / name, toy.draw(300 + number)) for number, name in enumerate(names)]
    except OSError:
        made = []  # not every file system takes such names
    return [*made, *find_images([photos]).paths]


def score_into(table: ScoreTable, detector, images) -> None:
    with table:
        for row in score_files(detector, table.missing(images), threads=2):
            table.write(row)


def without_times(path: Path) -> list[tuple]:
    return [(row.path, row.score, row.p_value, row.verdict, row.nearest, row.error) for row in read_rows(path)]


class TestResume:
    @SUFFIXES
    def test_a_file_cut_off_anywhere_is_completed_to_what_it_would_have_been(self, tmp_path, detector, images, suffix):
        whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
        score_into(ScoreTable.create(whole), detector, images)
        data, expected = whole.read_bytes(), without_times(whole)
        for length in [*range(0, 130), *range(130, len(data), 11), len(data) - 1, len(data)]:
            cut.write_bytes(data[:length])
            score_into(ScoreTable.resume(cut, detector, images), detector, images)
            assert without_times(cut) == expected, length

    @SUFFIXES
    def test_nothing_is_there_yet(self, tmp_path, detector, images, suffix):
        target = tmp_path / f"s{suffix}"
        score_into(ScoreTable.resume(target, detector, images), detector, images)
        assert len(list(read_rows(target))) == len(images)

    @SUFFIXES
    def test_a_whole_file_stays_as_it_is_to_the_byte(self, tmp_path, detector, images, suffix):
        target = tmp_path / f"s{suffix}"
        score_into(ScoreTable.create(target), detector, images)
        before = target.read_bytes()
        with ScoreTable.resume(target, detector, images) as table:
            assert table.missing(images) == []
            assert table.rows == len(images)
        assert target.read_bytes() == before

    def test_images_may_have_been_added_and_removed_since(self, tmp_path, detector, images):
        target = tmp_path / "s.csv"
        score_into(ScoreTable.create(target), detector, images[:5])
        score_into(ScoreTable.resume(target, detector, images[3:]), detector, images[3:])
        assert [row.path for row in read_rows(target)] == [path_as_written(each) for each in images]

    def refused(self, target, detector, images, reason):
        before = target.read_bytes()
        with pytest.raises(UsageError, match=reason):
            ScoreTable.resume(target, detector, images)
        assert target.read_bytes() == before

    @SUFFIXES
    @pytest.mark.parametrize(
        "text",
        ["name,points\na,1\n", "path,score\n", "x", "\n", "{}\n", "\ufeffpath,score,p_value,verdict,nearest", "PNG\0"],
    )
    def test_a_file_of_something_else_is_not_touched(self, tmp_path, detector, images, suffix, text):
        target = tmp_path / f"s{suffix}"
        target.write_text(text, encoding="utf-8")
        self.refused(target, detector, images, "not a score file.*--overwrite")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (",normal,", ",fine,"),
            (",normal,", ";normal;"),
            ("0.00", "0,00"),
            ("\n", "\r\n"),
            (".png,", '.png",'),
            ("the file is empty", "the file is empty,"),
        ],
    )
    def test_rows_that_somebody_edited_are_not_touched(self, tmp_path, detector, photos, old, new):
        target = tmp_path / "s.csv"
        images = [photos / "zero.png", photos / "good_100.png"]
        score_into(ScoreTable.create(target), detector, images)
        target.write_bytes(target.read_bytes().replace(old.encode(), new.encode()) + b'"\n' * (new == '.png",'))
        self.refused(target, detector, images, "s.csv")

    def test_rows_of_another_kit_are_not_mixed_with_those_of_this_one(self, tmp_path, detector, images):
        target = tmp_path / "s.csv"
        score_into(ScoreTable.create(target), detector, images)
        other = [row for row in read_rows(target) if row.score]
        for changed in (2e-5, -2e-5):
            written(target, [_moved(other[0], changed), *other[1:]])
            self.refused(target, detector, images, "this kit gives .* another kit.*--overwrite")
        written(target, [_moved(other[0], 5e-6), *other[1:]])
        ScoreTable.resume(target, detector, images).close()

    def test_the_comparison_takes_the_first_image_that_can_still_be_read(self, tmp_path, detector, photos):
        good = [photos / f"good_{seed}.png" for seed in (100, 101)]
        target = tmp_path / "s.csv"
        score_into(ScoreTable.create(target), detector, good)
        first, second = read_rows(target)
        gone = _moved(first, 1e-4)
        written(target, [Row("gone.png", gone.score, gone.p_value, gone.verdict, "n", 1.0), _moved(second, 1e-4)])
        self.refused(target, detector, [Path("gone.png"), *good], "good_101.*this kit gives")
        written(target, [Row("gone.png", gone.score, gone.p_value, gone.verdict, "n", 1.0), second])
        ScoreTable.resume(target, detector, [Path("gone.png"), *good]).close()

    @pytest.mark.parametrize("change", [{"threshold": 0.0001}, {"threshold": 1.9}, {"false_alarm_rate": 0.9}])
    def test_rows_of_other_limits_are_not_mixed_with_those_of_these(self, tmp_path, detector, images, change):
        target = tmp_path / "s.csv"
        score_into(ScoreTable.create(target), detector, images)
        moved = detector.with_limits(**change)
        self.refused(target, moved, images, "verdict .* other limits")
        # Also where none of the images can be scored again.
        self.refused(target, moved, [], "verdict .* other limits")

    def test_a_verdict_that_hangs_on_a_digit_that_was_not_written_is_let_pass(self, tmp_path, detector):
        limit = detector.limits.reject.score
        target = tmp_path / "s.csv"
        for score in (limit - 1e-9, limit, limit + 1e-9):
            p_value, verdict = detector.calibration.p_value(score), detector.limits.verdict(score)
            written(target, [Row("a.png", score, p_value, verdict, "n", 1.0)])
            ScoreTable.resume(target, detector, []).close()
        written(target, [Row("a.png", limit + 1e-5, detector.calibration.p_value(limit + 1e-5), "warn", "n", 1.0)])
        self.refused(target, detector, [], "verdict")

    def test_a_p_value_of_another_calibration_is_noticed(self, tmp_path, detector):
        target = written(tmp_path / "s.csv", [Row("a.png", 0.5, 1 / 301, "reject", "n", 1.0)])
        self.refused(target, detector, [], "p-value 0.003322 .* p-value 0.076923")


def _moved(row: Row, by: float) -> Row:
    assert row.score is not None
    return Row(row.path, row.score + by, row.p_value, row.verdict, row.nearest, row.milliseconds)
