from contextlib import suppress

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, TensorShapeProto, TypeProto, helper, numpy_helper

from msc_edge.errors import KitError
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.model_entry import EmbeddingOutput, Outputs
from msc_edge.runtime.backends.onnx_guard import _FIELDS, check_onnx, read_model
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend


def external(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def internal(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32), name)


def graph(*nodes: onnx.NodeProto, tensor: TensorProto | None = None) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], [tensor] if tensor else [])


def in_an_initializer(tensor):
    return helper.make_model(graph(tensor=tensor))


def in_a_constant(tensor):
    return helper.make_model(graph(helper.make_node("Constant", [], ["y"], value=tensor)))


def in_a_list_of_tensors(tensor):
    return helper.make_model(graph(helper.make_node("Any", [], ["y"], values=[internal(), tensor])))


def in_a_branch_of_a_node(tensor):
    return helper.make_model(
        graph(helper.make_node("If", ["x"], ["y"], then_branch=graph(), else_branch=graph(tensor=tensor)))
    )


def in_a_list_of_graphs(tensor):
    return helper.make_model(graph(helper.make_node("Any", [], ["y"], graphs=[graph(), graph(tensor=tensor)])))


def in_a_function(tensor):
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    function = helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 20)])
    return helper.make_model(graph(), functions=[function])


def in_a_sparse_initializer(tensor):
    sparse = onnx.SparseTensorProto(values=tensor, indices=internal("i"), dims=[1])
    return helper.make_model(
        helper.make_graph([], "g", [], [], sparse_initializer=[sparse]),
    )


def in_a_sparse_constant(tensor):
    sparse = onnx.SparseTensorProto(values=internal(), indices=tensor, dims=[1])
    return helper.make_model(graph(helper.make_node("Constant", [], ["y"], sparse_value=sparse)))


def in_training_info(tensor):
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(graph(tensor=tensor))
    return model


PLACES = [
    in_an_initializer,
    in_a_constant,
    in_a_list_of_tensors,
    in_a_sparse_initializer,
    in_a_sparse_constant,
]


def check(model: onnx.ModelProto | bytes) -> None:
    check_onnx(model if isinstance(model, bytes) else model.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_external_data_is_found_in_every_place_of_a_tensor(place):
    with pytest.raises(KitError, match=r"model\.onnx: keeps data in other files"):
        check(place(external()))
    check(place(internal()))


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (in_a_branch_of_a_node, "a graph within a node, as If, Loop and Scan have"),
        (in_a_list_of_graphs, "graphs within a node"),
        (in_a_function, "functions"),
    ],
)
def test_what_may_never_end_is_refused(place, found):
    with pytest.raises(KitError, match=rf"^model\.onnx: .*\({found}, which kits do not have\); export the kit again$"):
        check(place(internal()))


@pytest.mark.parametrize("operator", ["RandomNormalLike", "RandomUniform", "Bernoulli", "Dropout", "Multinomial"])
def test_operators_with_random_results_are_refused(operator):
    node = onnx.helper.make_node(operator, ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "random", [], [])
    with pytest.raises(KitError, match=rf"\({operator}, whose results differ from run to run\)"):
        check(onnx.helper.make_model(graph))


def test_training_info_is_refused():
    with pytest.raises(KitError, match="field 20 of type 2 in Model"):
        check(in_training_info(internal()))


@pytest.mark.parametrize("only", ["data_location", "external_data"])
def test_either_field_of_external_data_is_enough(only):
    tensor = external()
    tensor.ClearField("external_data" if only == "data_location" else "data_location")
    with pytest.raises(KitError, match="external data"):
        check(in_an_initializer(tensor))


def test_text_that_looks_like_external_data_is_accepted():
    words = [b"external_data", external().SerializeToString()]
    model = in_an_initializer(helper.make_tensor("words", TensorProto.STRING, [2], np.array(words, dtype=object)))
    model.doc_string = "location: ../secret"
    check(model)


def varint(value: int, *, length: int = 1) -> bytes:
    """The number with at least `length` bytes; its shortest form has fewer."""
    count = max(length, 1, -(-value.bit_length() // 7))
    return bytes(value >> 7 * place & 0x7F | (0x80 if place < count - 1 else 0) for place in range(count))


def field(number: int, wire_type: int, content: bytes = b"", *, key: int = 0, length: int = 1) -> bytes:
    """One field; `key` is added to its key, which then has `length` bytes at least."""
    size = varint(len(content)) if wire_type == 2 else b""
    return varint((number << 3 | wire_type) + key, length=length) + size + content


WORDS = field(1, 2, b"location") + field(2, 2, b".DS_Store")
LOCATION, DATA = 14, 13


@pytest.mark.parametrize(
    "hidden",
    [
        field(LOCATION, 0, b"\1", key=1 << 32),
        field(DATA, 2, WORDS, key=1 << 32),
        field(DATA, 2, WORDS, key=7 << 32),
        field(DATA, 2, WORDS, key=1 << 35),
        field(DATA, 2, WORDS, key=1 << 62),
        field(DATA, 2, WORDS, length=3),
        field(DATA, 2, WORDS, length=10),
        varint(DATA << 3 | 2) + varint(len(WORDS), length=5) + WORDS,
        varint(DATA << 3 | 2) + varint(len(WORDS) + (1 << 32)) + WORDS,
        field(LOCATION, 0, b"\x80" * 9 + b"\2"),
        field(LOCATION, 0, varint(1, length=2)),
        field(LOCATION, 0, varint((1 << 32) + 1)),
        field(LOCATION, 2, b"\1"),
        field(LOCATION, 5, b"\1\0\0\0"),
        field(DATA, 3) + WORDS + field(DATA, 4),
        field(15, 0, b"\1"),
        field(0, 0, b"\1"),
        field(1, 6, b"\1"),
        field(1, 7, b"\1"),
    ],
)
def test_what_another_parser_could_read_differently_is_refused(hidden):
    tensor = internal().SerializeToString() + hidden
    model = helper.make_model(graph()).SerializeToString() + field(7, 2, field(5, 2, tensor))
    with pytest.raises(KitError, match=r"^model\.onnx: .*; export the kit again$"):
        check(model)


def has_external_data(message) -> bool:
    """Whether protobuf's own parser found external data anywhere in a message."""
    if isinstance(message, TensorProto) and (message.external_data or message.data_location):
        return True
    for description, value in message.ListFields():
        if description.message_type:
            each = value if description.is_repeated else [value]
            if any(has_external_data(child) for child in each):
                return True
    return False


@pytest.mark.parametrize("place", [field(1, 2, field(3, 2, b"\xae")), field(11, 2, field(1, 2, b"\xd7\x28"))])
def test_a_name_that_is_not_text_is_refused(place):
    with pytest.raises(KitError, match=r"not an ONNX model of a kit \('utf-8' codec"):
        check(helper.make_model(graph()).SerializeToString() + field(7, 2, place))


def test_a_model_that_onnxruntime_refuses_prints_nothing(tmp_path, capfd):
    (tmp_path / "model.onnx").write_bytes(in_an_initializer(internal("\x1b[2J")).SerializeToString())
    with pytest.raises(KitError, match="onnxruntime cannot open it"):
        OnnxRuntimeBackend(tmp_path / "model.onnx", outputs=Outputs(embedding=EmbeddingOutput(dim=192)), threads=1)
    assert capfd.readouterr() == ("", "")


def test_what_is_accepted_has_no_external_data_for_protobuf_either():
    """A model with external data in every place, changed at random until the guard accepts it."""
    models = [place(tensor).SerializeToString() for place in PLACES for tensor in (external(), internal())]
    random, accepted = np.random.default_rng(0), 0
    for _ in range(6000):
        data = bytearray(models[random.integers(len(models))])
        for _ in range(random.integers(1, 5)):
            at = int(random.integers(len(data)))
            if random.integers(2):
                data[at] = int(random.integers(256))
            else:
                data[at : at + int(random.integers(2))] = varint(int(random.integers(1 << 40)))
        try:
            check(bytes(data))
        except KitError:
            continue
        with suppress(DecodeError):
            parsed = onnx.ModelProto.FromString(bytes(data))
            assert not has_external_data(parsed), bytes(data)
            accepted += 1
    assert accepted > 100


def test_every_field_that_the_guard_knows_is_one_of_onnx():
    """By the names of the messages in onnx.proto; what the guard leaves out, it refuses."""
    renamed = {"Entry": "StringStringEntry", "OperatorSet": "OperatorSetId"}
    inner = {"TensorType": TypeProto.Tensor, "Shape": TensorShapeProto, "Dimension": TensorShapeProto.Dimension}
    inner["Annotation"] = onnx.TensorAnnotation
    integers = {getattr(FieldDescriptor, f"TYPE_{name}") for name in ("INT32", "INT64", "UINT64", "ENUM")}
    types_of = {
        "bytes": {FieldDescriptor.TYPE_BYTES},
        "text": {FieldDescriptor.TYPE_STRING},
        "int": integers,
        "ints": integers,
        "float": {FieldDescriptor.TYPE_FLOAT},
        "floats": {FieldDescriptor.TYPE_FLOAT},
        "doubles": {FieldDescriptor.TYPE_DOUBLE},
    }
    for name, fields in _FIELDS.items():
        message = inner.get(name) or getattr(onnx, f"{renamed.get(name, name)}Proto")
        described = message.DESCRIPTOR.fields_by_number
        for number, kind in fields.items():
            assert described[number].type in types_of.get(kind, {FieldDescriptor.TYPE_MESSAGE}), (name, number)
            assert kind not in ("ints", "floats", "doubles") or described[number].is_repeated, (name, number)


def test_a_truncated_model_is_accepted_or_a_kit_error(toy_kit):
    whole = (toy_kit / MODEL_FILES["fp32"]).read_bytes()
    refusals = 0
    for length in range(len(whole)):
        try:
            check(whole[:length])
        except KitError:
            refusals += 1
    # A model that is cut between two fields of the outermost message is well formed.
    assert refusals > 0.9 * len(whole)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_accepted_or_a_kit_error(data):
    with suppress(KitError):
        check(data)


def test_a_model_that_looks_like_the_own_format_of_onnxruntime_is_opened_as_onnx(toy_kit, tmp_path):
    """By its bytes 4 to 7 alone. In that format nothing would have been checked."""
    model = onnx.load(toy_kit / MODEL_FILES["fp32"])
    model.producer_name = "ORTM"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_model(path)[4:8] == b"ORTM"
    with pytest.raises(Exception, match="ORT"):
        onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    opened = OnnxRuntimeBackend(path, outputs=Outputs(embedding=EmbeddingOutput(dim=192)), threads=1)
    assert opened.run(np.full((40, 40, 3), 9, np.uint8)).embedding.shape == (192,)
