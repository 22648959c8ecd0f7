"""What the files of a kit are called."""

from msc_edge.kit.manifest import Precision

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
MODEL = "model.onnx"
BANK = "bank.npy"
INDEX = "bank.hnsw"
INT8_MODEL = "model.int8.onnx"
INT8_BANK = "bank.int8.npy"
INT8_INDEX = "bank.int8.hnsw"
MODELS: dict[Precision, str] = {"fp32": MODEL, "int8": INT8_MODEL}
BANKS: dict[Precision, str] = {"fp32": BANK, "int8": INT8_BANK}
INDEXES: dict[Precision, str] = {"fp32": INDEX, "int8": INT8_INDEX}
NORMALS = "normals.json"
THUMBNAILS = "thumbnails"
