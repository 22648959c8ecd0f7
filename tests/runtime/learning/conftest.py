"""A copy of the toy kit with patches, and images beside it: parts that it rejects, normal or not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def station(patch_kit: Path, tmp_path: Path) -> Path:
    """A folder with a kit, `patches.kit`, which a test may teach."""
    shutil.copytree(patch_kit, tmp_path / "patches.kit")
    return tmp_path


@pytest.fixture
def picture(station: Path, toy: ModuleType, save: Callable) -> Callable[..., Path]:
    """Draws a part into a file: `picture("a.png", seed, defect)`."""

    def draw(name: str, seed: int, defect: str | None = None) -> Path:
        return save(station / name, toy.draw(seed, defect))

    return draw
