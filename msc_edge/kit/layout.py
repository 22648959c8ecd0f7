"""Names in a kit: of the kit itself, its models and its files.

`export` gives files the names below. Readers take the names of model and bank files from the manifest.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints

_WINDOWS_DEVICE = re.compile(r"(^|/)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|/|$)", re.IGNORECASE)


def _portable(name: str) -> str:
    if _WINDOWS_DEVICE.search(name) or name.endswith("."):
        raise ValueError("Windows does not accept it as the name of a file")
    return name


Precision = Literal["fp32", "int8"]
"""Numeric format of a model, and its name in the manifest."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# One optional folder, plain characters, no leading dot: a name cannot point outside the kit.
_NAME = r"^([A-Za-z0-9_-]+/)?[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
FileName = Annotated[str, StringConstraints(pattern=_NAME, max_length=255), AfterValidator(_portable)]
KitName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
SIGNATURES = "manifest.sig"
NORMAL_IMAGES = "normal_images.json"
THUMBNAILS = "thumbnails"
MODEL_FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
BANK_FILES: dict[Precision, str] = {"fp32": "bank.npy", "int8": "bank.int8.npy"}
INDEX_FILES: dict[Precision, str] = {"fp32": "bank.hnsw", "int8": "bank.int8.hnsw"}


BESIDE_THE_FILES = frozenset({MANIFEST, MANIFEST_DIGEST, SIGNATURES})
"""Files that the manifest does not list."""
MAX_MANIFEST_BYTES = 8 << 20
"""Largest manifest.json that is read or written."""


def thumbnail_file(row: int) -> str:
    """The thumbnail of one row of the memory bank, as its path in the kit."""
    return f"{THUMBNAILS}/{row:05d}.jpg"


def kit_name(text: str) -> str:
    """A valid kit name made from any text, such as a folder name: `Bottles 3` gives `Bottles-3`.

    Text without any valid character gives `kit`.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("_.-")
    return name[:63] or "kit"
