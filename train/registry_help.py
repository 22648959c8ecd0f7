"""Help of options whose values are in a registry: the list is that of the registry, as it is when --help is shown.

The registries import torch. So they are imported for the help of these commands only, and not where torch is missing:
the base install has the commands, too.
"""

from typing import Any

from typer.core import TyperCommand

BACKBONES, RECIPES, METHODS = "{backbones}", "{recipes}", "{methods}"
"""In the text of an option: the names of the registry; for METHODS also the baselines."""
_WITHOUT_TORCH = "--help lists them where the extra `train` is installed"


class RegistryCommand(TyperCommand):
    """A command with options of this kind."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # their classes have moved between versions of typer
        """See click."""
        texts = _texts()
        for option in self.params:
            for placeholder, text in texts.items():
                if placeholder in (getattr(option, "help", None) or ""):
                    option.help = option.help.replace(placeholder, text)  # pyright: ignore[reportAttributeAccessIssue]
        super().format_help(ctx, formatter)


def _texts() -> dict[str, str]:
    try:
        from msc_edge.train.backbones.registry import describe_backbones  # noqa: PLC0415
        from msc_edge.train.recipes import RECIPES as ALL  # noqa: PLC0415
        from msc_edge.train.recipes import describe_recipes  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "torchvision"):
            raise
        return dict.fromkeys((BACKBONES, RECIPES, METHODS), _WITHOUT_TORCH)
    methods = ", ".join(recipe.name for recipe in ALL)
    return {BACKBONES: describe_backbones(), RECIPES: describe_recipes(), METHODS: methods}
