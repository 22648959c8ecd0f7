"""The files that a manifest can mean: which names a kit may list, and the largest size of each.

The manifest of a forged kit may state any size. These limits follow from what a file is for, so that nothing larger is
read, unpacked or embedded in a page.
"""

import re

from msc_edge.errors import KitError
from msc_edge.kit.layout import MANIFEST, THUMBNAILS, thumbnail_file
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Model
from msc_edge.text import size

_LARGEST_MODEL = 2**31 - 1  # protobuf's own limit
_LARGEST_THUMBNAIL = 256 << 10  # 256 x 256 pixels of noise take about 60 kB
_NPY_HEADER = 4096
_LARGEST_NAME = 32 << 10  # a path of 4096 bytes, each written as \udcff
_LEVELS = 16  # of a graph of 2**64 vectors with m = 16


def check_files(manifest: Manifest) -> None:
    """KitError when the manifest lists a file that kits do not have, or states a size that its file cannot have."""
    largest = largest_sizes(manifest)
    for name, entry in manifest.files.items():
        if name not in largest:
            raise KitError(f"{MANIFEST}: lists {name}, which is not a file of a kit; export the kit again")
        if entry.bytes > largest[name]:
            raise KitError(
                f"{name}: {MANIFEST} states {size(entry.bytes)}, and this file has at most {size(largest[name])}; "
                "export the kit again"
            )
    if len({name.lower() for name in manifest.files}) < len(manifest.files):
        raise KitError(f"{MANIFEST}: lists names that differ only in case; export the kit again")


def largest_sizes(manifest: Manifest) -> dict[str, int]:
    """The name of every file that the kit may have, with the largest size in bytes."""
    count = manifest.normal_images.count
    listed = set(manifest.files)  # `count` may be any number
    largest = {name: _LARGEST_THUMBNAIL for row, name in _thumbnails(listed) if row < count}
    largest[manifest.normal_images.file] = 16 + count * _LARGEST_NAME
    for model in manifest.models.values():
        largest |= _sizes_of(model)
    return largest


def _thumbnails(names: set[str]) -> list[tuple[int, str]]:
    """Row and name of the thumbnails among some names."""
    found = (re.fullmatch(rf"{THUMBNAILS}/([0-9]{{5,9}})\.jpg", name) for name in names)
    rows = [int(match[1]) for match in found if match]
    return [(row, name) for row in rows if (name := thumbnail_file(row)) in names]


def _sizes_of(model: Model) -> dict[str, int]:
    bank = model.banks.images
    sizes = {model.file: _LARGEST_MODEL, bank.file: _NPY_HEADER + 4 * bank.count * model.dim}
    if index := bank.index:
        links = 4 + 4 * index.m
        sizes[index.file] = 128 + bank.count * (2 * links + 4 * model.dim + 16 + _LEVELS * links)
    return sizes
