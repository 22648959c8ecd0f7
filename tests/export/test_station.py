"""`export --from-station`: the new kit scores as the old one does with what its station has learned."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.kit.manifest import Manifest, Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.kept_images import Change
from msc_edge.runtime.learning import guards
from msc_edge.runtime.learning.learner import Learner

WHO = {"by": "Anna", "reason": "new supplier"}


@pytest.fixture(autouse=True)
def _generous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "MAX_LOST", 1.0)  # tested in tests/runtime/learning


def packed(kit: Path, out: Path, *options: str) -> Manifest:
    done = CliRunner().invoke(app, ["export", "--from-station", str(kit), "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    with Kit.open(out) as opened:
        return opened.manifest


@pytest.mark.parametrize("both", [False, True], ids=["drawn by numpy", "fp32 and int8 of a network"])
def test_a_packed_kit_scores_as_the_station(
    both: bool,
    patch_kit: Path,
    both_kit: tuple[Path, Manifest],
    toy: ModuleType,
    save: Callable,
    tmp_path: Path,
) -> None:
    kit = Path(shutil.copytree(both_kit[0] if both else patch_kit, tmp_path / "line.kit"))
    parts = toy.draw(500, "stain"), toy.draw(501, "scratch"), toy.draw(502, "stain")[::-1, ::-1]
    with Learner(kit, threads=1) as learner:
        for number, part in enumerate(parts):
            learner.add(save(tmp_path / f"{number}.png", part), **WHO)
        learner.file.undo(2, Change.now("Ben", "was a scratch"))
        taught: dict[Precision, Detector] = {model: learner._with(model) for model in learner.models}
        history = learner.file.images()
    manifest = packed(kit, tmp_path / "new.kit")
    assert sorted(taught) == sorted(manifest.models)
    assert manifest.normal_images.count == taught["fp32"].manifest.normal_images.count + 2 * 2
    for model, detector in taught.items():
        new = Detector.load(tmp_path / "new.kit", threads=1, precision=model)
        assert new.normal_images == detector.normal_images
        assert new.limits == detector.limits
        unit = 1 / detector.scoring.image.deviation if detector.scoring.image else 1
        for seed in range(30):
            image = toy.draw(600 + seed, (None, "stain", "scratch")[seed % 3])
            expected, found = detector.score(image), new.score(image)
            assert found.score == pytest.approx(expected.score, abs=1e-5 * unit)
            assert found.nearest == expected.nearest
        assert (new.thumbnail(0) == detector.thumbnail(0)).all()
        last = len(new.normal_images) - 1
        assert np.abs(new.thumbnail(last).astype(int) - detector.thumbnail(last)).mean() < 4
    learned = manifest.extensions["learned"]
    assert [image["id"] for image in learned["images"]] == [image.id for image in history] == [1, 2, 3]
    assert learned["images"][1]["undone"]["reason"] == "was a scratch"
    assert learned["kit"] == taught["fp32"].kit.sha256
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "new.kit")]).exit_code == 0


def test_a_packed_kit_learns_again(patch_kit: Path, toy: ModuleType, save: Callable, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(patch_kit, tmp_path / "line.kit"))
    part = save(tmp_path / "a.png", toy.draw(500, "stain"))
    with Learner(kit, threads=1) as learner:
        learner.add(part, **WHO)
    packed(kit, tmp_path / "new.kit", "--name", "line-4")
    with Learner(tmp_path / "new.kit", threads=1) as learner:
        assert learner.detector.kit.name == "line-4"
        assert learner.detector.score_file(part).verdict == "normal"
        learner.add(save(tmp_path / "b.png", toy.draw(501, "scratch")), **WHO)
        before = learner.detector.score_file(part).score
    packed(tmp_path / "new.kit", tmp_path / "third.kit")
    assert Detector.load(tmp_path / "third.kit", threads=1).score_file(part).score == pytest.approx(before, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from-station", "KIT"], "this station has learned nothing for it"),
        (["run", "--from-station", "KIT"], "name a RUN of msc-edge train, or --from-station KIT, and not both"),
        (["--from-station", "KIT", "--precision", "int8"], "--precision: of a training; --from-station leaves"),
        (["--from-station", "KIT", "--name", "Ö 1"], "--name 'Ö 1': a kit name has up to 63 letters"),
        ([], "name a RUN of msc-edge train, or --from-station KIT"),
    ],
)
def test_what_cannot_be_packed(patch_kit: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [str(patch_kit) if each == "KIT" else each for each in arguments]
    done = CliRunner().invoke(app, ["export", *given, "--out", str(tmp_path / "new.kit")])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "new.kit").exists()


def test_where_all_was_undone_there_is_nothing_to_pack(
    patch_kit: Path, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    kit = Path(shutil.copytree(patch_kit, tmp_path / "line.kit"))
    with Learner(kit, threads=1) as learner:
        learner.add(save(tmp_path / "a.png", toy.draw(500, "stain")), **WHO)
        learner.file.undo(1, Change.now("Ben", "mistake"))
    done = CliRunner().invoke(app, ["export", "--from-station", str(kit), "--out", str(tmp_path / "new.kit")])
    assert done.exit_code == 2
    assert "has learned nothing for it that counts; there is nothing to pack" in done.stderr
