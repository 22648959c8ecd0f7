import shutil
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector


@pytest.mark.parametrize("zipped", [False, True])
def test_a_thumbnail_is_the_small_copy_of_the_normal_image(toy_kit, toy, tmp_path, zipped):
    path = toy_kit
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "toy"), "zip", toy_kit.parent, toy_kit.name))
    detector = Detector.load(path, threads=1)
    (nearest, *_) = detector.score(toy.draw(6)).nearest_images
    small = detector.thumbnail(nearest.row)
    assert (small.dtype, small.shape) == (np.uint8, (48, 64, 3))
    differences = [np.abs(small.astype(int) - toy.draw(int(name[5:7]))).mean() for name in detector.normal_images]
    assert detector.normal_images[int(np.argmin(differences))] == nearest.path == "part_06.png"


@pytest.mark.parametrize("row", [-1, 12, 10**9])
def test_a_row_that_the_bank_does_not_have_is_refused(detector, row):
    with pytest.raises(UsageError, match=rf"row of the memory bank is {row!r}; expected a whole number from 0 to 11"):
        detector.thumbnail(row)


def test_a_kit_without_thumbnails_says_so(kit):
    shutil.rmtree(kit / "thumbnails")
    seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
    with pytest.raises(UsageError, match="no thumbnail of row 3; export it again with --thumbnails"):
        Detector.load(kit, threads=1).thumbnail(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "the kit has changed since it was opened"),
        (lambda path: path.unlink(), "cannot be read any more"),
        (lambda path: shutil.rmtree(path.parents[1]), "cannot be read any more"),
    ],
    ids=["changed", "removed", "kit removed"],
)
def test_a_kit_that_changed_after_it_was_opened_is_refused(kit, change, message):
    detector = Detector.load(kit, threads=1)
    change(kit / "thumbnails" / "00003.jpg")
    with pytest.raises(KitError, match=message):
        detector.thumbnail(3)
