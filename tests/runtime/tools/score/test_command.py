"""`msc-edge score` in this process; tests/test_cli.py runs it as an operator does."""

import csv
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.image_files import find_images
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.results.image_result import IMAGE_FIELDS, read_score_file

COLUMNS = [field.name for field in IMAGE_FIELDS]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def verdicts_of(path) -> list[str]:
    """The verdicts of the scored images of a score file."""
    return [image.result.verdict for image in read_score_file(path) if image.result]


def test_the_commands_are_described_without_importing_what_they_need():
    program = (
        "import sys, msc_edge.runtime.tools.score.command, msc_edge.runtime.tools.kit.command\n"
        "print([m for m in ('numpy', 'cv2', 'onnxruntime', 'pydantic', 'hnswlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestScore:
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    def test_the_file_holds_the_results_of_the_library(self, toy_kit, photos, detector, tmp_path, suffix):
        out = tmp_path / f"scores{suffix}"
        done = run("score", toy_kit, photos, "--out", out)
        assert (done.exit_code, done.stdout) == (0, "")
        expected = score_images(detector, find_images([photos]).paths, threads=1)
        assert [(row.path, row.result and row.result.verdict, row.error) for row in read_score_file(out)] == [
            (image.path, image.result and image.result.verdict, image.error) for image in expected
        ]

    def test_the_summary_counts_every_file(self, toy_kit, photos, tmp_path):
        text = " ".join(run("score", toy_kit, photos, "--out", tmp_path / "s.csv").stderr.split())
        for part in ("12 images in", "normal 6 50.0 %", "warn 1 8.3 %", "reject 3 25.0 %", "unreadable 2 16.7 %"):
            assert part in text
        for part in ("zero.png: the file is empty", "cut.png: ", "2 other files skipped", "12 rows in"):
            assert part in text

    def test_without_out_standard_output_holds_the_rows_and_nothing_else(self, toy_kit, photos):
        done = run("score", toy_kit, photos)
        lines = list(csv.reader(done.stdout.splitlines()))
        assert lines[0] == COLUMNS
        assert [line[0] for line in lines[1:]] == [str(path) for path in find_images([photos]).paths]
        assert "12 images in" in done.stderr

    def test_quiet_prints_nothing_but_the_rows(self, toy_kit, photos, tmp_path):
        assert run("score", toy_kit, photos, "--quiet").stderr == ""
        done = run("score", toy_kit, photos, "--quiet", "--out", tmp_path / "s.csv")
        assert (done.stdout, done.stderr) == ("", "")

    def test_a_score_file_in_the_scored_folder_is_not_an_image(self, toy_kit, toy, save, tmp_path):
        for seed in (100, 101):
            save(tmp_path / f"{seed}.png", toy.draw(seed))
        out = tmp_path / "scores.csv"
        assert run("score", toy_kit, tmp_path, "--out", out).exit_code == 0
        # As a shell expands `DIR/*`.
        everything = sorted(tmp_path.iterdir())
        assert run("score", toy_kit, *everything, "--out", out, "--resume").exit_code == 0
        assert [image.error for image in read_score_file(out)] == [None, None]

    def test_resume_adds_the_missing_images_and_counts_both(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        run("score", toy_kit, photos / "good_*.png", photos / "zero.png", "--out", out)
        done = run("score", toy_kit, photos, "--out", out, "--resume")
        assert "12 images: 7 from earlier runs, 5 now" in done.stderr
        assert len(list(read_score_file(out))) == 12

    def test_an_image_named_twice_is_scored_once(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        run("score", toy_kit, photos, photos / "good_100.png", photos / "good*", "--out", out)
        assert len(list(read_score_file(out))) == 12

    def test_scores_do_not_depend_on_search_and_threads(self, toy_kit, photos, tmp_path):
        def scored(*options: object) -> list:
            run("score", toy_kit, photos, "--out", tmp_path / "s.csv", "--overwrite", *options)
            return [(image.path, image.result) for image in read_score_file(tmp_path / "s.csv")]

        plain = scored()
        assert len(plain) == 12
        for options in (("--search", "hnsw"), ("--search", "exact"), ("--threads", 1), ("--threads", 5)):
            assert scored(*options) == plain

    def test_limits_can_be_set_without_another_export(self, toy_kit, photos, tmp_path):
        def verdicts(*options: object) -> list[str]:
            run("score", toy_kit, photos, "--out", tmp_path / "s.csv", "--overwrite", *options)
            return verdicts_of(tmp_path / "s.csv")

        assert verdicts().count("reject") == 3
        assert verdicts("--threshold", 0.0001).count("reject") == 10
        assert verdicts("--threshold", 1.5).count("reject") == 0
        assert verdicts("--false-alarm-rate", 0.9).count("reject") > 3

    def test_precision_auto_is_deprecated_and_means_the_model_of_the_kit(self, int8_kit, photos):
        done = run("score", int8_kit, photos, "--precision", "auto")
        assert "warning: --precision auto is deprecated: the kit says which model scores; leave it out" in done.stderr
        assert "model: fp32 (the kit has another one; --precision selects)" in done.stderr

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_the_summary_names_the_model_of_a_kit_with_two(self, int8_kit, toy_kit, photos, precision):
        done = run("score", int8_kit, photos, "--precision", precision)
        assert f"model: {precision} (the kit has another one; --precision selects)" in done.stderr
        limits = parse_manifest((int8_kit / MANIFEST).read_bytes()).models[precision].calibration.limits
        assert f"reject     score above {limits.reject.score:.6f}" in done.stderr
        assert "model:" not in run("score", toy_kit, photos).stderr

    def test_a_score_file_of_another_version_is_moved_aside_with_a_warning(
        self, toy_kit, photos, written_by_0_1_0, tmp_path, caplog
    ):
        out = tmp_path / "s.csv"
        out.write_bytes((written_by_0_1_0 / "scores.csv").read_bytes())
        assert run("score", toy_kit, photos, "--out", out, "--resume").exit_code == 0
        assert "written by another version of msc-edge; moved to " in caplog.text
        assert len(list(read_score_file(out))) == 12

    def test_the_old_name_of_backend_works_with_a_warning(self, toy_kit, photos):
        done = run("score", toy_kit, photos / "warn.png", "--engine", "onnxruntime", "--quiet")
        assert (done.exit_code, done.stderr) == (0, "warning: --engine is deprecated; use --backend\n")
        assert "engine" not in run("score", "--help").stdout
        assert run("score", toy_kit, photos / "warn.png", "--engine", "fast").exit_code == 2


class TestExitCodes:
    @pytest.mark.parametrize(
        ("names", "plainly", "on_anomaly"),
        [
            (["good_100.png"], 0, 0),
            (["warn.png"], 0, 0),
            (["good_100.png", "schicht ü"], 0, 1),
            (["schicht ü", "zero.png"], 0, 1),
            (["good_100.png", "zero.png"], 0, 3),
            (["zero.png", "cut.png"], 3, 3),
        ],
    )
    def test_they_follow_from_the_images(self, toy_kit, photos, tmp_path, names, plainly, on_anomaly):
        arguments = ["score", toy_kit, *(photos / name for name in names)]
        assert run(*arguments).exit_code == plainly
        assert run(*arguments, "--fail-on-anomaly").exit_code == on_anomaly
        # A continued run has the exit code of an uninterrupted one.
        out = ["--out", tmp_path / "s.csv"]
        assert run(*arguments, *out).exit_code == plainly
        assert run(*arguments, *out, "--resume", "--fail-on-anomaly").exit_code == on_anomaly

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (["score", "KIT", "PHOTOS", "--out", "s.txt"], 2, ".csv or .jsonl"),
            (["score", "KIT", "PHOTOS", "--resume"], 2, "--out"),
            (["score", "KIT", "PHOTOS", "--overwrite"], 2, "--out"),
            (["score", "KIT", "PHOTOS", "--out", "s.csv", "--resume", "--overwrite"], 2, "exclude each other"),
            (["score", "KIT", "PHOTOS", "--threshold", "nan"], 2, "finite"),
            (["score", "KIT", "PHOTOS", "--false-alarm-rate", "5"], 2, "between 0 and 1"),
            (["score", "KIT", "PHOTOS", "--threshold", "1", "--false-alarm-rate", "0.1"], 2, "exclude each other"),
            (["score", "KIT", "PHOTOS", "--threads", "0"], 2, "threads"),
            (["score", "KIT", "PHOTOS", "--search", "fast"], 2, "search"),
            (["score", "KIT"], 2, "PATH"),
            (["score", "KIT", "nowhere"], 3, "No such file"),
            (["score", "KIT", "PHOTOS/*.gif"], 3, "no file matches"),
            (["score", "KIT", "EMPTY"], 3, "no images found"),
            (["score", "PHOTOS", "PHOTOS"], 4, "manifest.json is missing"),
            (["score", "PHOTOS/none", "PHOTOS"], 4, "No such file or directory"),
            (["score", "KIT", "PHOTOS", "--gallery", "3"], 2, "--report"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_a_request_that_cannot_be_met_changes_nothing(
        self, toy_kit, photos, tmp_path, monkeypatch, arguments, code, reason
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        places = {"KIT": str(toy_kit), "PHOTOS": str(photos), "EMPTY": "empty"}
        for word, place in places.items():
            arguments = [argument.replace(word, place) for argument in arguments]
        done = run(*arguments)
        assert done.exit_code == code
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["empty"]

    def test_a_mistake_does_not_cost_an_existing_score_file(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        out.write_text("precious")
        for option in ((), ("--resume",), ("--overwrite", "--threshold", "nan")):
            assert run("score", toy_kit, photos, "--out", out, *option).exit_code == 2
        assert run("score", tmp_path / "none", photos, "--out", out, "--overwrite").exit_code == 4
        assert run("score", toy_kit, tmp_path / "none", "--out", out, "--overwrite").exit_code == 3
        assert out.read_text() == "precious"
