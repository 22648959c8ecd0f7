from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.errors import UsageError
from msc_edge.images import read_image
from msc_edge.kit.opening import Kit
from msc_edge.map_file import read_map
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.score.heatmaps import HeatmapWriter


@pytest.fixture
def images(tmp_path, toy, save) -> Path:
    for name, defect in (("a/good.png", None), ("a/stain.png", "stain"), ("b/stain.bmp", "stain")):
        save(tmp_path / "images" / name, toy.draw(200, defect))
    (tmp_path / "images" / "b" / "broken.png").write_bytes(b"no image")
    return tmp_path / "images"


def score(*arguments: object):
    return CliRunner().invoke(app, ["score", *map(str, arguments)])


def test_each_readable_image_has_an_overlay_and_a_map_below_the_folder(patch_kit, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = score(patch_kit, "images", "--out", "s.csv", "--heatmaps", "over lays", "--maps", "maps")
    assert done.exit_code == 0, done.output
    names = ["a/good.png", "a/stain.png", "b/stain.bmp"]
    assert sorted(path.relative_to("over lays/images").as_posix() for path in Path("over lays").rglob("*.*")) == [
        f"{name}.jpg" for name in names
    ]
    detector = Detector.load(patch_kit, threads=1)
    for name in names:
        found, limit = read_map(tmp_path / "maps" / "images" / f"{name}.png")
        expected = detector.score_file(images / name, heatmap=True)
        assert found == pytest.approx(expected.anomaly_map, abs=1e-4)
        assert expected.grid_map
        assert limit == expected.grid_map.limit
    good, stain = (read_image(tmp_path / "over lays/images" / f"{name}.jpg").astype(int) for name in names[:2])
    assert np.abs(good - read_image(images / names[0])).mean() < 8  # only JPEG's own errors
    assert np.abs(stain - read_image(images / names[1]))[4:20, 42:58].mean() > 20  # around the stain


def test_a_path_out_of_the_working_folder_stays_below_the_folder(patch_kit, images, tmp_path, monkeypatch):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert score(patch_kit, "../../images/a/good.png", "--maps", "m", "--out", "s.csv").exit_code == 0
    assert [path.as_posix() for path in Path("m").rglob("*.png")] == ["m/_/_/images/a/good.png.png"]
    assert score(patch_kit, images / "a/good.png", "--maps", "n", "--out", "t.csv").exit_code == 0
    (written,) = Path("n").rglob("*.png")
    assert written.as_posix() == f"n{images.as_posix()}/a/good.png.png"


def test_images_with_the_longest_names_have_a_file_each(patch_kit, tmp_path, toy, save):
    """Names of 255 bytes, which differ in their last letters only."""
    for last in "xy":
        save(tmp_path / "images" / ("ü" * 125 + f"{last}.png"), toy.draw(200))
    done = score(patch_kit, tmp_path / "images", "--out", tmp_path / "s.csv", "--heatmaps", tmp_path / "heatmaps")
    assert done.exit_code == 0, done.output
    written = list((tmp_path / "heatmaps").rglob("*.jpg"))
    assert len(written) == 2
    assert all(path.name.startswith("ü" * 100) and len(path.name.encode()) > 250 for path in written)


@pytest.mark.parametrize("option", ["--heatmaps", "--maps"])
def test_a_folder_within_the_images_is_refused_before_anything_is_written(patch_kit, images, option):
    done = score(patch_kit, images, option, images / "a" / "maps", "--out", images.parent / "s.csv")
    assert done.exit_code == 2
    assert f"{option} {images / 'a' / 'maps'}: lies within the images" in " ".join(done.output.split())
    assert not (images.parent / "s.csv").exists()


@pytest.mark.parametrize("option", ["--heatmaps", "--maps"])
def test_earlier_files_are_only_replaced_with_overwrite(patch_kit, images, option, tmp_path):
    command = (images, option, tmp_path / "maps", "--out", tmp_path / "s.csv")
    assert score(patch_kit, *command).exit_code == 0
    (tmp_path / "s.csv").unlink()
    done = score(patch_kit, *command)
    assert done.exit_code == 2
    assert f"{option} {tmp_path / 'maps'}: is not empty" in " ".join(done.output.split())
    assert not (tmp_path / "s.csv").exists()
    assert score(patch_kit, *command, "--overwrite").exit_code == 0
    assert score(patch_kit, *command, "--resume").exit_code == 0


def test_a_kit_of_whole_images_is_refused(toy_kit, tmp_path):
    with Kit.open(toy_kit) as kit, pytest.raises(UsageError, match="compares whole images only"):
        HeatmapWriter(kit, overlays=tmp_path, maps=None, images=[])


def test_a_disk_that_takes_no_heatmap_ends_the_run(patch_kit, images, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    done = score(patch_kit, images, "--heatmaps", tmp_path / "taken", "--out", tmp_path / "s.csv")
    assert done.exit_code == 5
    assert "taken" in done.output


def test_the_report_shows_the_overlay_beside_the_image(patch_kit, images, tmp_path):
    done = score(patch_kit, images, "--report", tmp_path / "r.html", "--out", tmp_path / "s.csv")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text()
    assert page.count("stain.png with its heatmap") == 2  # small and enlarged
    assert page.count("stain.png without heatmap") == 2
    assert "any region: target 10 %" in page


@pytest.mark.parametrize("option", ["--heatmaps", "--maps"])
def test_a_folder_within_the_kit_is_refused(patch_kit, images, option, tmp_path):
    """A kit with another file in it would be refused from then on."""
    done = score(patch_kit, images, option, patch_kit / "maps", "--out", tmp_path / "s.csv")
    assert done.exit_code == 2
    assert "lies within the kit" in " ".join(done.output.split())
    assert not (patch_kit / "maps").exists()
