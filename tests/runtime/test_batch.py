"""Scoring many files: one result each, in order, and score files that an interrupted run continues."""

import csv
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from msc_edge.errors import KitError, SourceError, UsageError
from msc_edge.image_files import find_images
from msc_edge.images import decode_image
from msc_edge.kit.layout import MANIFEST, MODEL_FILES
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector, score_folder
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.results.formats import path_as_written
from msc_edge.runtime.results.image_result import ImageResult, read_score_file
from msc_edge.text import csv_text

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])


class TestScoreImages:
    @pytest.mark.parametrize("threads", [1, 3, None])
    def test_each_file_gets_one_result_in_the_given_order(self, photos, detector, threads):
        paths = list(find_images([photos]).paths)[::-1]
        images = list(score_images(detector, paths, threads=threads))
        assert [image.path for image in images] == [str(path) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if path.name in ("cut.png", "zero.png"):
                assert image == ImageResult(str(path), None, error=image.error)
                assert image.error
            else:
                assert (image.result, image.error) == (detector.score_file(path), None)
                assert image.milliseconds is not None
                assert image.milliseconds > 0

    def test_thumbnails_are_made_only_where_they_are_wanted(self, photos, detector, toy):
        paths = list(find_images([photos]).paths)
        asked: list[ImageResult] = []

        def is_rejected(image: ImageResult) -> bool:
            asked.append(image)
            return image.result is not None and image.result.verdict == "reject"

        images = list(score_images(detector, paths, threads=2, thumbnail_if=is_rejected))
        assert [image.thumbnail is not None for image in images] == [
            image.result is not None and image.result.verdict == "reject" for image in images
        ]
        assert len(asked) == sum(image.result is not None for image in images)
        (stain,) = (image for image in images if "stain" in image.path)
        shown = decode_image(np.frombuffer(stain.thumbnail or b"", np.uint8))
        assert np.abs(shown.astype(int) - toy.draw(200, "stain")).mean() < 6

    def test_a_defect_of_the_kit_ends_the_run(self, photos, kit):
        model = onnx.load(kit / MODEL_FILES["fp32"])
        # NaN for images of any other height than the check image's: the kit opens.
        model.graph.node[-1].output[0] = "unit"
        for name, value in (("one", np.float32(1)), ("nan", np.float32(np.nan)), ("height", np.array([96]))):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        model.graph.node.extend(
            [
                helper.make_node("Shape", ["image"], ["found"], start=1, end=2),
                helper.make_node("Equal", ["found", "height"], ["is_check_image"]),
                helper.make_node("Where", ["is_check_image", "one", "nan"], ["factor"]),
                helper.make_node("Mul", ["unit", "factor"], ["embedding"]),
            ]
        )
        onnx.save(model, kit / MODEL_FILES["fp32"])
        seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
        with pytest.raises(KitError, match=r"model\.onnx: the output for this image is not finite"):
            list(score_images(Detector.load(kit), [photos / "good_100.png"] * 5, threads=2))

    def test_a_caller_that_stops_early_leaves_no_thread_running(self, photos, detector):
        before = threading.active_count()
        with closing(score_images(detector, [photos / "good_100.png"] * 10_000, threads=2)) as images:
            assert [next(images).error for _ in range(3)] == [None] * 3
        assert threading.active_count() <= before  # one of an earlier test may have ended

    @pytest.mark.parametrize("threads", [1, 4])
    def test_paths_are_taken_only_a_little_ahead(self, photos, detector, threads):
        """So memory stays the same however long the list is."""
        taken = []

        def endless() -> Iterator[Path]:
            for number in count():
                taken.append(number)
                yield photos / "good_100.png"

        with closing(score_images(detector, endless(), threads=threads)) as images:
            for done, _ in enumerate(islice(images, 60), start=1):
                assert len(taken) <= done + 2 * threads + 5


@pytest.fixture(scope="module")
def images(photos: Path, toy: Any, save: Callable, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of each verdict and unreadable ones; names with a line end and with bytes that are not text."""
    folder, names = tmp_path_factory.mktemp("odd"), ["line\nend.png", os.fsdecode(b"\xff.png")]
    try:
        made = [save(folder / name, toy.draw(300 + number)) for number, name in enumerate(names)]
    except OSError:
        made = []  # not every file system accepts such names
    return [*made, *find_images([photos]).paths]


@pytest.fixture(scope="module")
def complete(toy_kit: Path, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The score file of `images` that an uninterrupted run writes, by suffix."""
    folder = tmp_path_factory.mktemp("complete")
    for suffix in (".csv", ".jsonl"):
        score_folder(toy_kit, images, folder / f"s{suffix}", threads=1)
    return {suffix: (folder / f"s{suffix}").read_bytes() for suffix in (".csv", ".jsonl")}


def without_times(path: Path) -> list[tuple]:
    return [(image.path, image.result, image.error) for image in read_score_file(path)]


class TestScoreFolder:
    @SUFFIXES
    def test_the_file_holds_the_results_and_the_summary_counts_them(self, toy_kit, photos, detector, tmp_path, suffix):
        received: list[ImageResult] = []
        steps: list[tuple[str, int, int]] = []

        def report(task: str, done: int, total: int, note: str = "") -> None:
            assert note.endswith(" images/s")
            steps.append((task, done, total))

        out = tmp_path / f"s{suffix}"
        done = score_folder(toy_kit, [photos], out, threads=2, on_result=[received.append], report=report)
        expected = list(score_images(detector, find_images([photos]).paths, threads=1))
        assert [(image.path, image.result, image.error) for image in received] == [
            (image.path, image.result, image.error) for image in expected
        ]
        rows = list(read_score_file(out))
        assert [(row.path, row.error) for row in rows] == [(image.path, image.error) for image in expected]
        for row, image in zip(rows, expected, strict=True):
            if row.result and image.result:
                assert row.result.score == round(image.result.score, 6)
                assert (row.result.verdict, row.result.nearest) == (image.result.verdict, image.result.nearest)
        assert (done.summary.images, done.summary.unreadable, done.scored_now) == (12, 2, 12)
        assert (done.other_files, done.earlier_rows) == (2, None)
        assert done.seconds > 0
        assert steps == [("scoring", number, 12) for number in range(1, 13)]

    def test_without_a_file_nothing_is_written(self, toy_kit, photos, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert score_folder(str(toy_kit), [str(photos)]).summary.images == 12
        assert list(tmp_path.iterdir()) == []

    def test_paths_may_be_text(self, toy_kit, photos, tmp_path):
        done = score_folder(str(toy_kit), str(photos), str(tmp_path / "s.csv"))
        assert done.summary.images == len(list(read_score_file(tmp_path / "s.csv"))) == len(find_images([photos]).paths)

    def test_an_open_kit_is_used_as_it_is(self, toy_kit, photos):
        with Kit.open(toy_kit) as kit:
            done = score_folder(kit, [photos / "warn.png"], search="hnsw", precision="fp32", backend="onnxruntime")
        assert done.detector.kit == kit.identity
        assert done.detector.bank.search.name == "hnsw"

    def test_limits_are_those_of_the_options(self, toy_kit, photos):
        assert score_folder(toy_kit, [photos], threshold=0.0001).summary.verdicts["reject"] == 10
        assert score_folder(toy_kit, [photos], threshold=1.5).summary.verdicts["reject"] == 0
        assert score_folder(toy_kit, [photos], false_alarm_rate=0.9).summary.verdicts["reject"] > 3

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"resume": True, "overwrite": True, "out": "s.csv"}, "exclude each other"),
            ({"resume": True}, "name it with --out"),
            ({"out": "s.txt"}, r"\.csv or \.jsonl"),
            ({"out": "s.csv", "threshold": float("nan")}, "finite"),
            ({"out": "s.csv", "threads": 0}, "threads is 0; expected a whole number from 1"),
            ({"excluded": [3]}, r"excluded\[0\] is 3; expected a path"),
            ({"on_result": print}, "on_result is .*; expected a list of functions"),
            ({"on_image": 3}, "on_image is 3; expected a function"),
            ({"threshold": "0.3"}, "threshold is '0.3'; expected a number"),
        ],
        ids=str,
    )
    def test_options_that_contradict_each_other_are_refused(self, toy_kit, photos, tmp_path, options, reason):
        if "out" in options:
            options = options | {"out": tmp_path / options["out"]}
        with pytest.raises(UsageError, match=reason):
            score_folder(toy_kit, [photos], **options)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("paths", [None, 3, b"images", [None]])
    def test_what_is_no_path_is_refused(self, toy_kit, paths):
        with pytest.raises(UsageError, match=r"paths.* expected a path"):
            score_folder(toy_kit, paths)

    def test_an_existing_file_is_kept(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        out.write_text("precious")
        for options in ({}, {"resume": True}, {"overwrite": True, "threshold": float("nan")}):
            with pytest.raises(UsageError):
                score_folder(toy_kit, [photos], out, **options)  # pyright: ignore[reportArgumentType]
        with pytest.raises(KitError):
            score_folder(tmp_path / "none", [photos], out, overwrite=True)
        with pytest.raises(SourceError):
            score_folder(toy_kit, [tmp_path / "none"], out, overwrite=True)
        assert out.read_text() == "precious"


class TestExcluded:
    def test_the_file_to_write_and_excluded_files_are_not_images(self, toy_kit, toy, save, tmp_path):
        for seed in (100, 101):
            save(tmp_path / f"{seed}.png", toy.draw(seed))
        out, page = tmp_path / "scores.csv", tmp_path / "report.html"
        for _ in range(2):
            # As a shell expands `DIR/*`.
            done = score_folder(toy_kit, sorted(tmp_path.iterdir()), out, overwrite=True, excluded=[page])
            assert [image.error for image in read_score_file(out)] == [None, None]
            assert done.summary.images == 2
            page.write_text("a report")

    def test_an_image_is_never_overwritten(self, toy_kit, photos, tmp_path):
        image = tmp_path / "image.csv"
        image.write_bytes(data := (photos / "good_100.png").read_bytes())
        for options in ({"out": image, "overwrite": True}, {"excluded": [image]}):
            with pytest.raises(UsageError, match="is one of the images to score"):
                score_folder(toy_kit, [image], **options)  # pyright: ignore[reportArgumentType]
        assert image.read_bytes() == data

    def test_nothing_is_written_into_the_kit(self, kit, photos):
        before = sorted(kit.rglob("*"))
        for options in ({"out": kit / "s.csv"}, {"excluded": [kit / "r.html"]}):
            with pytest.raises(UsageError, match="lies within the kit"):
                score_folder(kit, [photos], **options)  # pyright: ignore[reportArgumentType]
        assert sorted(kit.rglob("*")) == before


@SUFFIXES
def test_names_with_line_breaks_are_kept_and_read_back(toy_kit, toy, save, tmp_path, suffix):
    names = ["a\nb.png", "c\rd.png", "e\r\nf.png", "\nbegin.png", "end.png\n.png", 'q"\n".png', "u\u2028\x85.png"]
    paths = [save(tmp_path / "images" / name, toy.draw(100)) for name in names]
    paths.append(save(tmp_path / "images" / "sub\nfolder" / "x.png", toy.draw(101)))
    (tmp_path / "images" / "empty\n.png").touch()
    out = tmp_path / f"s{suffix}"
    score_folder(toy_kit, tmp_path / "images", out, threads=1)
    expected = sorted(map(str, [*paths, tmp_path / "images" / "empty\n.png"]))
    assert sorted(image.path for image in read_score_file(out)) == expected
    before = out.read_bytes()
    assert score_folder(toy_kit, tmp_path / "images", out, resume=True).scored_now == 0
    assert out.read_bytes() == before
    with out.open(encoding="utf-8", newline="") as file:  # as other programs read it
        rows = list(csv.DictReader(file)) if suffix == ".csv" else [json.loads(line) for line in file]
    assert sorted(csv_text(row["path"]) for row in rows) == expected


class TestResume:
    @SUFFIXES
    def test_an_interrupted_file_is_completed_to_the_same_rows(self, toy_kit, images, complete, tmp_path, suffix):
        data, out = complete[suffix], tmp_path / f"s{suffix}"
        out.write_bytes(data)
        expected = without_times(out)
        with Kit.open(toy_kit) as kit:
            for length in [0, 1, 90, *range(91, len(data), len(data) // 9), len(data) - 1]:
                out.write_bytes(data[:length])
                done = score_folder(kit, images, out, resume=True, threads=1)
                assert without_times(out) == expected, length
                assert done.summary.images == len(images)
                assert (done.earlier_rows is None) == (done.scored_now == len(images))

    @SUFFIXES
    def test_without_an_earlier_file_all_images_are_scored(self, toy_kit, images, tmp_path, suffix):
        done = score_folder(toy_kit, images, tmp_path / f"s{suffix}", resume=True)
        assert done.scored_now == len(list(read_score_file(tmp_path / f"s{suffix}"))) == len(images)

    @SUFFIXES
    def test_a_complete_file_stays_the_same_to_the_byte(self, toy_kit, images, complete, tmp_path, suffix):
        out = tmp_path / f"s{suffix}"
        out.write_bytes(complete[suffix])
        received: list[ImageResult] = []
        done = score_folder(toy_kit, images, out, resume=True, on_result=[received.append])
        assert out.read_bytes() == complete[suffix]
        assert (done.scored_now, done.summary.images) == (0, len(images))
        assert done.earlier_rows == out.stat().st_mtime
        rows = list(read_score_file(out))
        assert [image.result for image in received] == [row.result for row in rows]
        assert [image.path for image in received] == [str(path) for path in images]  # not the text that a row has

    def test_two_names_that_are_written_alike_are_both_scored(self, toy_kit, toy, save, tmp_path):
        """A name that is no valid text is written with a backslash, which another name may really have."""
        first = save(tmp_path / "in" / os.fsdecode(b"\xff.png"), toy.draw(100))
        second = save(tmp_path / "in" / "\\xff.png", toy.draw(200, "scratch"))
        assert path_as_written(first) == path_as_written(second)
        out = tmp_path / "s.csv"
        score_folder(toy_kit, [first], out)
        done = score_folder(toy_kit, [tmp_path / "in"], out, resume=True)
        assert (done.summary.images, done.scored_now) == (2, 1)

    @SUFFIXES
    def test_repeated_rows_are_refused(self, toy_kit, images, complete, tmp_path, suffix):
        out = tmp_path / f"s{suffix}"
        out.write_bytes(complete[suffix] + complete[suffix].splitlines(keepends=True)[-1])
        self.refused(toy_kit, images, out, "has 2 rows of .* was edited")

    def test_rows_behind_a_stray_quote_are_not_removed(self, toy_kit, images, complete, tmp_path):
        out = tmp_path / "s.csv"
        lines = complete[".csv"].splitlines(keepends=True)
        out.write_bytes(b"".join([*lines[:3], b'"' + lines[3], *lines[4:]]))
        self.refused(toy_kit, images, out, "is damaged from byte")

    def test_a_verdict_that_contradicts_its_score_is_refused(self, toy_kit, images, complete, tmp_path):
        out = tmp_path / "s.csv"
        out.write_bytes(complete[".csv"].replace(b",reject,", b",normal,"))
        self.refused(toy_kit, images, out, "verdict contradicts score and limit")

    def test_images_may_be_added_and_removed_in_between(self, toy_kit, images, tmp_path):
        out = tmp_path / "s.csv"
        score_folder(toy_kit, images[:5], out)
        done = score_folder(toy_kit, images[3:], out, resume=True)
        assert [image.path for image in read_score_file(out)] == [path_as_written(path) for path in images]
        assert (done.summary.images, done.scored_now) == (len(images), len(images) - 5)

    def refused(self, kit: Path, images: list[Path], out: Path, reason: str, **options: Any) -> None:
        before = out.read_bytes()
        with pytest.raises(UsageError, match=reason):
            score_folder(kit, images, out, resume=True, **options)
        assert out.read_bytes() == before
        assert list(out.parent.iterdir()) == [out]

    @SUFFIXES
    def test_rows_of_another_kit_are_refused_by_its_sha(self, kit, toy_kit, images, complete, tmp_path, suffix):
        manifest = parse_manifest((kit / MANIFEST).read_bytes())
        seal(kit, manifest.model_copy(update={"name": "other"}))  # the same scores, and another kit all the same
        (tmp_path / "out").mkdir()
        out = tmp_path / "out" / f"s{suffix}"
        out.write_bytes(complete[suffix])
        shas = [(each / "manifest.sha256").read_text()[:12] for each in (toy_kit, kit)]
        self.refused(kit, images, out, f"was scored with kit {shas[0]}, and now kit {shas[1]} is given; .*--overwrite")

    def test_rows_of_another_model_are_refused(self, int8_kit, images, tmp_path):
        out = tmp_path / "s.csv"
        score_folder(int8_kit, images, out, precision="fp32")
        self.refused(int8_kit, images, out, "with model fp32, and now model int8 .*--precision", precision="int8")
        assert score_folder(int8_kit, images, out, precision="fp32", resume=True).scored_now == 0

    @pytest.mark.parametrize("options", [{"threshold": 0.0001}, {"threshold": 1.9}, {"false_alarm_rate": 0.9}], ids=str)
    def test_rows_of_another_limit_are_refused(self, toy_kit, images, complete, tmp_path, options):
        out = tmp_path / "s.csv"
        out.write_bytes(complete[".csv"])
        self.refused(toy_kit, images, out, r"with limit 0\.\d{6}, and now limit [01]\.\d{6} is given", **options)
        # Also where no image of the file is scored again.
        self.refused(toy_kit, images[-1:], out, "limit", **options)

    def test_the_same_limit_given_by_hand_is_accepted(self, toy_kit, images, tmp_path):
        out = tmp_path / "s.csv"
        score_folder(toy_kit, images[:3], out, threshold=1 / 3)
        assert score_folder(toy_kit, images, out, threshold=1 / 3, resume=True).scored_now == len(images) - 3

    def test_a_file_of_something_else_is_refused(self, toy_kit, images, tmp_path):
        out = tmp_path / "s.csv"
        out.write_text("name,points\na,1\n")
        self.refused(toy_kit, images, out, "not a row file of msc-edge")

    @pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
    def test_a_score_file_of_0_1_0_is_moved_aside_and_all_images_are_scored(
        self, toy_kit, written_by_0_1_0, tmp_path, monkeypatch, caplog, name
    ):
        monkeypatch.chdir(written_by_0_1_0)
        out = tmp_path / name
        out.write_bytes(before := (written_by_0_1_0 / name).read_bytes())
        with caplog.at_level(logging.WARNING, "msc_edge"):
            done = score_folder(toy_kit, ["images"], out, resume=True)
        (aside,) = (path for path in tmp_path.iterdir() if path != out)
        assert aside.read_bytes() == before
        assert caplog.messages == [
            f"{out}: written by another version of msc-edge; moved to {aside}, all images are scored again"
        ]
        assert done.scored_now == done.summary.images == len(list(read_score_file(out))) == 7


class TestCtrlC:
    def stopped(self, kit: Path, images: list[Path], out: Path | None) -> str:
        seen: list[ImageResult] = []

        def stop_at_the_third(image: ImageResult) -> None:
            seen.append(image)
            if len(seen) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as stop:
            score_folder(kit, images, out, on_result=[stop_at_the_third])
        (note,) = stop.value.__notes__
        return note

    def test_the_note_says_how_many_rows_are_kept(self, toy_kit, images, tmp_path):
        out = tmp_path / "s.csv"
        assert self.stopped(toy_kit, images, out) == f"3 rows are in {out}; --resume continues there"
        assert len(list(read_score_file(out))) == 3

    def test_without_a_file_the_note_names_the_option(self, toy_kit, images):
        assert self.stopped(toy_kit, images, None) == (
            "nothing was kept; with --out an interrupted run can be continued"
        )
