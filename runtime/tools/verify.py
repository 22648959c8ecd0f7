"""Checking a kit as far as a machine can: every byte, every parser, and one image through the whole of it."""

from importlib.util import find_spec
from pathlib import Path

from msc_edge.errors import SourceError
from msc_edge.images import read_image
from msc_edge.kit.layout import THUMBNAILS
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.selection import BackendSpec, create_backend, matches_check_embedding
from msc_edge.runtime.detector import Detector, SearchChoice, open_bank


def verify(kit: Kit) -> list[str]:
    """Open all that an opened kit holds, and return what was found good, in words. KitError for what is not.

    The bytes themselves were checked by `Kit.open`.
    """
    bank = kit.manifest.bank
    indexed = bank.index is not None and find_spec("hnswlib") is not None
    search: SearchChoice = "hnsw" if indexed else "exact"
    detector = Detector.of(kit, search=search, precision="fp32", backend="onnxruntime")
    found = ["the model opens", f"the bank holds {bank.count} x {bank.dim}"]
    if kit.manifest.int8:
        int8 = create_backend(kit, BackendSpec("int8"), threads=1)
        here = matches_check_embedding(kit, int8)
        found.append("the int8 model opens" if here else "the int8 model opens, but is NOT for this processor")
        open_bank(kit, search, "int8")
    if bank.index is not None:
        found.append("the index opens" if indexed else "the index was NOT opened, for hnswlib is not installed")
    thumbnail = f"{THUMBNAILS}/00000.jpg"
    if thumbnail in kit.manifest.files:
        found.append(_score(detector, kit.path(thumbnail)))
    return found


def _score(detector: Detector, thumbnail: Path) -> str:
    try:
        detector.score(read_image(thumbnail))
    except SourceError as error:  # a thumbnail may be smaller than the region that the kit looks at
        return f"no image was scored, for {error}"
    return f"{THUMBNAILS}/{thumbnail.name} was scored"
