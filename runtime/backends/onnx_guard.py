"""Refuse an ONNX file that points at other files, before onnxruntime opens it.

A tensor may refer to data in another file by its path. Such paths have been used to read files outside the model's
folder (CVE-2022-25882, CVE-2024-27318). Kits never need external data. The `onnx` package is not part of the runtime,
so this module reads the protobuf wire format (protobuf.dev/programming-guides/encoding): it follows the fields of
onnx.proto that can contain a tensor, and skips all others.
"""

from collections.abc import Iterator
from pathlib import Path

from msc_edge.errors import KitError

# Message -> {field number: message of that field}, from onnx.proto.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of Tensor
_DEEPEST = 64


def refuse_external_data(path: Path) -> None:
    """Raise KitError when the model at `path` keeps data in other files, or is not a protobuf message."""
    try:
        external = _has_external_data(memoryview(path.read_bytes()), "Model", 0)
    except (ValueError, IndexError) as error:
        raise KitError(f"{path.name}: not an ONNX model ({error}); export the kit again") from error
    if external:
        raise KitError(
            f"{path.name}: keeps data in other files (ONNX external data), which a kit must not; export the kit again"
        )


def _has_external_data(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    for field, value in _fields(message):
        if kind == "Tensor":
            if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0):
                return True
        elif (
            (child := _FIELDS[kind].get(field))
            and isinstance(value, memoryview)
            and _has_external_data(value, child, depth + 1)
        ):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The (number, value) pairs of a message: an int for varints, the bytes for the rest."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        field, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if position + length > len(message):
            raise ValueError(f"a field at byte {position} runs past the end")
        yield field, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number at byte {position} does not end")
