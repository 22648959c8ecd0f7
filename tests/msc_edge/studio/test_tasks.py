import shutil
from collections.abc import Callable

import numpy as np

from msc_edge.images import read_image
from msc_edge.progress import silent
from msc_edge.studio.checked import CheckResult
from msc_edge.studio.tasks import check


def test_the_check_names_labelled_images_that_are_also_normal_images(tmp_path, toy, save: Callable):
    good, test = tmp_path / "good", tmp_path / "test"
    for number in range(5):
        save(good / f"{number}.png", toy.draw(number))
    save(good / "deep.png", np.full((8, 8, 3), 4000, np.uint16))
    save(test / "good" / "new.png", toy.draw(100))
    (test / "dent").mkdir()
    shutil.copy(good / "1.png", test / "dent" / "same bytes.png")
    save(test / "good" / "same pixels.bmp", read_image(good / "3.png"))
    (test / "dent" / "broken.png").write_bytes(b"no image")
    found = CheckResult.model_validate(check(normal=str(good), test=str(test), report=silent))
    assert [(image.name, image.label, image.normal) for image in found.leaked] == [
        ("good/same pixels.bmp", "good", 3),
        ("dent/same bytes.png", "dent", 1),
    ]
    assert [found.leaked_path(number).name for number in (0, 1)] == ["same pixels.bmp", "same bytes.png"]
    assert found.labels == {"good": 2, "dent": 2}
    (deep,) = [image for image in found.images if image.role == "unreadable"]
    assert deep.reason == "it has 16 bits a channel, and 8 are expected; save it with 8 bits a channel"
    assert list(found.test_unreadable) == ["dent/broken.png"]
