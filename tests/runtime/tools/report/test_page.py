"""The pages as a person opens them: in a real browser, without network."""

import html
import json
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
from msc_edge.errors import OutputError, UsageError
from msc_edge.kit.opening import Kit
from msc_edge.runtime.batch import Row, score_files
from msc_edge.runtime.results.rows import read_rows
from msc_edge.runtime.tools.report.report_path import check_place
from msc_edge.runtime.tools.report.scores import ScoreReport

SCRIPT = "<script>alert(1)<"  # a folder, with "script>.png" in it


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def text_of(page: str) -> str:
    """What a page says, without its style and its markup."""
    said = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(said).split())


def addresses(page: str) -> set[str]:
    """Everything that a browser would fetch."""
    found = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'>\s]*)|url\(([^)]*)\)""", page)
    return {(first or second)[:5] for first, second in found} - {""}


@pytest.fixture(scope="module")
def parts(tmp_path_factory, toy, save) -> Path:
    """A data set with a miss, a false alarm, an unreadable image and a name that would be markup."""
    folder = tmp_path_factory.mktemp("parts")
    test = folder / "test"
    for seed in range(500, 508):
        save(test / "good" / f"{seed}.png", toy.draw(seed))
    save(test / "good" / "really a stain.png", toy.draw(520, "stain"))
    save(test / "dent" / "really good.png", toy.draw(521))
    for seed in range(530, 534):
        save(test / "empty" / f"{seed}.png", toy.draw(seed, "empty"))
    save(test / SCRIPT / "script>.png", toy.draw(540, "scratch"))
    (test / "empty" / "zero.png").touch()
    return folder


@pytest.fixture(scope="module")
def evaluated(toy_kit, parts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "out"
    assert run("evaluate", toy_kit, parts, "--out", out, "--resamples", 100).exit_code == 0
    return out


@pytest.fixture(scope="module")
def scored(toy_kit, parts, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("scored")
    done = run("score", toy_kit, parts, "--out", place / "s.csv", "--report", place / "s.html", "--gallery", 6)
    assert done.exit_code == 0
    assert f"report: {place / 's.html'}" in done.stderr
    return place


class TestEvaluation:
    def test_opens_without_network_and_without_complaints_and_has_the_figures(self, evaluated, browse):
        opened = browse(evaluated / "report.html")
        assert opened.complaints == []
        found = json.loads((evaluated / "evaluation.json").read_bytes())
        text = text_of(opened.dom)
        for figure in found["figures"].values():
            assert f"{figure['value']:.4f} {figure['low']:.4f} to {figure['high']:.4f}" in text
        for kind in found["kinds"]:
            assert f"{kind['label']} {kind['images']}" in text
            assert f"{kind['auroc']:.4f} {kind['average_precision']:.4f} {kind['warned']} (" in text
        for name in ("warn", "reject"):
            limit = found[name]
            assert f"{name} {limit['score']:.6f} {limit['false_alarms']} of {limit['good']} (" in text
            assert f"{limit['band'][0]} to {limit['band'][1]}: " in text
        assert "test/empty/zero.png the file is empty" in text

    def test_the_galleries_have_the_misses_the_false_alarms_and_the_rest(self, evaluated):
        text = text_of((evaluated / "report.html").read_text(encoding="utf-8"))
        heads = ["Worst misses", "Worst false alarms", "Defects that were caught", "Not read"]
        _, missed, alarms, caught, _ = re.split("|".join(heads), text)
        assert "test/dent/really good.png nearest normal" in missed
        assert "truth: dent" in missed
        assert "test/good/really a stain.png nearest normal" in alarms
        assert re.findall(r"test/\S*/53\d\.png", caught)
        assert "All 5 are shown" in caught

    def test_each_image_stands_beside_two_normals(self, evaluated):
        page = (evaluated / "report.html").read_text(encoding="utf-8")
        cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
        assert len(cards) == 8
        assert all(card.count("<img ") == 3 for card in cards)

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_page_says_which_of_two_models_scored(self, int8_kit, toy_kit, parts, tmp_path, precision):
        out = tmp_path / "two"
        done = run("evaluate", int8_kit, parts, "--out", out, "--resamples", 100, "--precision", precision)
        words = f", {precision} (the kit has another model too, with limits of its own)"
        assert words in (out / "report.html").read_text(encoding="utf-8")
        assert f"model: {precision}, one of two" in done.stdout
        page = tmp_path / "scores.html"
        run("score", int8_kit, parts, "--report", page, "--precision", precision)
        assert words in page.read_text(encoding="utf-8")
        done = run("evaluate", toy_kit, parts, "--out", tmp_path / "one", "--resamples", 100)
        assert "another model" not in (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
        assert "one of two" not in done.stdout

    def test_galleries_can_be_left_out_or_have_nothing_to_show(self, toy_kit, parts, tmp_path):
        run("evaluate", toy_kit, parts, "--out", tmp_path / "a", "--resamples", 100, "--gallery", 0)
        assert "<article" not in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
        run("evaluate", toy_kit, parts, "--out", tmp_path / "b", "--resamples", 100, "--threshold", 0)
        assert "Every defective part was rejected." in (tmp_path / "b" / "report.html").read_text(encoding="utf-8")


class TestScores:
    def test_opens_without_network_and_without_complaints_and_has_the_counts(self, scored, browse):
        opened = browse(scored / "s.html")
        assert opened.complaints == []
        rows, text = list(read_rows(scored / "s.csv")), text_of(opened.dom)
        for verdict in ("normal", "warn", "reject"):
            count = sum(row.verdict == verdict for row in rows)
            assert f"{count} {verdict} , {100 * count / len(rows):.1f} %" in text
        assert "1 unreadable" in text
        assert "zero.png the file is empty" in text
        most_anomalous = sorted((row for row in rows if row.score is not None), key=lambda row: -(row.score or 0))[:6]
        places = [text.index(f"score {row.score:.6f} · p-value {row.p_value:.4f} {row.path}") for row in most_anomalous]
        assert places == sorted(places)
        assert f"These are 6 of {len(rows) - 1}." in text

    def test_a_resumed_run_reports_all_rows(self, scored, toy_kit, parts, tmp_path):
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        run("score", toy_kit, parts / "test" / "empty", "--out", out, "--report", report)
        assert "5 images" in text_of(report.read_text(encoding="utf-8"))
        for _ in ("with images to score", "with none left"):
            done = run("score", toy_kit, parts, "--out", out, "--resume", "--report", report, "--gallery", 6)
            assert done.exit_code == 0
            # Six decimals of a score can be in the next bar of the histogram.
            assert re.sub("<svg.*</svg>", "", sections(report)) == re.sub(
                "<svg.*</svg>", "", sections(scored / "s.html")
            )

    def test_without_a_score_file(self, scored, toy_kit, parts, tmp_path):
        done = run("score", toy_kit, parts, "--report", tmp_path / "r.html", "--gallery", 6)
        assert done.exit_code == 0
        assert len(done.stdout.splitlines()) == 17
        assert sections(tmp_path / "r.html") == sections(scored / "s.html")

    def test_a_zipped_kit_shows_its_thumbnails_too(self, scored, toy_kit, parts, tmp_path):
        zipped = shutil.make_archive(str(tmp_path / "toy.kit"), "zip", toy_kit)
        run("score", zipped, parts, "--report", tmp_path / "r.html", "--gallery", 6)
        assert sections(tmp_path / "r.html") == sections(scored / "s.html")

    def test_where_nothing_could_be_read(self, toy_kit, tmp_path):
        (tmp_path / "zero.png").touch()
        done = run("score", toy_kit, tmp_path, "--report", tmp_path / "r.html")
        assert done.exit_code == 3
        text = text_of((tmp_path / "r.html").read_text(encoding="utf-8"))
        assert "zero.png the file is empty" in text
        assert "1 unreadable , 100.0 %" in text

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are text")
    def test_names_that_are_not_text_are_opened_when_they_come_from_the_score_file(self, toy_kit, toy, save, tmp_path):
        save(tmp_path / os.fsdecode(b"n\xfcchtern.png"), toy.draw(1, "stain"))
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        run("score", toy_kit, tmp_path, "--out", out)
        assert run("score", toy_kit, tmp_path, "--out", out, "--resume", "--report", report).exit_code == 0
        page = report.read_text(encoding="utf-8")
        assert "n\\xfcchtern.png" in text_of(page)
        assert page.count("<img ") == 3

    def test_a_image_that_has_gone_has_a_card_that_says_so(self, toy_kit, toy, save, tmp_path):
        for seed in (1, 2):
            save(tmp_path / f"{seed}.png", toy.draw(seed, "stain"))
        out, report = tmp_path / "s.csv", tmp_path / "s.html"
        run("score", toy_kit, tmp_path, "--out", out)
        (tmp_path / "1.png").unlink()
        assert run("score", toy_kit, tmp_path, "--out", out, "--resume", "--report", report).exit_code == 0
        assert "cannot be read any more" in text_of(report.read_text(encoding="utf-8"))

    def test_ends_with_the_exit_code_of_the_verdicts(self, toy_kit, parts, tmp_path):
        done = run("score", toy_kit, parts, "--report", tmp_path / "r.html", "--fail-on-anomaly")
        assert (done.exit_code, (tmp_path / "r.html").is_file()) == (1, True)

    def test_a_million_rows_take_eight_bytes_each(self):
        report, rows = ScoreReport(gallery=24), 200_000
        tracemalloc.start()
        try:
            for number in range(rows):
                report.add(Row(f"{number}.png", number / rows, 0.5, "normal", "n.png", 1.0))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # An array grows by an eighth, and is copied when it does.
        assert peak < 2.5 * 8 * rows + 200_000

    def test_scikit_learn_is_not_needed(self, toy_kit, parts, tmp_path):
        arguments = ["score", str(toy_kit), str(parts), "--report", "r.html"]
        program = (
            "import sys; sys.modules |= dict.fromkeys(['sklearn', 'scipy', 'torch', 'PIL']); "
            f"sys.argv[1:] = {arguments}; from msc_edge.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert (done.returncode, (tmp_path / "r.html").is_file()) == (0, True), done.stderr


def sections(report: Path) -> str:
    """A page without what is said about the kit above, where its name stands."""
    return report.read_text(encoding="utf-8").partition('<div class="tiles')[2]


class TestEveryPage:
    @pytest.fixture(params=["evaluation", "scores"])
    def page(self, request, evaluated, scored) -> Path:
        return evaluated / "report.html" if request.param == "evaluation" else scored / "s.html"

    def test_has_everything_in_itself(self, page):
        text = page.read_text(encoding="utf-8")
        assert addresses(text) == {"data:"}
        assert "http:" not in text
        assert "https:" not in text

    def test_has_names_and_no_markup_of_names(self, page, browse):
        opened = browse(page)
        for text in (page.read_text(encoding="utf-8"), opened.dom):
            assert "<script" not in text.lower()
        assert "<script>alert(1)</script>.png" in text_of(opened.dom)

    def test_lets_no_script_run_and_nothing_be_fetched_should_one_get_in(self, page, browse, tmp_path):
        """And so the browser's complaints are heard by these tests."""
        worse = tmp_path / "worse.html"
        inside = "<script>document.title = 'run'</script><img src='http://example.org/a.png'></body>"
        worse.write_text(page.read_text(encoding="utf-8").replace("</body>", inside), encoding="utf-8")
        opened = browse(worse)
        assert "<title>run" not in opened.dom
        assert len([line for line in opened.complaints if "Content Security Policy" in line]) == 2


class TestPlace:
    def refused(self, tmp_path: Path, *arguments: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        done = run("score", *arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return done.stderr

    def test_a_report_that_is_there_is_kept_unless_it_is_to_be_replaced(self, toy_kit, photos, tmp_path):
        report = tmp_path / "r.html"
        report.write_text("precious")
        assert "--overwrite" in self.refused(tmp_path, toy_kit, photos, "--report", report)
        assert run("score", toy_kit, photos, "--report", report, "--overwrite").exit_code == 0
        assert "12 images" in text_of(report.read_text(encoding="utf-8"))
        assert [path.name for path in tmp_path.iterdir()] == ["r.html"]

    def test_resume_replaces_a_report_of_ours_and_no_other_page(self, toy_kit, photos, tmp_path):
        out, report = tmp_path / "s.csv", tmp_path / "r.html"
        run("score", toy_kit, photos, "--out", out)
        report.write_text("<!doctype html><title>precious</title>")
        said = self.refused(tmp_path, toy_kit, photos, "--out", out, "--resume", "--report", report)
        assert "is not a report of msc-edge" in said

    def test_a_score_file_is_not_begun_where_the_report_cannot_be_written(self, toy_kit, photos, tmp_path):
        (tmp_path / "r.html").write_text("precious")
        self.refused(tmp_path, toy_kit, photos, "--out", tmp_path / "s.csv", "--report", tmp_path / "r.html")
        assert not (tmp_path / "s.csv").exists()

    def test_a_kit_is_not_written_into(self, kit, photos, tmp_path):
        said = self.refused(tmp_path, kit, photos, "--report", kit / "r.html")
        assert "lies within the kit" in said

    def test_an_earlier_report_among_the_images_is_no_image(self, toy_kit, toy, save, tmp_path):
        save(tmp_path / "1.png", toy.draw(1))
        report = tmp_path / "r.html"
        run("score", toy_kit, tmp_path, "--report", report)
        # As a shell writes `tmp_path/*`.
        done = run("score", toy_kit, *sorted(tmp_path.iterdir()), "--report", report, "--overwrite")
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
    def test_options_that_say_nothing_are_refused(self, toy_kit, photos, tmp_path, monkeypatch, options, reason):
        monkeypatch.chdir(tmp_path)
        assert reason in self.refused(tmp_path, toy_kit, photos, *options)

    def test_a_folder_is_no_report(self, tmp_path):
        (tmp_path / "r.html").mkdir()
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="is a folder"):
                check_place(tmp_path / "r.html", overwrite=overwrite)

    def test_a_place_that_cannot_be_written_to_is_found_out_at_once(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"cannot write .*r\.html"):
            check_place(tmp_path / "file" / "r.html", overwrite=False)

    def test_the_folder_of_a_report_is_made(self, tmp_path):
        check_place(tmp_path / "a" / "b" / "r.html", overwrite=False)
        assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_page_that_breaks_off_leaves_nothing(toy_kit, detector, photos, tmp_path):
    """A kit whose thumbnails go away while the page is made, as a memory stick that is pulled out."""
    copy = shutil.copytree(toy_kit, tmp_path / "copy.kit")
    report = ScoreReport(gallery=5)
    for row in score_files(detector, sorted(photos.glob("*.png")), threads=1):
        report.add(row)
    with Kit.open(copy) as opened:
        shutil.rmtree(copy)
        with pytest.raises(Exception, match="cannot be read any more"):
            report.write(tmp_path / "r.html", detector, opened, [])
    assert list(tmp_path.iterdir()) == []
