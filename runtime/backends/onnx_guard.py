"""Refuse an ONNX file that points at other files, may never end, or that another parser could understand differently.

A tensor may refer to data in another file by its path. Such paths have been used to read files outside the model's
folder (CVE-2022-25882, CVE-2024-27318). Kits never need external data. A graph within a node (`If`, `Loop`, `Scan`) may
run for ever, and functions that call each other grow without bound while they are expanded; `export` writes neither,
and no operator with random results.
The `onnx` package is not part of the runtime, so this module reads the protobuf wire format
(protobuf.dev/programming-guides/encoding) with the fields of onnx.proto that kits may have. Everything else is refused:
an unknown field, another wire type, a text that is not UTF-8, a number that is longer than it needs to be. A parser
that reads such a number differently could find another field there.
"""

from pathlib import Path
from typing import Literal

from msc_edge.errors import KitError

# Kinds of fields, with the wire types that protobuf accepts for them. A repeated number may be packed.
_WIRE_TYPES = {
    "int": (0,),
    "ints": (0, 2),
    "float": (5,),
    "floats": (5, 2),
    "doubles": (1, 2),
    "bytes": (2,),
    "text": (2,),
}
# Message -> {field number: kind, or message of that field}, from onnx.proto. Left out: training, device configurations,
# types other than tensors, functions, and graphs within nodes.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {
        **dict.fromkeys((1, 5), "int"),
        **dict.fromkeys((2, 3, 4, 6), "text"),
        **{7: "Graph", 8: "OperatorSet", 14: "Entry"},
    },
    "OperatorSet": {1: "text", 2: "int"},
    "Entry": {1: "text", 2: "text"},
    "Graph": {
        **dict.fromkeys((2, 10), "text"),
        **dict.fromkeys((11, 12, 13), "ValueInfo"),
        **{1: "Node", 5: "Tensor", 14: "Annotation", 15: "SparseTensor", 16: "Entry"},
    },
    "Node": {**dict.fromkeys((1, 2, 3, 4, 6, 7, 8), "text"), 5: "Attribute", 9: "Entry"},
    "Attribute": {
        **dict.fromkeys((1, 13, 21), "text"),
        **dict.fromkeys((4, 9), "bytes"),
        **{2: "float", 3: "int", 7: "floats", 8: "ints", 20: "int"},
        **{5: "Tensor", 10: "Tensor", 22: "SparseTensor", 23: "SparseTensor"},
        **{14: "Type", 15: "Type"},
    },
    "Tensor": {
        **dict.fromkeys((8, 12), "text"),
        **dict.fromkeys((6, 9), "bytes"),
        **dict.fromkeys((1, 5, 7, 11), "ints"),
        **{2: "int", 4: "floats", 10: "doubles", 13: "Entry", 14: "int", 16: "Entry"},
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor", 3: "ints"},
    "ValueInfo": {1: "text", 2: "Type", 3: "text", 4: "Entry"},
    "Annotation": {1: "text", 2: "Entry"},
    "Type": {1: "TensorType", 6: "text"},
    "TensorType": {1: "int", 2: "Shape"},
    "Shape": {1: "Dimension"},
    "Dimension": {1: "int", 2: "text", 3: "text"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of Tensor
_OPERATOR = 4  # of Node
_RANDOM = {"Bernoulli", "Dropout", "Multinomial"} | {
    f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")
}
_NAMES = {  # of fields that other models have, for the message
    ("Model", 25): "functions",
    ("Attribute", 6): "a graph within a node, as If, Loop and Scan have",
    ("Attribute", 11): "graphs within a node",
}


def read_model(path: Path) -> bytes:
    """The bytes of a model that `check_onnx` accepts. Open these, not the path, which gives external data a folder."""
    try:
        model = path.read_bytes()
    except OSError as error:
        raise KitError(f"{path.name}: cannot be read: {error.strerror or error}; check the disk") from error
    check_onnx(model, path.name)
    return model


def check_onnx(model: bytes, name: str) -> None:
    """Raise KitError when a model keeps data in other files, or has anything that this module does not know.

    `name`: of the file, for the message.
    """
    try:
        external = _has_external_data(model, 0, len(model), "Model")
    except (ValueError, IndexError) as error:
        raise KitError(f"{name}: not an ONNX model of a kit ({error}); export the kit again") from error
    if external:
        raise KitError(
            f"{name}: keeps data in other files (ONNX external data), which a kit must not; export the kit again"
        )


def _has_external_data(data: bytes, position: int, end: int, message: str) -> bool:
    """Whether a tensor in the message between two positions keeps data in another file."""
    fields = _FIELDS[message]
    while position < end:
        key, position = _varint(data, position, end, bits=32)
        field, wire_type = key >> 3, key & 7
        kind = fields.get(field)
        if kind is None or wire_type not in _WIRE_TYPES.get(kind, (2,)):
            found = _NAMES.get((message, field), f"field {field} of type {wire_type} in {message}")
            raise ValueError(f"{found}, which kits do not have")
        value = 0
        if wire_type == 0:
            value, position = _varint(data, position, end, bits=64)
            stop = position
        else:
            length = 8 if wire_type == 1 else 4
            if wire_type == 2:
                length, position = _varint(data, position, end, bits=32)
            stop = position + length
            if stop > end:
                raise ValueError(f"a field at byte {position} runs past the end")
        if message == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
            return True
        if kind == "text":
            text = data[position:stop].decode()  # UnicodeDecodeError is a ValueError
            if message == "Node" and field == _OPERATOR and text in _RANDOM:
                raise ValueError(f"{text}, whose results differ from run to run")
        elif kind not in _WIRE_TYPES and _has_external_data(data, position, stop, kind):
            return True
        position = stop
    return False


def _varint(data: bytes, position: int, end: int, *, bits: Literal[32, 64]) -> tuple[int, int]:
    """The number at a position, and the position behind it. ValueError where it has more bits or bytes than needed."""
    start, value, shift = position, 0, 0
    while position < end and shift < bits:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> bits or (byte == 0 and shift):
                break
            return value, position
        shift += 7
    raise ValueError(f"the number at byte {start} has too many bits, or is not in its shortest form")
