"""Checking a kit completely: every byte, every parser, and one image scored."""

from importlib.util import find_spec
from pathlib import Path

from msc_edge.errors import SourceError
from msc_edge.images import read_image
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.selection import BackendSpec, create_backend, matches_check_image
from msc_edge.runtime.detector import Detector, SearchChoice, open_bank


def verify(kit: Kit) -> list[str]:
    """Open everything in an open kit, and return the passed checks in words. KitError for the first that fails.

    `Kit.open` has checked the bytes.
    """
    manifest = kit.manifest
    indexed = any(model.banks.images.index for model in manifest.models.values())
    has_hnswlib = find_spec("hnswlib") is not None
    first = manifest.precisions[0]
    detector = Detector.of(kit, search=_search(kit, first), precision=first, backend="onnxruntime")
    checks = []
    for precision, model in sorted(manifest.models.items()):
        bank = model.banks.images
        usable = True  # the first: the detector has its bank and its model
        if precision != first:
            open_bank(kit, _search(kit, precision), precision)
            backend = create_backend(kit, BackendSpec(precision), threads=1)
            usable = matches_check_image(kit, precision, backend)
        checks.append(
            f"model {precision} opens, with a memory bank of {bank.count} x {model.dim}"
            + ("" if usable else ", but this processor must NOT use it (other embeddings)")
        )
    if indexed:
        checks.append("the index opens" if has_hnswlib else "the index was NOT opened: hnswlib is not installed")
    thumbnail = thumbnail_file(0)
    if thumbnail in manifest.files:
        checks.append(_score(detector, kit.file(thumbnail)))
    return checks


def _search(kit: Kit, precision: Precision) -> SearchChoice:
    index = kit.model(precision).banks.images.index
    return "hnsw" if index is not None and find_spec("hnswlib") is not None else "exact"


def _score(detector: Detector, thumbnail: Path) -> str:
    name = f"{thumbnail.parent.name}/{thumbnail.name}"
    try:
        detector.score(read_image(thumbnail))
    except SourceError as error:  # a thumbnail may be smaller than the region of interest
        return f"{name} was not scored: {error}"
    return f"{name} was scored"
