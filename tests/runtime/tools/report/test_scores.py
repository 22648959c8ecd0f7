"""The report of a scored folder: `msc-edge score --report`."""

import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.runtime.results.image_result import read_score_file
from msc_edge.runtime.tools.report.scores import ScoreReport


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, arguments)])


def without_plot(sections: str) -> str:
    """Six decimals of a score can be in the next bar of the histogram."""
    return re.sub("<svg.*</svg>", "", sections)


class TestContent:
    def test_it_has_the_counts_and_the_most_anomalous_images(self, score_report, parts, text_of):
        images = list(read_score_file(score_report / "s.csv"))
        results = [(image.path, image.result) for image in images if image.result]
        text = text_of((score_report / "s.html").read_text(encoding="utf-8"))
        for verdict in ("normal", "warn", "reject"):
            count = sum(result.verdict == verdict for _, result in results)
            assert f"{count} {verdict} , {100 * count / len(images):.1f} %" in text
        assert "1 unreadable" in text
        assert " empty/zero.png the file is empty" in text
        shown = sorted(results, key=lambda each: -each[1].score)[:6]
        # All of them are above the twelve calibration scores of the toy kit.
        assert {result.p_value for _, result in shown} == {round(1 / 13, 6)}
        assert "p-value of each image: at most 1 in 13: all 12 calibration images scored lower." in text
        assert text.count("p-value") == 1
        places = [
            text.index(f"score {result.score:.6f} {Path(path).relative_to(parts / 'test')}") for path, result in shown
        ]
        assert places == sorted(places)
        assert f"Largest score first. The first 6 of {len(results)} images." in text

    def test_the_command_writes_the_same_page(self, score_report, sections, toy_kit, parts, tmp_path):
        report = tmp_path / "r.html"
        done = run(toy_kit, parts, "--report", report, "--gallery", 6)
        assert (done.exit_code, len(done.stdout.splitlines())) == (0, 17)
        assert f"report: {report}" in done.stderr
        assert sections(report) == sections(score_report / "s.html")

    def test_a_rejected_image_without_a_region_is_explained(self, patch_kit, masked_parts, text_of, tmp_path):
        rows, report = tmp_path / "s.csv", tmp_path / "r.html"
        run(patch_kit, masked_parts / "test", "--out", rows)
        results = [image.result for image in read_score_file(rows) if image.result]
        lowest = min(result.score for result in results)
        run(patch_kit, masked_parts / "test", "--out", rows, "--report", report, "--threshold", lowest, "--overwrite")
        results = [image.result for image in read_score_file(rows) if image.result]
        without = [result for result in results if result.verdict == "reject" and not result.regions]
        assert 0 < len(without) < len(results) - 1  # not the stains
        text = text_of(report.read_text(encoding="utf-8"))
        assert text.count("Rejected, although the heatmap has no region above its limit") == len(without)
        assert "Not rejected" not in text

    def test_paths_are_those_within_the_folder_of_all_images(self, toy_kit, toy, save, text_of, tmp_path, monkeypatch):
        for number, name in enumerate(("monday/line 3/a.png", "monday/line 4/b.png")):
            save(tmp_path / name, toy.draw(number, "stain"))
        monkeypatch.chdir(tmp_path / "monday")
        for paths, expected in (
            (
                ["line 3", tmp_path / "monday" / "line 4"],
                ["2 images in the folder monday", " line 3/a.png", " line 4/b.png"],
            ),
            (["../monday/line 3/a.png"], ["1 image in the folder line 3", " a.png"]),
        ):
            run(toy_kit, *paths, "--report", tmp_path / "r.html", "--overwrite")
            text = text_of((tmp_path / "r.html").read_text(encoding="utf-8"))
            assert all(each in text for each in expected)
            assert str(tmp_path) not in text

    def test_a_zipped_kit_shows_its_thumbnails_too(self, score_report, sections, toy_kit, parts, tmp_path):
        zipped = shutil.make_archive(str(tmp_path / "toy.kit"), "zip", toy_kit)
        run(zipped, parts, "--report", tmp_path / "r.html", "--gallery", 6)
        assert sections(tmp_path / "r.html") == sections(score_report / "s.html")

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_it_names_the_model_of_a_kit_with_two(self, int8_kit, photos, tmp_path, precision):
        run(int8_kit, photos / "warn.png", "--report", tmp_path / "r.html", "--precision", precision)
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert f", model {precision} (the kit has another model with its own limits)" in text

    def test_where_no_image_can_be_read_it_lists_the_reasons(self, toy_kit, tmp_path, text_of):
        (tmp_path / "zero.png").touch()
        assert run(toy_kit, tmp_path, "--report", tmp_path / "r.html").exit_code == 3
        text = text_of((tmp_path / "r.html").read_text(encoding="utf-8"))
        assert "zero.png the file is empty" in text
        assert "1 unreadable , 100.0 %" in text

    def test_a_name_with_line_breaks_is_one_line(self, toy_kit, toy, save, tmp_path):
        save(tmp_path / "in" / "a\nb\r.png", toy.draw(200, "stain"))
        (tmp_path / "in" / "c\nd.png").touch()
        run(toy_kit, tmp_path / "in", "--report", tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert r"a\nb\r.png" in page
        assert r"c\nd.png" in page
        assert "a\nb" not in page
        assert "c\nd" not in page

    def test_an_empty_gallery_shows_no_image(self, toy_kit, parts, tmp_path):
        run(toy_kit, parts, "--report", tmp_path / "r.html", "--gallery", 0)
        assert "<article" not in (tmp_path / "r.html").read_text(encoding="utf-8")


class TestResume:
    def test_a_continued_run_reports_all_rows(self, score_report, sections, toy_kit, parts, text_of, tmp_path):
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        run(toy_kit, parts / "test" / "empty", "--out", out, "--report", report)
        assert "5 images" in text_of(report.read_text(encoding="utf-8"))
        expected = without_plot(sections(score_report / "s.html"))
        for _ in ("with images to score", "with none left"):
            done = run(toy_kit, parts, "--out", out, "--resume", "--report", report, "--gallery", 6)
            assert done.exit_code == 0
            assert without_plot(sections(report)) == expected

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are always valid text")
    def test_a_file_whose_name_is_not_valid_text_is_shown(self, toy_kit, toy, save, text_of, tmp_path):
        save(tmp_path / os.fsdecode(b"n\xfcchtern.png"), toy.draw(1, "stain"))
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        for arguments in ((), ("--resume",)):
            done = run(toy_kit, tmp_path, "--out", out, *arguments, "--report", report)
            assert done.exit_code == 0
            page = report.read_text(encoding="utf-8")
            assert "n\\xfcchtern.png" in text_of(page)
            assert page.count("<img ") == 3

    def test_an_image_that_is_gone_has_a_card_with_the_reason(self, toy_kit, toy, save, text_of, tmp_path):
        for seed in (1, 2):
            save(tmp_path / f"{seed}.png", toy.draw(seed, "stain"))
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        run(toy_kit, tmp_path, "--out", out)
        (tmp_path / "1.png").unlink()
        assert run(toy_kit, tmp_path, "--out", out, "--resume", "--report", report).exit_code == 0
        assert "cannot be read any more" in text_of(report.read_text(encoding="utf-8"))

    def test_an_image_that_changed_is_not_shown(self, toy_kit, toy, save, text_of, tmp_path):
        path = save(tmp_path / "1.png", toy.draw(1, "stain"))
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        run(toy_kit, tmp_path, "--out", out)
        os.utime(path, (2e9, 2e9))
        assert run(toy_kit, tmp_path, "--out", out, "--resume", "--report", report).exit_code == 0
        assert "the file has changed since it was scored" in text_of(report.read_text(encoding="utf-8"))


def test_the_exit_code_is_that_of_the_verdicts(toy_kit, parts, tmp_path):
    done = run(toy_kit, parts, "--report", tmp_path / "r.html", "--fail-on-anomaly")
    assert (done.exit_code, (tmp_path / "r.html").is_file()) == (1, True)


def test_an_image_takes_eight_bytes(scored):
    report, count = ScoreReport(gallery=24), 20_000
    image = scored()
    tracemalloc.start()
    try:
        for number in range(count):
            report.add(scored(f"{number}.png", score=number / count) if number % 2 else image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # An array grows by an eighth, and is copied when it does. An image that is kept takes hundreds of bytes.
    assert peak < 2.5 * 8 * count + 100_000


def test_packages_of_extras_are_not_needed(toy_kit, parts, tmp_path):
    arguments = ["score", str(toy_kit), str(parts), "--report", "r.html"]
    program = (
        "import sys; sys.modules |= dict.fromkeys(['sklearn', 'scipy', 'torch', 'PIL']); "
        f"sys.argv[1:] = {arguments}; from msc_edge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, (tmp_path / "r.html").is_file()) == (0, True), done.stderr


class TestPlace:
    def refused(self, tmp_path: Path, *arguments: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        done = run(*arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return done.stderr

    def test_an_existing_report_is_replaced_only_with_overwrite_or_resume(self, toy_kit, photos, text_of, tmp_path):
        out, report = tmp_path / "s.csv", tmp_path / "r.html"
        report.write_text("precious")
        assert "--overwrite" in self.refused(tmp_path, toy_kit, photos, "--out", out, "--report", report)
        assert not out.exists()
        assert run(toy_kit, photos, "--out", out, "--report", report, "--overwrite").exit_code == 0
        assert "12 images" in text_of(report.read_text(encoding="utf-8"))
        run(toy_kit, photos, "--out", out, "--report", report, "--resume", "--gallery", 1)
        assert report.read_text(encoding="utf-8").count("<article") == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "s.csv"]

    def test_a_kit_is_not_written_into(self, kit, photos, tmp_path):
        assert "lies within the kit" in self.refused(tmp_path, kit, photos, "--report", kit / "r.html")

    def test_an_earlier_report_among_the_images_is_not_an_image(self, toy_kit, toy, save, tmp_path):
        save(tmp_path / "1.png", toy.draw(1))
        report = tmp_path / "r.html"
        run(toy_kit, tmp_path, "--report", report)
        # As a shell expands `DIR/*`.
        done = run(toy_kit, *sorted(tmp_path.iterdir()), "--report", report, "--overwrite")
        assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--gallery", "6"], "--report"),
            (["--report", "r.txt"], "ends in .html"),
            (["--report", "r.html", "--resume"], "--out"),
            (["--overwrite"], "--report"),
        ],
    )
    def test_options_without_effect_are_refused(self, toy_kit, photos, tmp_path, monkeypatch, options, reason):
        monkeypatch.chdir(tmp_path)
        assert reason in self.refused(tmp_path, toy_kit, photos, *options)
