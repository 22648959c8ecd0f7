"""File names in a kit. Readers take the names of model and bank files from the manifest; export writes these."""

from msc_edge.kit.manifest import Precision

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
NORMAL_IMAGES = "normal_images.json"
THUMBNAILS = "thumbnails"
MODEL_FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
BANK_FILES: dict[Precision, str] = {"fp32": "bank.npy", "int8": "bank.int8.npy"}
INDEX_FILES: dict[Precision, str] = {"fp32": "bank.hnsw", "int8": "bank.int8.hnsw"}


def thumbnail_file(row: int) -> str:
    """The thumbnail of one row of the memory bank, as its path in the kit."""
    return f"{THUMBNAILS}/{row:05d}.jpg"
