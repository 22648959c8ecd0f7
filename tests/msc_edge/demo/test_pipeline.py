import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from msc_edge.demo.drawn_images import Sizes
from msc_edge.demo.parts import DEFECTS, KINDS
from msc_edge.demo.pipeline import DATA, KIT, SCORES, SHEET, DemoResult, run_demo
from msc_edge.errors import UsageError
from msc_edge.images import read_image
from msc_edge.runtime.detector import Detector

SMALL = Sizes(train=8, test=2, each_defect=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult]:
    out = tmp_path_factory.mktemp("somewhere") / "vorführung"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
        patch.setattr("urllib.request._opener", None)
        return out, run_demo(out, sizes=SMALL, steps=0)


def test_it_leaves_a_kit_scores_and_a_contact_sheet(small: tuple[Path, DemoResult]) -> None:
    out, _ = small
    with (out / SCORES).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(KINDS) * (2 + len(DEFECTS))
    assert not any(row["error"] for row in rows)
    detector = Detector.load(out / KIT)
    assert detector.manifest.model.backbone == "edge-small"
    for row in rows[:3]:
        assert detector.score_file(row["path"]).score == pytest.approx(float(row["score"]), abs=2e-6)
    assert read_image(out / SHEET).shape[1] > 1000


def test_its_figures_are_those_of_its_files(small: tuple[Path, DemoResult]) -> None:
    out, result = small
    with (out / SCORES).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = [Path(row["path"]).parent.name for row in rows]
    scores = [float(row["score"]) for row in rows]
    assert result.auroc == pytest.approx(roc_auc_score([kind != "good" for kind in kinds], scores))
    stain = [(score, kind == "stain") for score, kind in zip(scores, kinds, strict=True) if kind in ("good", "stain")]
    assert result.auroc_of["stain"] == pytest.approx(roc_auc_score([bad for _, bad in stain], [s for s, _ in stain]))
    good = [row["verdict"] for row, kind in zip(rows, kinds, strict=True) if kind == "good"]
    assert (result.rejected.count, result.rejected.images) == (good.count("reject"), 2 * len(KINDS))
    assert result.warned.count == len(good) - good.count("normal")
    assert result.milliseconds > 0
    assert {name: of for name, (_, of) in result.caught.items()} == dict.fromkeys(DEFECTS, len(KINDS))


def test_only_an_earlier_demo_is_replaced_and_only_when_told(small: tuple[Path, DemoResult], tmp_path: Path) -> None:
    out, _ = small
    with pytest.raises(UsageError, match=r"holds an earlier demo.*--overwrite"):
        run_demo(out, sizes=SMALL, steps=0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is not an earlier demo"):
            run_demo(tmp_path / "photos", overwrite=overwrite, sizes=SMALL)
    assert (tmp_path / "photos" / "mine.txt").read_text() == "mine"

    (out / "mine.txt").write_text("mine")
    before = (out / DATA / "test" / "good" / "card_000.png").read_bytes()
    run_demo(out, seed=1, sizes=replace(SMALL, test=1), steps=0, overwrite=True)
    assert (out / DATA / "test" / "good" / "card_000.png").read_bytes() != before
    assert len(list((out / DATA / "test" / "good").iterdir())) == len(KINDS)
    assert (out / "mine.txt").read_text() == "mine"


def test_a_demo_is_replaced_where_a_link_leads(small: tuple[Path, DemoResult], tmp_path: Path) -> None:
    out, _ = small
    link = tmp_path / "link"
    link.symlink_to(out, target_is_directory=True)
    run_demo(link, sizes=replace(SMALL, test=1), steps=0, overwrite=True)
    assert link.is_symlink()
    assert (out / KIT / "manifest.json").is_file()


def test_what_a_link_within_an_earlier_demo_leads_to_is_not_removed(
    small: tuple[Path, DemoResult], tmp_path: Path
) -> None:
    out = shutil.copytree(small[0], tmp_path / "demo")
    shutil.move(out / DATA, tmp_path / "on another disk")
    (out / DATA).symlink_to(tmp_path / "on another disk", target_is_directory=True)
    (out / SCORES).unlink()
    (out / SCORES).symlink_to(tmp_path / "gone.csv")
    run_demo(out, sizes=replace(SMALL, test=1), steps=0, overwrite=True)
    assert not (out / DATA).is_symlink()
    assert not (out / SCORES).is_symlink()
    assert (tmp_path / "on another disk" / "test" / "good" / "card_000.png").is_file()
    assert not (tmp_path / "gone.csv").exists()


@pytest.mark.slow
def test_the_whole_demo_finds_the_defects_and_keeps_its_promise(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo")
    assert result.auroc >= 0.95
    for alarms in (result.rejected, result.warned):
        low, high = alarms.band
        assert low <= alarms.count <= high
