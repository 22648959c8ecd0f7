"""`msc-edge info`, `msc-edge verify` and `msc-edge upgrade`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

_KitArgument = Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)]


def info(
    kit: _KitArgument,
    json: Annotated[bool, typer.Option("--json", help="Print manifest.json, in the current format.")] = False,
) -> None:
    """Show what a kit contains: backbone, models, limits, expected false-alarm rates and provenance."""
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.tools.kit.describe import show_kit
    from msc_edge.terminal import console, printing
    from msc_edge.text import harmless_json

    with Kit.open(kit) as opened, printing():
        if json:
            print(harmless_json(opened.manifest.to_json()), end="", flush=True)  # noqa: T201
        else:
            show_kit(console(stderr=False), opened)


def verify(
    kit: _KitArgument,
    timeout: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="Give up when the kit gives no result for this time, and call it unusable."
        ),
    ] = 120,
) -> None:
    """Check every byte of a kit, open everything in it, and score images with every model."""
    from msc_edge.runtime.tools.kit.isolated import isolated
    from msc_edge.runtime.tools.kit.verify import verify_path
    from msc_edge.terminal import console, printing
    from msc_edge.text import one_line

    size, *checks = isolated(verify_path, kit, timeout=timeout)
    with printing():
        console(stderr=False).print(f"ok: {one_line(str(kit))}: {size}; {', '.join(checks)}")


def upgrade(
    kit: _KitArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="NEWKIT", help="Kit folder to write.", show_default="KIT itself is replaced"),
    ] = None,
) -> None:
    """Write a kit of an older format in the current format. Scores, limits and verdicts stay the same.

    Older kits work without it: they are converted in memory each time they are opened.
    """
    from msc_edge.runtime.tools.kit.upgrading import upgrade as upgrade_kit
    from msc_edge.terminal import console, printing
    from msc_edge.text import one_line

    done = upgrade_kit(kit, out)
    with printing():
        to = console(stderr=False)
        if done is None:
            to.print(one_line(f"{kit}: has the current format already"))
        else:
            place = shlex.quote(str(done.written))
            to.print(one_line(f"{place}: format {done.from_version} -> {done.to_version}, SHA-256 {done.sha256[:12]}"))
