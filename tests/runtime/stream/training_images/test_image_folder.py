"""Files that are exact, whole or absent, and numbered across runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import OutputError, UsageError
from msc_edge.files import written_whole
from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.runtime.stream.training_images.image_folder import label_of, open_image_folder

MOMENT = datetime(2026, 11, 30, 5, 12, 33, 412_900, tzinfo=UTC)


def random_image(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (240, 320)])
def test_a_file_has_the_exact_pixels(height: int, width: int, tmp_path: Path) -> None:
    image = random_image(0, height, width)
    with open_image_folder(tmp_path) as folder:
        path = folder.save(image, MOMENT)
    assert np.array_equal(read_image(path), image)


def test_names_have_the_time_in_utc_and_sort_by_it(tmp_path: Path) -> None:
    with open_image_folder(tmp_path) as folder:
        berlin = MOMENT.astimezone(timezone(timedelta(hours=1)))
        paths = [folder.save(random_image(i), berlin + timedelta(seconds=0.4 * i)) for i in range(12)]
    assert [path.name for path in paths[:3]] == [
        "20261130-051233-412Z_0001.png",
        "20261130-051233-812Z_0002.png",
        "20261130-051234-212Z_0003.png",
    ]
    assert sorted(paths) == paths == list(find_images([tmp_path]).paths)
    assert label_of(paths[2]) == (3, "05:12:34")


def test_a_later_run_continues_the_numbers_and_replaces_nothing(tmp_path: Path) -> None:
    with open_image_folder(tmp_path) as folder:
        first = folder.save(random_image(1), MOMENT)
        folder.save(random_image(2), MOMENT)
    first.unlink()  # by hand: its number is not used again
    with open_image_folder(tmp_path) as folder:
        assert [path.name[-8:] for path in folder.paths] == ["0002.png"]
        assert folder.save(random_image(3), MOMENT).name.endswith("_0003.png")
    assert len(folder.paths) == 2


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    others = ["photo.png", ".20261130-051233-412Z_0001.png", "20261130-051233-412Z_0001.jpg", ".other.partial"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    with open_image_folder(tmp_path) as folder:
        assert folder.paths == []
        folder.save(random_image(0), MOMENT)
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    name = "20261130-051233-412Z_0001.png"
    with written_whole(tmp_path / name) as partial:
        partial.write_bytes(b"half")
    (tmp_path / name).rename(partial)  # as it is left by a process that is killed before the end of the block
    with open_image_folder(tmp_path) as folder:
        assert folder.paths == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        open_image_folder(tmp_path),
        pytest.raises(UsageError, match="another msc-edge capture uses it; choose another folder"),
        open_image_folder(tmp_path),
    ):
        pass


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="File exists"), open_image_folder(tmp_path / "file"):
        pass


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(small_disk: Path, fill: Callable) -> None:
    with open_image_folder(small_disk / "parts") as folder:
        saved = folder.save(random_image(0), MOMENT)
        ballast = fill(small_disk)
        with pytest.raises(OutputError, match="No space left on device; free some space"):
            folder.save(random_image(1, 100, 100), MOMENT)
        assert list(folder.folder.iterdir()) == [saved] == folder.paths
        ballast.unlink()
        assert folder.save(random_image(1, 100, 100), MOMENT).name.endswith("_0002.png")
