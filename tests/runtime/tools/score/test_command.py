"""The commands in this process; tests/test_cli.py runs them as an operator does."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.image_files import find_images
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.runtime.batch import score_files
from msc_edge.runtime.results.rows import COLUMNS, read_rows


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_are_described_without_loading_what_they_need():
    program = (
        "import sys, msc_edge.runtime.tools.command\n"
        "print([m for m in ('numpy', 'cv2', 'onnxruntime', 'pydantic', 'hnswlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestScore:
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    def test_the_file_holds_what_the_library_gives(self, toy_kit, photos, detector, tmp_path, suffix):
        out = tmp_path / f"scores{suffix}"
        done = run("score", toy_kit, photos, "--out", out)
        assert (done.exit_code, done.stdout) == (0, "")
        expected = [
            (row.path, row.verdict, row.error) for row in score_files(detector, find_images([photos]).paths, threads=1)
        ]
        assert [(row.path, row.verdict, row.error) for row in read_rows(out)] == expected

    def test_the_score_file_must_not_stand_within_the_kit(self, kit, photos):
        before = sorted(kit.rglob("*"))
        assert run("score", kit, photos, "--out", kit / "s.csv").exit_code == 2
        assert sorted(kit.rglob("*")) == before

    def test_the_score_file_must_not_be_one_of_the_images(self, toy_kit, photos, tmp_path):
        image = tmp_path / "image.csv"
        data = next(photos.rglob("good_*.png")).read_bytes()
        image.write_bytes(data)
        assert run("score", toy_kit, image, "--out", image, "--overwrite").exit_code == 2
        assert image.read_bytes() == data

    def test_the_summary_tells_of_every_file(self, toy_kit, photos, tmp_path):
        text = " ".join(run("score", toy_kit, photos, "--out", tmp_path / "s.csv").stderr.split())
        for part in ("12 images in", "normal 6 50.0 %", "warn 1 8.3 %", "reject 3 25.0 %", "unreadable 2 16.7 %"):
            assert part in text
        for part in ("zero.png: the file is empty", "cut.png: ", "2 other files passed over", "12 rows in"):
            assert part in text

    def test_without_out_the_rows_are_printed_and_nothing_else_on_standard_output(self, toy_kit, photos):
        done = run("score", toy_kit, photos)
        lines = list(csv.reader(done.stdout.splitlines()))
        assert lines[0] == list(COLUMNS)
        assert [line[0] for line in lines[1:]] == [str(path) for path in find_images([photos]).paths]
        assert "12 images in" in done.stderr

    def test_quiet_says_nothing_but_the_rows(self, toy_kit, photos, tmp_path):
        assert run("score", toy_kit, photos, "--quiet").stderr == ""
        done = run("score", toy_kit, photos, "--quiet", "--out", tmp_path / "s.csv")
        assert (done.stdout, done.stderr) == ("", "")

    def test_a_score_file_in_the_scored_folder_is_no_image(self, toy_kit, toy, save, tmp_path):
        for seed in (100, 101):
            save(tmp_path / f"{seed}.png", toy.draw(seed))
        out = tmp_path / "scores.csv"
        assert run("score", toy_kit, tmp_path, "--out", out).exit_code == 0
        # As a shell writes `tmp_path/*`.
        everything = sorted(tmp_path.iterdir())
        assert run("score", toy_kit, *everything, "--out", out, "--resume").exit_code == 0
        assert [row.error for row in read_rows(out)] == [None, None]

    def test_resume_adds_what_is_missing_and_sums_up_both(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        run("score", toy_kit, photos / "good_*.png", photos / "zero.png", "--out", out)
        done = run("score", toy_kit, photos, "--out", out, "--resume")
        assert "12 images: 7 done earlier and 5 now" in done.stderr
        assert len(list(read_rows(out))) == 12

    def test_a_image_named_twice_is_scored_once(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        run("score", toy_kit, photos, photos / "good_100.png", photos / "good*", "--out", out)
        assert len(list(read_rows(out))) == 12

    @pytest.mark.parametrize(
        "options", [("--search", "hnsw"), ("--search", "exact"), ("--threads", 1), ("--threads", 5)]
    )
    def test_scores_do_not_depend_on_how_they_are_computed(self, toy_kit, photos, tmp_path, options):
        plain, other = tmp_path / "a.csv", tmp_path / "b.csv"
        run("score", toy_kit, photos, "--out", plain)
        run("score", toy_kit, photos, "--out", other, *options)
        assert [(row.path, row.score) for row in read_rows(plain)] == [
            (row.path, row.score) for row in read_rows(other)
        ]

    def test_limits_can_be_set_without_another_export(self, toy_kit, photos, tmp_path):
        def verdicts(*options: object) -> list:
            run("score", toy_kit, photos, "--out", tmp_path / "s.csv", "--overwrite", *options)
            return [row.verdict for row in read_rows(tmp_path / "s.csv") if row.verdict]

        assert verdicts().count("reject") == 3
        assert verdicts("--threshold", 0.0001).count("reject") == 10
        assert verdicts("--threshold", 1.5).count("reject") == 0
        assert verdicts("--false-alarm-rate", 0.9).count("reject") > 3


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
    def test_of_what_the_images_are(self, toy_kit, photos, tmp_path, names, plainly, on_anomaly):
        arguments = ["score", toy_kit, *(photos / name for name in names)]
        assert run(*arguments).exit_code == plainly
        assert run(*arguments, "--fail-on-anomaly").exit_code == on_anomaly
        # A run that was continued ends as one that was not.
        out = ["--out", tmp_path / "s.csv"]
        assert run(*arguments, *out).exit_code == plainly
        assert run(*arguments, *out, "--resume", "--fail-on-anomaly").exit_code == on_anomaly

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (["score", "KIT", "PHOTOS", "--out", "s.txt"], 2, ".csv or .jsonl"),
            (["score", "KIT", "PHOTOS", "--resume"], 2, "--out"),
            (["score", "KIT", "PHOTOS", "--overwrite"], 2, "--out"),
            (["score", "KIT", "PHOTOS", "--out", "s.csv", "--resume", "--overwrite"], 2, "contradict"),
            (["score", "KIT", "PHOTOS", "--threshold", "nan"], 2, "finite"),
            (["score", "KIT", "PHOTOS", "--false-alarm-rate", "5"], 2, "between 0 and 1"),
            (["score", "KIT", "PHOTOS", "--threshold", "1", "--false-alarm-rate", "0.1"], 2, "give one"),
            (["score", "KIT", "PHOTOS", "--threads", "0"], 2, "threads"),
            (["score", "KIT", "PHOTOS", "--search", "fast"], 2, "search"),
            (["score", "KIT"], 2, "PATH"),
            (["score", "KIT", "nowhere"], 3, "No such file"),
            (["score", "KIT", "PHOTOS/*.gif"], 3, "no file matches"),
            (["score", "KIT", "EMPTY"], 3, "no images found"),
            (["score", "PHOTOS", "PHOTOS"], 4, "manifest.json is missing"),
            (["info", "PHOTOS/none"], 4, "no kit"),
            (["verify", "PHOTOS/notes.txt"], 4, "zip"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_of_requests_that_cannot_be_met(self, toy_kit, photos, tmp_path, monkeypatch, arguments, code, reason):
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

    def test_an_existing_score_file_is_not_lost_to_a_mistake(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        out.write_text("precious")
        for option in ((), ("--resume",), ("--overwrite", "--threshold", "nan")):
            assert run("score", toy_kit, photos, "--out", out, *option).exit_code == 2
        assert run("score", tmp_path / "none", photos, "--out", out, "--overwrite").exit_code == 4
        assert run("score", toy_kit, tmp_path / "none", "--out", out, "--overwrite").exit_code == 3
        assert out.read_text() == "precious"


class TestInfo:
    def test_json_is_the_manifest(self, toy_kit):
        done = run("info", toy_kit, "--json")
        assert json.loads(done.stdout) == json.loads(parse_manifest((toy_kit / MANIFEST).read_bytes()).to_json())

    def test_words(self, toy_kit):
        done = run("info", toy_kit)
        assert done.exit_code == 0
        for part in ("backbone: toy_pixels", "warn: score above", "does NOT keep to the 1 %", "size: 16 files"):
            assert part in done.stdout


class TestVerify:
    def test_a_good_kit_is_one_line(self, toy_kit, tmp_path):
        zipped = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
        for kit in (toy_kit, zipped):
            done = run("verify", kit)
            assert (done.exit_code, done.stderr) == (0, "")
            assert done.stdout.startswith(f"ok: {kit}: 16 files and the manifest, ")
            assert done.stdout.count("\n") == 1

    def test_a_damaged_one_is_one_line_too(self, kit):
        (kit / "thumbnails" / "00003.jpg").write_bytes(b"x")
        done = run("verify", kit)
        assert (done.exit_code, done.stdout) == (4, "")
        assert done.stderr.startswith(f"error: {kit}: thumbnails/00003.jpg: ")
        assert done.stderr.count("\n") == 1
