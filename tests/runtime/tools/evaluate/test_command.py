import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.runtime.results.rows import read_rows
from msc_edge.runtime.tools.evaluate.evaluation import Evaluation
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset
from msc_edge.runtime.tools.evaluate.run import run_evaluation

FILES = ["evaluation.json", "report.html", "scores.csv"]
QUICK = ("--resamples", 100, "--gallery", 2)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def done(toy_kit, dataset, tmp_path_factory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("evaluated") / "deep" / "evaluation"
    return run(toy_kit, dataset, "--out", out, *QUICK), out


class TestWhatItWrites:
    def test_three_files_and_nothing_beside_them(self, done):
        result, out = done
        assert (result.exit_code, result.stderr) == (0, "")
        assert names(out) == FILES
        assert names(out.parent) == ["evaluation"]

    def test_figures_are_those_of_scikit_learn_on_the_score_file(self, done):
        out = done[1]
        found = Evaluation.model_validate_json((out / "evaluation.json").read_bytes())
        rows = list(read_rows(out / "scores.csv"))
        truth, scores = [not row.path.startswith("test/good/") for row in rows], [row.score for row in rows]
        assert (len(truth), sum(truth)) == (found.good + found.defective, found.defective) == (24, 12)
        # The file has six decimals, which can make a tie of two scores.
        assert found.figures["auroc"].value == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
        assert found.figures["average_precision"].value == pytest.approx(
            average_precision_score(truth, scores), abs=1e-2
        )
        rejected = np.array([row.verdict == "reject" for row in rows])
        assert found.reject.false_alarms == int((rejected & ~np.array(truth)).sum())
        assert found.reject.missed == int((~rejected & np.array(truth)).sum())

    def test_the_kit_is_named_by_its_manifest(self, done, toy_kit):
        digest = (toy_kit / "manifest.sha256").read_text().split()[0]
        assert json.loads((done[1] / "evaluation.json").read_bytes())["kit"] == digest
        assert digest[:12] in (done[1] / "report.html").read_text(encoding="utf-8")

    def test_paths_are_within_the_data_set(self, done, dataset):
        for name in FILES:
            text = (done[1] / name).read_text(encoding="utf-8")
            assert str(dataset) not in text
            assert "test/" in text or name == "evaluation.json"

    def test_the_terminal_has_the_figures_and_the_limits(self, done):
        result, out = done
        found = Evaluation.model_validate_json((out / "evaluation.json").read_bytes())
        text = " ".join(result.stdout.split())
        for part in ("AUROC", "TPR at 1 % FPR", "empty", "scratch", "stain", f"look at: {out / 'report.html'}"):
            assert part in text
        assert f"{found.figures['auroc'].value:.4f}" in text
        assert f"flags {found.reject.false_alarms} of 12 good images" in text
        assert f"misses {found.reject.missed} of 12 defective" in text

    def test_a_python_user_gets_the_same(self, done, toy_kit, dataset, tmp_path):
        found = run_evaluation(toy_kit, labelled_dataset(dataset), tmp_path / "out", resamples=100, gallery=2)
        assert found == Evaluation.model_validate_json((done[1] / "evaluation.json").read_bytes())

    def test_a_zipped_kit_gives_the_same(self, done, toy_kit, dataset, tmp_path):
        zipped = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
        assert run(zipped, dataset, "--out", tmp_path / "out", *QUICK).exit_code == 0
        assert (tmp_path / "out" / "evaluation.json").read_bytes() == (done[1] / "evaluation.json").read_bytes()

    def test_named_folders_give_the_same_figures(self, done, toy_kit, dataset, tmp_path):
        test = dataset / "test"
        kinds = [option for kind in ("empty", "scratch", "stain") for option in ("--abnormal", test / kind)]
        assert run(toy_kit, "--normal", test / "good", *kinds, "--out", tmp_path / "out", *QUICK).exit_code == 0
        assert (tmp_path / "out" / "evaluation.json").read_bytes() == (done[1] / "evaluation.json").read_bytes()


class TestLimits:
    def evaluated(self, kit: Path, dataset: Path, out: Path, *options: object) -> Evaluation:
        assert run(kit, dataset, "--out", out, *QUICK, *options).exit_code == 0
        return Evaluation.model_validate_json((out / "evaluation.json").read_bytes())

    def test_a_threshold(self, toy_kit, dataset, tmp_path):
        found = self.evaluated(toy_kit, dataset, tmp_path / "low", "--threshold", 0)
        assert (found.reject.false_alarms, found.reject.missed, found.reject.expected_rate) == (12, 0, None)
        assert "set by hand" in (tmp_path / "low" / "report.html").read_text(encoding="utf-8")
        found = self.evaluated(toy_kit, dataset, tmp_path / "high", "--threshold", 2)
        assert (found.reject.false_alarms, found.reject.missed) == (0, 12)

    def test_a_rate(self, toy_kit, dataset, detector, tmp_path):
        found = self.evaluated(toy_kit, dataset, tmp_path / "out", "--false-alarm-rate", 0.2)
        limit = detector.calibration.limit(0.2)
        assert (found.reject.score, found.reject.expected_rate) == (limit.score, limit.expected_rate)


class TestRefusals:
    """One line, the exit code, and everything as it was."""

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (["KIT"], 2, "name either a DATASET"),
            (["KIT", "DATA", "--normal", "DATA/test/good"], 2, "name either a DATASET"),
            (["KIT", "--normal", "DATA/test/good"], 2, "give both --normal DIR and --abnormal DIR"),
            (["KIT", "DATA", "--threshold", "nan"], 2, "finite"),
            (["KIT", "DATA", "--false-alarm-rate", "0"], 2, "between 0 and 1"),
            (["KIT", "DATA", "--threshold", "1", "--false-alarm-rate", "0.1"], 2, "give one"),
            (["KIT", "DATA", "--resamples", "5"], 2, "resamples"),
            (["KIT", "nowhere"], 3, "No such file"),
            (["KIT", "EMPTY"], 3, "expected test/good"),
            (["DATA", "DATA"], 4, "manifest.json is missing"),
            (["nowhere", "DATA"], 4, "there is no kit here"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_of_requests_that_cannot_be_met(self, toy_kit, dataset, tmp_path, monkeypatch, arguments, code, reason):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        for word, place in {"KIT": str(toy_kit), "DATA": str(dataset), "EMPTY": "empty"}.items():
            arguments = [argument.replace(word, place) for argument in arguments]
        result = run(*arguments)
        assert result.exit_code == code
        assert reason in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert names(tmp_path) == ["empty"]

    def test_an_evaluation_that_is_there_is_kept_unless_it_is_to_be_replaced(self, toy_kit, dataset, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "report.html").write_text("earlier")
        result = run(toy_kit, dataset, "--out", out, *QUICK)
        assert (result.exit_code, (out / "report.html").read_text()) == (2, "earlier")
        assert "--overwrite" in result.stderr
        assert run(toy_kit, dataset, "--out", out, "--overwrite", *QUICK).exit_code == 0
        assert names(out) == FILES

    def test_overwrite_replaces_nothing_but_an_evaluation(self, toy_kit, dataset, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "report.html").write_text("earlier")
        (out / "thesis.docx").write_text("precious")
        (tmp_path / "file").write_text("precious")
        for place in (out, tmp_path / "file", tmp_path):
            result = run(toy_kit, dataset, "--out", place, "--overwrite", *QUICK)
            assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert (out / "thesis.docx").read_text() == (tmp_path / "file").read_text() == "precious"

    @pytest.mark.parametrize("place", ["data", "data/test", "data/test/new", "data/..", "a.kit", "a.kit/new"])
    def test_what_is_read_is_not_written_to(self, toy_kit, dataset, tmp_path, place):
        shutil.copytree(dataset, tmp_path / "data")
        shutil.copytree(toy_kit, tmp_path / "a.kit")
        before = sorted(tmp_path.rglob("*"))
        for option in ((), ("--overwrite",)):
            result = run(tmp_path / "a.kit", tmp_path / "data", "--out", tmp_path / place, *option, *QUICK)
            assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
            assert "choose another place" in result.stderr
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_place_that_cannot_be_written_to(self, toy_kit, dataset, tmp_path):
        (tmp_path / "file").touch()
        result = run(toy_kit, dataset, "--out", tmp_path / "file" / "out", *QUICK)
        assert (result.exit_code, result.stderr.count("\n")) == (5, 1)


class TestOddImages:
    def test_unreadable_ones_are_left_out_and_told_of_with_their_reasons(self, toy_kit, dataset, tmp_path):
        odd = tmp_path / "odd"
        shutil.copytree(dataset / "test", odd / "test")
        (odd / "test" / "good" / "zero.png").touch()
        (odd / "test" / "torn").mkdir()
        (odd / "test" / "torn" / "cut.png").write_bytes((dataset / "test" / "good" / "300.png").read_bytes()[:500])
        result = run(toy_kit, odd, "--out", tmp_path / "out", *QUICK)
        assert result.exit_code == 0
        assert "left out: 2 images that cannot be read" in result.stdout
        found = json.loads((tmp_path / "out" / "evaluation.json").read_bytes())
        assert {each["path"]: each["error"] for each in found["unreadable"]}[
            "test/good/zero.png"
        ] == "the file is empty"
        assert (found["good"], found["defective"]) == (12, 12)
        assert len(list(read_rows(tmp_path / "out" / "scores.csv"))) == 26
        report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        for part in ("test/good/zero.png", "the file is empty", "test/torn/cut.png", "torn"):
            assert part in report

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are text")
    def test_names_that_are_not_text_or_would_be_markup(self, toy_kit, toy, save, tmp_path):
        test = tmp_path / "data" / "test"
        save(test / "good" / os.fsdecode(b"n\xfcchtern.png"), toy.draw(1))
        save(test / "good" / 'a\nb,"c".png', toy.draw(2))
        save(test / os.fsdecode(b"b\xf6se") / "1.png", toy.draw(3, "empty"))
        save(test / "<script>alert(1)<" / "script>.png", toy.draw(4, "stain"))
        (test / "good" / os.fsdecode(b"leer\xe9.png")).touch()
        result = run(toy_kit, tmp_path / "data", "--out", tmp_path / "out", "--threshold", 0, *QUICK)
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads((tmp_path / "out" / "evaluation.json").read_bytes())
        assert [kind["label"] for kind in found["kinds"]] == ["<script>alert(1)<", "b\\xf6se"]
        assert found["unreadable"][0]["path"] == "test/good/leer\\xe9.png"
        assert {row.path for row in read_rows(tmp_path / "out" / "scores.csv")} >= {
            "test/good/n\\xfcchtern.png",
            'test/good/a\nb,"c".png',
            "test/<script>alert(1)</script>.png",
        }
        report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "<script" not in report
        for part in ("&lt;script&gt;alert(1)&lt;/script&gt;.png", "n\\xfcchtern.png", "a\\nb,&#34;c&#34;.png"):
            assert part in report


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_stopped_leaves_nothing(toy_kit, dataset, tmp_path, number, code):
    out = tmp_path / "place" / "out"
    command = [sys.executable, "-m", "msc_edge", "evaluate", toy_kit, dataset, "--out", out, "--resamples", "1000000"]
    # Not from the checkout, whose msc_edge/ would hide the installed package.
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while process.poll() is None and not out.parent.is_dir():
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, "stopped\n")
    assert names(out.parent) == []


def test_scikit_learn_is_named_where_it_is_missing(toy_kit, dataset, tmp_path):
    program = (
        "import sys; sys.modules['sklearn'] = None; from msc_edge.cli import main; "
        f"sys.argv[1:] = ['evaluate', {str(toy_kit)!r}, {str(dataset)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "pip install 'msc-edge[evaluate]'" in done.stderr
    assert done.stderr.count("\n") == 1
