import csv
from dataclasses import dataclass
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from msc_edge.demo import pipeline
from msc_edge.demo.drawn_images import Sizes, draw_data_set
from msc_edge.demo.parts import DEFECTS, KINDS
from msc_edge.demo.pipeline import DATA, KIT, RUN, SCORES, SHEET, DemoResult, run_demo
from msc_edge.errors import OutputError, UsageError
from msc_edge.images import read_image
from msc_edge.runtime.detector import Detector

SMALL = Sizes(train=2, test=2, each_defect=1)
SEED = 1


@dataclass(frozen=True)
class Demo:
    """One demo, run through the link `out` in place of an earlier demo whose data are on another disk."""

    out: Path
    folder: Path
    other_disk: Path
    result: DemoResult
    rows: list[dict[str, str]]
    types: list[str]
    """The defect type of each row, or `good`."""


def earlier_demo(folder: Path) -> Path:
    """A folder as `run_demo` leaves it, and a file of the user in it."""
    pipeline._prepare(folder, overwrite=False)
    for name in (DATA, RUN, KIT):
        (folder / name).mkdir()
        (folder / name / "old").write_text("old")
    for name in (SCORES, SHEET, "mine.txt"):
        (folder / name).write_text("old")
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    place = tmp_path_factory.mktemp("somewhere")
    folder = earlier_demo(place / "vorführung")
    (folder / DATA).rename(place / "other disk")
    (folder / DATA).symlink_to(place / "other disk", target_is_directory=True)
    (folder / SCORES).unlink()
    (folder / SCORES).symlink_to(place / "gone.csv")
    out = place / "link"
    out.symlink_to(folder, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")  # no server listens there
        patch.setattr("urllib.request._opener", None)
        result = run_demo(out, seed=SEED, sizes=SMALL, steps=0, overwrite=True)
    with (out / SCORES).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    types = [Path(row["path"]).parent.name for row in rows]
    return Demo(out=out, folder=folder, other_disk=place / "other disk", result=result, rows=rows, types=types)


@pytest.mark.slow
def test_it_writes_a_kit_scores_and_a_contact_sheet(demo: Demo) -> None:
    assert len(demo.rows) == len(KINDS) * (2 + len(DEFECTS))
    assert len(list((demo.out / DATA / "train" / "good").iterdir())) == 2 * len(KINDS)
    assert not any(row["error"] for row in demo.rows)
    detector = Detector.load(demo.out / KIT)
    assert detector.manifest.network.backbone == "edge-small"
    assert detector.kit.name == "demo"
    for row in demo.rows[:3]:
        assert detector.score_file(row["path"]).score == pytest.approx(float(row["score"]), abs=2e-6)
    assert read_image(demo.out / SHEET).shape[1] > 1000


@pytest.mark.slow
def test_its_figures_follow_from_the_score_file(demo: Demo) -> None:
    result, rows, types = demo.result, demo.rows, demo.types
    scores = [float(row["score"]) for row in rows]
    assert result.auroc == pytest.approx(roc_auc_score([each != "good" for each in types], scores))
    stain = [(each == "stain", score) for each, score in zip(types, scores, strict=True) if each in ("good", "stain")]
    assert result.auroc_of["stain"] == pytest.approx(roc_auc_score(*zip(*stain, strict=True)))
    verdicts = {
        each: [row["verdict"] for row, of in zip(rows, types, strict=True) if of == each] for each in set(types)
    }
    good = verdicts.pop("good")
    assert (result.rejected.count, result.rejected.images) == (good.count("reject"), 2 * len(KINDS))
    assert (result.warned.count, result.warned.images) == (len(good) - good.count("normal"), 2 * len(KINDS))
    assert result.rejected_of == {each: (of.count("reject"), len(KINDS)) for each, of in verdicts.items()}
    assert set(result.rejected_of) == set(DEFECTS)
    assert result.milliseconds > 0


@pytest.mark.slow
def test_an_earlier_demo_is_replaced_and_other_files_stay(demo: Demo) -> None:
    for name in (DATA, RUN, KIT):
        assert not (demo.folder / name / "old").exists()
    assert (demo.folder / "mine.txt").read_text() == "old"


@pytest.mark.slow
def test_it_writes_to_the_target_of_a_link(demo: Demo) -> None:
    assert demo.out.is_symlink()
    assert (demo.folder / KIT / "manifest.json").is_file()


@pytest.mark.slow
def test_targets_of_links_within_an_earlier_demo_stay(demo: Demo) -> None:
    assert not (demo.folder / DATA).is_symlink()
    assert not (demo.folder / SCORES).is_symlink()
    assert (demo.other_disk / "old").read_text() == "old"
    assert not (demo.folder.parent / "gone.csv").exists()


@pytest.mark.slow
def test_the_seed_is_that_of_the_drawn_images(demo: Demo, tmp_path: Path) -> None:
    draw_data_set(tmp_path / "same", seed=SEED, sizes=Sizes(train=0, test=1, each_defect=0))
    for kind in KINDS:
        name = f"test/good/{kind}_000.png"
        assert (demo.out / DATA / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


def test_an_earlier_demo_is_kept_without_overwrite(tmp_path: Path) -> None:
    out = earlier_demo(tmp_path / "demo")
    with pytest.raises(UsageError, match=r"contains an earlier demo; choose another name, or pass --overwrite"):
        run_demo(out)
    assert (out / DATA / "old").read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_folder_or_file_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("mine")
    for out in (tmp_path / "photos", tmp_path / "photos" / "mine.txt"):
        with pytest.raises(UsageError, match="exists and is not an earlier demo; choose another name"):
            run_demo(out, overwrite=overwrite)
    assert (tmp_path / "photos" / "mine.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="cannot write"):
        run_demo(tmp_path / "photos" / "mine.txt" / "demo", overwrite=overwrite)


@pytest.mark.parametrize("name", ["new", "missing/new", "empty"])
def test_a_new_or_empty_folder_becomes_a_demo_that_can_be_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    pipeline._prepare(tmp_path / name, overwrite=False)
    (tmp_path / name / SCORES).write_text("old")
    pipeline._prepare(tmp_path / name, overwrite=True)
    assert not (tmp_path / name / SCORES).exists()


@pytest.mark.long
def test_the_whole_demo_finds_the_defects_and_the_alarms_lie_in_the_interval(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo")
    assert result.auroc >= 0.95
    for alarms in (result.rejected, result.warned):
        low, high = alarms.interval
        assert low <= alarms.count <= high
