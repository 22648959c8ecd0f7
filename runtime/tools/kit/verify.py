"""Checking a kit completely: every byte, every parser, and images scored with every model."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from msc_edge.errors import SourceError
from msc_edge.images import read_image
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.selection import BackendSpec, create_backend, matches_check_image
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.search import SearchChoice, open_bank
from msc_edge.runtime.tools.kit.describe import describe_size


def verify_path(path: Path, trusted_key: Path | None = None) -> Iterator[str]:
    """Open a kit and verify it: its size in words, then the checks of `verify`. `trusted_key`: see `Kit.open`."""
    with Kit.open(path, trusted_key=trusted_key) as kit:
        yield describe_size(kit)
        if kit.signer:
            yield f"signed by {kit.signer}"
        yield from verify(kit)


def verify(kit: Kit) -> list[str]:
    """Open everything in an open kit, score with it, and return the passed checks in words.

    KitError for the first check that fails. `Kit.open` has checked the bytes. A file that crashes a native parser ends
    this process; see `isolated`.
    """
    manifest = kit.manifest
    indexed = any(model.banks.images.index for model in manifest.models.values())
    has_hnswlib = find_spec("hnswlib") is not None
    checks, detectors = [], []
    for precision, model in sorted(manifest.models.items()):
        bank = model.banks.images
        found = f"model {precision} opens, with a memory bank of {bank.count} x {model.dim}"
        if matches_check_image(kit, precision, create_backend(kit, BackendSpec(precision), threads=1)):
            # Scores the check image.
            detector = Detector.of(kit, search=_search(kit, precision), precision=precision, backend="onnxruntime")
            detectors.append(detector)
            checks.append(f"{found}, and scores the check image")
        else:
            open_bank(kit, _search(kit, precision), precision)
            checks.append(f"{found}, but this processor must NOT use it (other embeddings)")
    if indexed:
        checks.append("the index opens" if has_hnswlib else "the index was NOT opened: hnswlib is not installed")
    thumbnail = thumbnail_file(0)
    if thumbnail in manifest.files and detectors:
        checks.append(_score(detectors[0], kit.file(thumbnail)))
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
