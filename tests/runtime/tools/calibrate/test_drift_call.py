"""The drift test of `calibrate`: over the new images, in the order of their names."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.drift import DriftTest, independent
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.calibrate.recalibration import calibrate


def fading(folder: Path, toy: ModuleType, save: Callable) -> Path:
    """120 normal images; from the 60th on, the lamp is a fifth darker."""
    for number in range(120):
        image = toy.draw(2000 + number)
        darker = (0.8 * image).astype(np.uint8)
        save(folder / f"{number:03d}.png", darker if number >= 60 else image)
    return folder


def test_images_of_an_unchanged_line_are_not_called(toy_kit: Path, fresh: Path) -> None:
    new = calibrate(toy_kit, fresh).limits["fp32"]
    assert new.call is None
    assert new.tested == 120
    shown = CliRunner().invoke(app, ["calibrate", str(toy_kit), "--normal", str(fresh)]).stdout
    assert "drift      none is called in the order of the names, by 120 images of different parts" in shown


def test_a_lamp_that_fades_is_called_as_a_stream_calls_it(
    patch_kit: Path, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    folder = fading(tmp_path / "line", toy, save)
    new = calibrate(patch_kit, folder).limits["fp32"]
    detector = Detector.load(patch_kit, threads=1)
    with Kit.open(patch_kit) as kit:
        test = DriftTest(independent(kit.model("fp32").calibration.calibration), detector.limits.reject.score)
    calls = (test.add(detector.score_file(path).score) for path in sorted(folder.iterdir()))
    assert new.call == next(call for call in calls if call)
    assert new.call
    assert 55 <= new.call.since <= 65
    shown = CliRunner().invoke(app, ["calibrate", str(patch_kit), "--normal", str(folder)]).stdout
    changes = {"rise": "the scores rise", "rejects": "more images are rejected"}
    assert f"CALLED in the order of the names: {changes[new.call.change]}" in " ".join(shown.split())
    assert f"most likely since image {new.call.since} of 120 of different parts" in " ".join(shown.split())
