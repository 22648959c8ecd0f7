"""--help lists what the registries have."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from msc_edge.cli import app
from msc_edge.train import recipes
from msc_edge.train.backbones.registry import FAMILIES, backbone_names
from msc_edge.train.recipes import RECIPES, Recipe


def help_of(*command: str) -> str:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "1000"}).stdout
    return " ".join(shown.replace("│", " ").split())


def test_a_recipe_that_is_entered_is_in_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", (*RECIPES, Recipe(name="own", loss=RECIPES[0].loss, about="a test")))
    shown = help_of("train")
    assert "v1: mean-shifted and angular centre loss; v2: mean-shifted loss; own: a test" in shown
    assert "contrastive" not in shown, "train refuses the baseline"
    assert "a recipe: contrastive, v1, v2, own" in help_of("benchmark", "one-vs-rest")


@pytest.mark.parametrize("command", [("train",), ("distil",), ("benchmark", "one-vs-rest")], ids=" ".join)
def test_every_backbone_is_in_the_help(command: tuple[str, ...]) -> None:
    shown = help_of(*command)
    assert ", ".join(FAMILIES[-1].NAMES) in shown
    assert all(name in shown for name in backbone_names())
    assert "{" not in shown


def test_the_help_is_there_without_torch() -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'torchvision'])\n"
        "from msc_edge.cli import app; app(['train', '--help'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--backbone" in done.stdout
    assert "{" not in done.stdout
