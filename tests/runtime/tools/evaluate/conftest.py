from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DEFECTS = ("empty", "scratch", "stain")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Twelve normal images and four of each of three defect types, in the MVTec-AD layout; not to be changed."""
    folder = tmp_path_factory.mktemp("drawn") / "parts"
    for seed in range(300, 312):
        save(folder / "test" / "good" / f"{seed}.png", toy.draw(seed))
    for number, defect in enumerate(DEFECTS):
        for seed in range(4):
            save(folder / "test" / defect / f"{seed:03d}.png", toy.draw(400 + 10 * number + seed, defect))
    save(folder / "train" / "good" / "000.png", toy.draw(0))
    return folder
