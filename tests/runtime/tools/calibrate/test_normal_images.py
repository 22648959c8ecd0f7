import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from msc_edge.errors import SourceError
from msc_edge.runtime import Detector
from msc_edge.runtime.tools.calibrate.normal_images import find_normal_images, score_normal_images


def names(images: list) -> list[str]:
    return [Path(image.path).name for image in images]


def test_images_that_would_distort_a_calibration_are_left_out(
    detector: Detector, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    for seed in (500, 501, 502):
        save(tmp_path / f"{seed}.png", toy.draw(seed))
    for seed in (0, 2):  # even seeds are in the bank of the toy kit, odd ones were held out
        save(tmp_path / f"trained {seed}.png", toy.draw(seed))
    save(tmp_path / "held out 1.png", toy.draw(1))
    shutil.copy(tmp_path / "500.png", tmp_path / "again.png")
    (tmp_path / "metadata.png").write_bytes((tmp_path / "500.png").read_bytes() + b"behind the end")
    (tmp_path / "broken.png").write_bytes(b"no image")
    found = score_normal_images(detector, find_normal_images(tmp_path), threads=2)
    assert names(found.scored) == ["500.png", "501.png", "502.png", "held out 1.png"]
    assert names(found.copies) == ["again.png", "metadata.png"]
    assert names(found.in_bank) == ["trained 0.png", "trained 2.png"]
    assert names(found.unreadable) == ["broken.png"]
    assert found.left_out == "1 unreadable, 2 exact copies of others, 2 in the kit's memory bank"
    for image in found.scored:
        assert image.result == detector.score_file(image.path)
    assert found.scores == [image.result.score for image in found.scored if image.result]


def test_where_no_image_is_left_out_there_is_no_text(detector: Detector, fresh: Path) -> None:
    found = score_normal_images(detector, find_normal_images(fresh))
    assert (len(found.scored), found.left_out) == (120, "")


@pytest.mark.parametrize(
    ("files", "good"),
    [
        (["good/a.png", "crack/b.png"], "good"),
        (["test/good/a.png", "test/crack/b.png"], "test/good"),
        (["normal/a.png", "abnormal/b.png"], "normal"),
        (["train/good/a.png", "test/good/b.png", "test/crack/c.png"], "test/good"),
    ],
)
def test_a_folder_of_good_parts_beside_others_is_refused_and_named(files: list[str], good: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(SourceError, match="all of them would count as normal") as refused:
        find_normal_images(tmp_path)
    assert str(refused.value).endswith(f"pass --normal {tmp_path / good}")
    assert find_normal_images(tmp_path / good)


def test_images_of_all_subfolders_are_found(tmp_path: Path) -> None:
    for file in ("monday/early/a.png", "tuesday/b.png", "c.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert len(find_normal_images(tmp_path)) == 3


def test_a_path_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("file", "it is not a folder"), ("nowhere", "No such file"), (".", "no images found")):
        with pytest.raises(SourceError, match=reason):
            find_normal_images(tmp_path / name)
