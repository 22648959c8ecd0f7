"""`msc-edge compare` and `msc_edge.runtime.compare`: what they print and write, and what they refuse."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.errors import UsageError
from msc_edge.runtime import Detector, compare
from msc_edge.runtime.tools.compare.command import _line
from msc_edge.runtime.tools.compare.comparison import ComparedImage, Comparison


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments), "--resamples", "100"])


@pytest.fixture(scope="module")
def done(toy_kit, patch_kit, dataset, tmp_path_factory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("compared") / "deep" / "comparison.json"
    return run(toy_kit, patch_kit, dataset, "--out", out), out


def test_the_file_is_what_each_kit_says_alone(done, toy_kit, patch_kit):
    result, out = done
    assert (result.exit_code, result.stderr) == (0, "")
    found = Comparison.model_validate_json(out.read_bytes())
    detectors = [Detector.load(toy_kit), Detector.load(patch_kit)]
    assert [kit.sha256 for kit in found.kits] == [detector.kit.sha256 for detector in detectors]
    for image in found.images[:4]:
        alone = [detector.score_file(image.path) for detector in detectors]
        assert image.verdicts == tuple(each.verdict for each in alone)
        assert image.p_values == pytest.approx([each.p_value for each in alone])
    first, second = found.kits
    assert found.auroc_difference.value == pytest.approx(second.auroc - first.auroc)


def test_what_is_printed_is_in_the_file(done):
    result, out = done
    found = Comparison.model_validate_json(out.read_bytes())
    for kit in found.kits:
        assert f"{kit.auroc:.4f}" in result.stdout
        assert f"{kit.reject.false_alarms}, {kit.reject.missed}" in result.stdout
    differing = [found.images[position] for position in found.differing]
    assert [image for image in found.images if len(set(image.verdicts)) > 1] == sorted(
        differing, key=found.images.index
    )
    gaps = [abs(image.p_values[0] - image.p_values[1]) for image in differing]
    assert gaps == sorted(gaps, reverse=True)
    assert f"different verdicts: {len(differing)} image" in result.stdout
    assert [image.name in result.stdout for image in differing[:20]] == [True] * min(len(differing), 20)


def test_a_p_value_that_no_calibration_image_reaches_is_an_upper_bound():
    image = ComparedImage(
        name="a.png",
        path="a.png",
        label="dent",
        scores=(3.0, 1.0),
        p_values=(0.01, 0.25),
        verdicts=("reject", "normal"),
    )
    assert _line(image, (0.01, 0.01)) == "reject, p at most 0.01; normal, p 0.25; dent: a.png"
    assert _line(image, (0.0, 0.0)).startswith("reject, p 0.01; "), "an older comparison does not say"


def test_a_file_is_replaced_only_when_asked(done, toy_kit, patch_kit, dataset):
    out = done[1]
    before = json.loads(out.read_bytes())
    refused = run(toy_kit, patch_kit, dataset, "--out", out)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert json.loads(out.read_bytes()) == before
    assert run(patch_kit, toy_kit, dataset, "--out", out, "--overwrite").exit_code == 0
    after = json.loads(out.read_bytes())
    assert [kit["sha256"] for kit in after["kits"]] == [kit["sha256"] for kit in before["kits"]][::-1]
    assert after["auroc_difference"]["value"] == pytest.approx(-before["auroc_difference"]["value"])


def test_a_file_inside_a_kit_is_refused(kit, toy_kit, dataset):
    refused = run(toy_kit, kit, dataset, "--out", kit / "comparison.json")
    assert (refused.exit_code, (kit / "comparison.json").exists()) == (2, False)
    assert "lies within" in refused.stderr


def test_images_are_named_in_one_way(toy_kit, dataset):
    for arguments in ((toy_kit, toy_kit), (toy_kit, toy_kit, dataset, "--normal", dataset / "test" / "good")):
        refused = run(*arguments)
        assert refused.exit_code == 2
        assert "pass either a DATASET with test/good, or --normal DIR and --abnormal DIR" in refused.stderr


def test_python_users_pass_text(toy_kit, dataset):
    found = compare(str(toy_kit), str(toy_kit), str(dataset), resamples=100)
    assert (found.auroc_difference.value, found.differing) == (0, [])
    with pytest.raises(UsageError, match="second is None; expected a path"):
        compare(toy_kit, None, dataset)  # pyright: ignore[reportArgumentType]
