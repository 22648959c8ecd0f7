"""The search for the nearest normal images: exact, or in the HNSW index of the kit."""

from typing import Literal

from msc_edge.bank import Bank, open_hnsw
from msc_edge.errors import MissingExtraError, UsageError
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit

SearchChoice = Literal["auto", "exact", "hnsw"]


def open_bank(kit: Kit, search: SearchChoice, precision: Precision) -> Bank:
    """The memory bank of one of the kit's models, with the search to use; see `Detector.load`."""
    bank = kit.model(precision).banks.images
    embeddings = kit.embeddings(precision)
    wanted = bank.search if search == "auto" else search
    index = None
    if wanted == "hnsw":
        if bank.index is None:
            raise UsageError("this kit has no HNSW index; use exact search, or export it again with hnswlib installed")
        try:
            index = open_hnsw(kit.file(bank.index.file), embeddings, ef=bank.index.ef)
        except MissingExtraError:
            if search == "hnsw":
                raise
    return Bank(embeddings, search=index, k=bank.k)
