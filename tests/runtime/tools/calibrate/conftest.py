from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """120 normal images that are not in the toy kit; not to be changed."""
    folder = tmp_path_factory.mktemp("line") / "früh"
    for seed in range(1000, 1120):
        save(folder / f"{seed}.png", toy.draw(seed))
    return folder
