"""`msc-edge evaluate` and `msc_edge.runtime.evaluate`: what they write, and where they refuse to."""

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
from msc_edge.errors import UsageError
from msc_edge.runtime import evaluate
from msc_edge.runtime.results.image_result import read_score_file
from msc_edge.runtime.tools.evaluate.evaluation import Evaluation
from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset

FILES = ["evaluation.json", "report.html", "scores.csv"]
QUICK = ("--resamples", 100, "--gallery", 2)


pytestmark = pytest.mark.usefixtures("few_resamples")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def done(few_resamples, toy_kit, dataset, tmp_path_factory) -> tuple[Result, Path]:  # noqa: ARG001
    out = tmp_path_factory.mktemp("evaluated") / "deep" / "evaluation"
    return run(toy_kit, dataset, "--out", out, *QUICK), out


class TestWhatItWrites:
    def test_there_are_three_files_and_nothing_beside_them(self, done):
        result, out = done
        assert (result.exit_code, result.stderr) == (0, "")
        assert names(out) == FILES
        assert names(out.parent) == ["evaluation"]

    def test_metrics_are_those_of_scikit_learn_on_the_score_file(self, done):
        out = done[1]
        found = Evaluation.model_validate_json((out / "evaluation.json").read_bytes())
        images = list(read_score_file(out / "scores.csv"))
        truth = np.array([not image.path.startswith("test/good/") for image in images])
        scores = [image.result.score for image in images if image.result]
        counts = (found.normal_images + found.anomalous_images, found.anomalous_images)
        assert (len(truth), truth.sum()) == counts == (24, 12)
        # The file has six decimals, so two scores may be equal in it.
        assert found.metrics["auroc"].value == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)
        assert found.metrics["average_precision"].value == pytest.approx(
            average_precision_score(truth, scores), abs=1e-2
        )
        rejected = np.array([image.result is not None and image.result.verdict == "reject" for image in images])
        assert found.reject.false_alarms == (rejected & ~truth).sum()
        assert found.reject.missed == (~rejected & truth).sum()

    def test_the_kit_is_identified_by_its_sha(self, done, toy_kit):
        digest = (toy_kit / "manifest.sha256").read_text().split()[0]
        assert json.loads((done[1] / "evaluation.json").read_bytes())["kit"] == digest
        assert digest[:12] in (done[1] / "report.html").read_text(encoding="utf-8")

    def test_paths_are_within_the_data_set(self, done, dataset):
        for name in FILES:
            text = (done[1] / name).read_text(encoding="utf-8")
            assert str(dataset) not in text
            assert "test/" in text or name == "evaluation.json"

    def test_metrics_and_limits_are_printed(self, done):
        result, out = done
        found = Evaluation.model_validate_json((out / "evaluation.json").read_bytes())
        text = " ".join(result.stdout.split())
        for part in ("AUROC", "TPR at 1 % FPR", "empty", "scratch", "stain", f"report: {out / 'report.html'}"):
            assert part in text
        assert f"{found.metrics['auroc'].value:.4f}" in text
        assert f"{found.reject.false_alarms} false alarms in 12 normal images" in text
        assert f"misses {found.reject.missed} of 12 anomalous images" in text

    def test_maps_are_printed_with_a_line_where_aupimo_is_not_resolved(self, patch_kit, masked_parts, tmp_path):
        text = " ".join(run(patch_kit, masked_parts, "--out", tmp_path / "out", *QUICK).stdout.split())
        assert "Heatmaps against the masks of 5 images" in text
        assert "AUPIMO is not resolved: too few pixels in the normal images" in text
        found = json.loads((tmp_path / "out" / "evaluation.json").read_bytes())
        assert found["maps"]["fpr_step"] == 1 / (6 * 48 * 64)

    def test_a_python_user_gets_the_same(self, done, toy_kit, dataset, tmp_path):
        expected = Evaluation.model_validate_json((done[1] / "evaluation.json").read_bytes())
        for number, named in enumerate((dataset, str(dataset), labelled_dataset(dataset))):
            out = tmp_path / str(number)
            assert evaluate(str(toy_kit), named, out, resamples=100, gallery=0) == expected

    @pytest.mark.parametrize("wrong", [{"resamples": "9"}, {"resamples": 0}, {"gallery": -1}, {"report": 3}], ids=str)
    def test_a_python_user_is_told_what_an_argument_lacks(self, toy_kit, dataset, tmp_path, wrong):
        ((name, value),) = wrong.items()
        with pytest.raises(UsageError, match=rf"^{name} is {value!r}; expected "):
            evaluate(toy_kit, dataset, tmp_path / "out", **wrong)
        for kit, images, out in ((3, dataset, tmp_path / "out"), (toy_kit, 3, tmp_path / "out"), (toy_kit, dataset, 3)):
            with pytest.raises(UsageError, match=r"is 3; expected a path"):
                evaluate(kit, images, out)  # pyright: ignore[reportArgumentType]

    def test_a_zipped_kit_gives_the_same(self, done, toy_kit, dataset, tmp_path):
        zipped = shutil.make_archive(str(tmp_path / "kit"), "zip", toy_kit)
        assert run(zipped, dataset, "--out", tmp_path / "out", *QUICK).exit_code == 0
        assert (tmp_path / "out" / "evaluation.json").read_bytes() == (done[1] / "evaluation.json").read_bytes()

    def test_named_folders_give_the_same(self, done, toy_kit, dataset, tmp_path):
        test = dataset / "test"
        abnormal = [option for name in ("empty", "scratch", "stain") for option in ("--abnormal", test / name)]
        assert run(toy_kit, "--normal", test / "good", *abnormal, "--out", tmp_path / "out", *QUICK).exit_code == 0
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
    """One line, the exit code, and no file changed."""

    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            (["KIT"], 2, "pass either a DATASET"),
            (["KIT", "DATA", "--normal", "DATA/test/good"], 2, "pass either a DATASET"),
            (["KIT", "--normal", "DATA/test/good"], 2, "pass both --normal DIR and --abnormal DIR"),
            (["KIT", "DATA", "--threshold", "nan"], 2, "finite"),
            (["KIT", "DATA", "--false-alarm-rate", "0"], 2, "between 0 and 1"),
            (["KIT", "DATA", "--threshold", "1", "--false-alarm-rate", "0.1"], 2, "exclude each other"),
            (["KIT", "DATA", "--resamples", "5"], 2, "resamples"),
            (["KIT", "nowhere"], 3, "No such file"),
            (["KIT", "EMPTY"], 3, "expected test/good"),
            (["DATA", "DATA"], 4, "manifest.json is missing"),
            (["nowhere", "DATA"], 4, "cannot be opened"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_a_request_that_cannot_be_met(self, toy_kit, dataset, tmp_path, monkeypatch, arguments, code, reason):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        for word, place in {"KIT": str(toy_kit), "DATA": str(dataset), "EMPTY": "empty"}.items():
            arguments = [argument.replace(word, place) for argument in arguments]
        result = run(*arguments)
        assert result.exit_code == code
        assert reason in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert names(tmp_path) == ["empty"]

    def test_an_existing_evaluation_is_replaced_only_with_overwrite(self, toy_kit, dataset, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "report.html").write_text("earlier")
        result = run(toy_kit, dataset, "--out", out, *QUICK)
        assert (result.exit_code, (out / "report.html").read_text()) == (2, "earlier")
        assert "--overwrite" in result.stderr
        assert run(toy_kit, dataset, "--out", out, "--overwrite", *QUICK).exit_code == 0
        assert names(out) == FILES

    def test_overwrite_replaces_only_an_evaluation(self, toy_kit, dataset, tmp_path):
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
    def test_inputs_are_not_written_to(self, toy_kit, dataset, tmp_path, place):
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
    def test_unreadable_images_are_left_out_and_listed_with_their_reasons(self, toy_kit, dataset, tmp_path):
        odd = tmp_path / "odd"
        shutil.copytree(dataset / "test", odd / "test")
        (odd / "test" / "good" / "zero.png").touch()
        (odd / "test" / "torn").mkdir()
        (odd / "test" / "torn" / "cut.png").write_bytes((dataset / "test" / "good" / "300.png").read_bytes()[:500])
        result = run(toy_kit, odd, "--out", tmp_path / "out", *QUICK)
        assert result.exit_code == 0
        assert "left out: 2 unreadable images; the report gives the reasons" in result.stdout
        found = json.loads((tmp_path / "out" / "evaluation.json").read_bytes())
        assert {each["path"]: each["error"] for each in found["unreadable"]}[
            "test/good/zero.png"
        ] == "the file is empty; copy, save or take it again"
        assert (found["normal_images"], found["anomalous_images"]) == (12, 12)
        assert len(list(read_score_file(tmp_path / "out" / "scores.csv"))) == 26
        report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        for part in ("test/good/zero.png", "the file is empty", "test/torn/cut.png", "torn"):
            assert part in report

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are text")
    def test_names_that_are_not_valid_text_or_look_like_markup(self, toy_kit, toy, save, tmp_path):
        test = tmp_path / "data" / "test"
        save(test / "good" / os.fsdecode(b"n\xfcchtern.png"), toy.draw(1))
        save(test / "good" / 'a\nb,"c".png', toy.draw(2))
        save(test / os.fsdecode(b"b\xf6se") / "1.png", toy.draw(3, "empty"))
        save(test / "<script>alert(1)<" / "script>.png", toy.draw(4, "stain"))
        (test / "good" / os.fsdecode(b"leer\xe9.png")).touch()
        result = run(toy_kit, tmp_path / "data", "--out", tmp_path / "out", "--threshold", 0, *QUICK)
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads((tmp_path / "out" / "evaluation.json").read_bytes())
        assert [each["name"] for each in found["defect_types"]] == ["<script>alert(1)<", "b\\xf6se"]
        assert found["unreadable"][0]["path"] == "test/good/leer\\xe9.png"
        assert {image.path for image in read_score_file(tmp_path / "out" / "scores.csv")} >= {
            "test/good/n\\xfcchtern.png",
            'test/good/a\nb,"c".png',
            "test/<script>alert(1)</script>.png",
        }
        report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert "<script" not in report
        for part in ("&lt;script&gt;alert(1)&lt;/script&gt;.png", "n\\xfcchtern.png", "a\\nb,&#34;c&#34;.png"):
            assert part in report


class TestStopped:
    def test_ctrl_c_leaves_nothing(self, toy_kit, dataset, tmp_path):
        def stop(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
            if task == "resampling":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(toy_kit, dataset, tmp_path / "place" / "out", resamples=100, report=stop)
        assert names(tmp_path / "place") == []

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    def test_sigterm_leaves_nothing(self, toy_kit, dataset, tmp_path):
        out = tmp_path / "place" / "out"
        command = [sys.executable, "-m", "msc_edge", "evaluate", toy_kit, dataset, "--out", out, "--resamples", 10**6]
        # Not from the checkout: its msc_edge folder would hide the installed package.
        with subprocess.Popen(
            [str(part) for part in command], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            while process.poll() is None and not out.parent.is_dir():
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, printed = process.communicate(timeout=60)
        assert (process.returncode, printed) == (143, "stopped\n")
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
