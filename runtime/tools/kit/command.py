"""`msc-edge info`, `verify`, `upgrade`, `new-key` and `sign`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from msc_edge.runtime.option_types import TrustedKey

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
    trusted_key: TrustedKey = None,
) -> None:
    """Check every byte of a kit, open everything in it, and score images with every model."""
    from functools import partial

    from msc_edge.runtime.tools.kit.isolated import isolated
    from msc_edge.runtime.tools.kit.verify import verify_path
    from msc_edge.terminal import console, printing
    from msc_edge.text import one_line

    size, *checks = isolated(partial(verify_path, trusted_key=trusted_key), kit, timeout=timeout)
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


def new_key(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Writes NAME.key and NAME.pub.", show_default=False)],
) -> None:
    """Make a pair of keys to sign kits with (Ed25519).

    NAME.key signs: keep it away from the line. NAME.pub checks: copy it to the stations.
    """
    from msc_edge.kit.signatures import PRIVATE, PUBLIC
    from msc_edge.kit.signatures import new_key as write_key
    from msc_edge.terminal import console, printing
    from msc_edge.text import one_line

    own = write_key(name)
    with printing():
        console(stderr=False).print(one_line(f"{name}{PRIVATE} signs, {name}{PUBLIC} checks; fingerprint {own[:16]}"))


def sign(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The folder of a kit.", show_default=False)],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Private key of `msc-edge new-key`.", show_default=False)],
) -> None:
    """Sign a kit: stations with --trusted-key accept only kits that one of their keys has signed.

    Signatures of other keys stay, so that a kit can be signed by an old and a new key. A kit that is changed
    afterwards, such as by calibrate, needs a new signature.
    """
    from msc_edge.kit.signing import sign as sign_kit
    from msc_edge.terminal import console, printing
    from msc_edge.text import one_line

    own = sign_kit(kit, key)
    with printing():
        console(stderr=False).print(one_line(f"{kit}: signed; fingerprint of the key {own[:16]}"))
