from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train import fine_tune, view_sheet
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.checkpoint_selection import held_out_for_selection
from msc_edge.train.loading import training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.settings import FineTuning
from msc_edge.train.view_sheet import write_view_sheet

SIDE = view_sheet._SIDE  # so that the sheet shows each pixel of a view
SPEC = preset("whole-frame", image_size=SIDE)


def settings_of(**changed) -> FineTuning:
    quick = {"recipe": "v2", "steps": 4, "batch": 4, "learning_rate": 1e-2, "dtype": "fp32", "seed": 0}
    return FineTuning(**{**quick, **changed})


@pytest.fixture(scope="module")
def copies(toy) -> list[torch.Tensor]:
    return [training_copy(toy.draw(seed), SPEC) for seed in range(40)]


@pytest.fixture
def sheet_of(copies: list[torch.Tensor], tmp_path: Path) -> Callable[[FineTuning], np.ndarray]:
    def draw(settings: FineTuning) -> np.ndarray:
        write_view_sheet(tmp_path / "views.png", copies, [f"{i}.png" for i in range(40)], settings, size=SIDE)
        return read_image(tmp_path / "views.png")

    return draw


def cells(sheet: np.ndarray, rows: int) -> list[list[np.ndarray]]:
    """The image and the two views of each row, from their places on the sheet."""
    found = []
    for number in range(rows):
        left = view_sheet._MARGIN + number % 2 * (3 * SIDE + 2 * view_sheet._BETWEEN + view_sheet._GAP)
        top = view_sheet._TITLE + number // 2 * (SIDE + view_sheet._CAPTION)
        lefts = [left + place * (SIDE + view_sheet._BETWEEN) for place in range(3)]
        found.append([sheet[top : top + SIDE, x : x + SIDE] for x in lefts])
    return found


@pytest.mark.parametrize("select", ["last", "synthetic"])
def test_the_sheet_shows_the_views_of_the_first_step(copies, sheet_of: Callable, select: str) -> None:
    settings = settings_of(select=select)
    network = EmbeddingNetwork(build_backbone("resnet18", stop_at="layer1"), SPEC).eval()
    held_out = held_out_for_selection(40) if select == "synthetic" else set()
    in_training = [each for i, each in enumerate(copies) if i not in held_out]
    fabric = Fabric(accelerator="cpu", devices=1)
    seen = fine_tune._views_of(0, in_training, network, settings, fabric)
    shown = cells(sheet_of(settings), 4)
    for place in (1, 2):
        views = torch.from_numpy(np.stack([row[place] for row in shown])).permute(0, 3, 1, 2).float()
        expected = seen[4 * (place - 1) : 4 * place]
        difference = (network.preprocess.normalise(views) - expected).abs().max()
        assert float(difference) < 0.51 / 255 / 0.22  # rounded to whole grey levels; the least deviation is 0.224


def test_it_depends_on_the_seed_only_and_draws_no_random_number(sheet_of: Callable) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(1), np.random.random())
    torch.manual_seed(5)
    np.random.seed(5)
    first = sheet_of(settings_of())
    assert (torch.rand(1), np.random.random()) == expected
    assert np.array_equal(sheet_of(settings_of()), first)
    assert not np.array_equal(sheet_of(settings_of(seed=1)), first)


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (3, 2), (8, 4), (30, 4)])
def test_it_has_at_most_eight_images(sheet_of: Callable, batch: int, rows: int) -> None:
    height, width = sheet_of(settings_of(batch=batch)).shape[:2]
    assert height == view_sheet._TITLE + rows * (SIDE + view_sheet._CAPTION) + view_sheet._MARGIN
    assert (width > 1000) == (batch > 1)


def test_a_long_path_keeps_the_name_of_the_file() -> None:
    name = "line 3/" * 30 + "part_07.png"
    shown = view_sheet._shortened(name, 500)
    assert shown.startswith("...")
    assert shown.endswith("/part_07.png")
    assert view_sheet._shortened("part_07.png", 500) == "part_07.png"
