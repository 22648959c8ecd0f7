from collections.abc import Iterator
from pathlib import Path

import pytest

from msc_edge.demo import drawn_images
from msc_edge.demo.drawn_images import Sizes, draw_data_set
from msc_edge.demo.parts import DEFECTS, KINDS
from msc_edge.images import read_image

SMALL = Sizes(train=2, test=1, each_defect=1)


@pytest.fixture(autouse=True, scope="module")
def _one_kind_of_part() -> Iterator[None]:
    """Fewer images to draw. tests/msc_edge/demo/test_pipeline.py draws all kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_images, "KINDS", KINDS[:1])
        yield


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    draw_data_set(folder, seed=3, sizes=SMALL)
    return folder


def test_the_layout_is_that_of_mvtec_ad(data: Path) -> None:
    assert {path.name for path in (data / "test").iterdir()} == {"good", *DEFECTS}
    assert len(list((data / "train" / "good").iterdir())) == 2
    assert len(list((data / "test" / "stain").iterdir())) == 1
    assert all(read_image(path).shape == (256, 256, 3) for path in data.rglob("*.png"))


def test_no_two_images_are_the_same(data: Path) -> None:
    assert len(set(files(data).values())) == len(files(data)) == 2 + 1 + len(DEFECTS)


def test_a_larger_set_contains_the_smaller_one_for_any_number_of_threads(data: Path, tmp_path: Path) -> None:
    draw_data_set(tmp_path / "smaller", seed=3, sizes=Sizes(train=1, test=1, each_defect=0), threads=3)
    smaller = files(tmp_path / "smaller")
    assert len(smaller) == 2
    assert smaller.items() <= files(data).items()


def test_another_seed_gives_other_images(data: Path, tmp_path: Path) -> None:
    draw_data_set(tmp_path / "other", seed=4, sizes=Sizes(train=1, test=0, each_defect=0))
    assert not set(files(tmp_path / "other").values()) & set(files(data).values())
