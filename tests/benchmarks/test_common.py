"""benchmarks/common.py: which images of magnetic_tile show one tile."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("common", FOLDER / "common.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tile_is_a_run_of_ascending_exposures_in_the_order_of_the_numbers(common: ModuleType) -> None:
    tiles = {
        1: ["exp1_num_150.jpg", "exp2_num_190.jpg", "exp4_num_210.jpg"],
        2: ["exp4_num_260.jpg", "exp6_num_301.jpg"],  # the exposure falls back: equal
        3: ["exp1_num_310.jpg"],
        4: ["exp2_num_900.jpg"],  # the number jumps
    }
    names = sorted(name for tile in tiles.values() for name in tile)
    found = common.tiles_of(names)
    assert [{name for name, tile in zip(names, found, strict=True) if tile == number} for number in range(4)] == [
        set(tile) for tile in tiles.values()
    ]


def test_a_name_of_another_form_is_an_error(common: ModuleType) -> None:
    with pytest.raises(ValueError, match="inhomogeneous"):
        common.tiles_of(["exp1_num_150.jpg", "good.jpg"])
