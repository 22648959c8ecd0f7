"""The files of `score --heatmaps` and `score --maps`: one for each image, below a folder."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msc_edge.drawing import encode_image
from msc_edge.errors import UsageError
from msc_edge.files import written_whole
from msc_edge.kit.opening import Kit
from msc_edge.map_file import write_map
from msc_edge.overlay import overlay
from msc_edge.runtime.results.image_result import ImageResult

_QUALITY = 90
_LONGEST_NAME = 255  # bytes on Linux, characters on Windows


class HeatmapWriter:
    """Writes overlays and maps of scored images. Safe to use from several threads.

    The file of `parts/7/a.bmp` is `<folder>/parts/7/a.bmp.jpg`, or `.png` for a map: with its old suffix, so that
    a.bmp and a.jpg do not overwrite each other. A name that becomes too long is shortened, and a hash makes it unique.
    """

    def __init__(
        self, kit: Kit, *, overlays: Path | None, maps: Path | None, images: Sequence[str], overwrite: bool = False
    ) -> None:
        """`images`: the folders, patterns and files that are scored.

        UsageError for a kit without patches, for a folder within the kit or one of `images`, and for one that is not
        empty, unless `overwrite`.
        """
        if kit.manifest.reference_model.scoring.map is None:
            raise UsageError(
                "--heatmaps and --maps: this kit compares whole images only; train and export with --scores both"
            )
        for option, folder in (("--heatmaps", overlays), ("--maps", maps)):
            if folder and folder.resolve().is_relative_to(kit.path.resolve()):
                raise UsageError(
                    f"{option} {folder}: lies within the kit, which would be damaged; choose another place"
                )
            if folder and any(folder.resolve().is_relative_to(Path(each).resolve()) for each in images):
                raise UsageError(
                    f"{option} {folder}: lies within the images to score, and the next run would score it too; choose "
                    "another place"
                )
            if folder and not overwrite and folder.is_dir() and any(folder.iterdir()):
                raise UsageError(
                    f"{option} {folder}: is not empty; choose another place, or pass --overwrite to write into it"
                )
        self._overlays, self._maps = overlays, maps

    def write(self, scored: ImageResult, image: np.ndarray) -> None:
        """Write the files of an image, uint8 (height, width, 3). OutputError from the disk."""
        found = scored.result.grid_map if scored.result else None
        assert found is not None, "a kit with patches gives every scored image a map"
        if self._overlays:
            data = encode_image(overlay(image, found), ".jpg", quality=_QUALITY)
            with written_whole(_place(self._overlays, scored.path, ".jpg"), durable=False) as path:
                path.write_bytes(data)
        if self._maps:
            write_map(_place(self._maps, scored.path, ".png"), found.at_frame(), limit=found.limit)


def _place(folder: Path, image: str, suffix: str) -> Path:
    path = Path(image)
    parts = ["_" if part == ".." else part for part in path.parts if part != path.anchor]
    return folder.joinpath(*parts[:-1], _file_name(parts[-1], suffix))


def _file_name(name: str, suffix: str) -> str:
    """The name of an image with a suffix behind it; shortened, with a hash, where no file system takes it."""
    if len(os.fsencode(name + suffix)) <= _LONGEST_NAME:
        return name + suffix
    end = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}{suffix}"
    while len(os.fsencode(name + end)) > _LONGEST_NAME:
        name = name[:-1]
    return name + end
