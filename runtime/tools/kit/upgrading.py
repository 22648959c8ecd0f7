"""The whole of `msc-edge upgrade`, for Python users: a kit of an older format written in the current one."""

from dataclasses import dataclass
from pathlib import Path

from msc_edge.errors import UsageError
from msc_edge.files import sha256_of
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.opening import Kit
from msc_edge.kit.upgrade import FORMAT_VERSION
from msc_edge.kit.writing import rewrite, rewrite_target


@dataclass(frozen=True)
class Upgrade:
    """What `upgrade` did."""

    written: Path
    from_version: int
    to_version: int
    sha256: str
    """SHA-256 of the new manifest."""


def upgrade(kit: Path, out: Path | None = None) -> Upgrade | None:
    """Write a kit in the current format into the folder `out`, or in its own place; None where it has it already.

    Scores, limits and verdicts stay the same; the SHA-256 of the kit changes, since its manifest does. The new manifest
    keeps the old SHA-256 in `extensions.upgraded_from`. Raises KitError, UsageError for a place that cannot be used,
    OutputError from the disk.
    """
    target = rewrite_target(kit, out, in_place=out is None)
    with Kit.open(kit) as opened:
        version = opened.format_version
        if version == FORMAT_VERSION:
            if out is not None:
                raise UsageError(f"{kit}: has format {version} already; copy the folder to use it elsewhere")
            return None
        source = {"format_version": version, "sha256": opened.identity.sha256}
        extensions = opened.manifest.extensions | {"upgraded_from": source}
        assert target is not None  # with `in_place` where `out` is None
        rewrite(opened, opened.manifest.model_copy(update={"extensions": extensions}), target)
    return Upgrade(target, version, FORMAT_VERSION, sha256_of(target / MANIFEST))
