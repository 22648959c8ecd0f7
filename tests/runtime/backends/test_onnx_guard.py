from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from msc_edge.errors import KitError
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.runtime.backends.onnx_guard import refuse_external_data


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


def in_a_branch(tensor):
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
    in_a_branch,
    in_a_list_of_graphs,
    in_a_function,
    in_a_sparse_initializer,
    in_a_sparse_constant,
    in_training_info,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_external_data_is_found_in_every_place_of_a_tensor(tmp_path, place):
    path = tmp_path / "model.onnx"
    path.write_bytes(place(external()).SerializeToString())
    with pytest.raises(KitError, match=r"model\.onnx: keeps data in other files"):
        refuse_external_data(path)
    path.write_bytes(place(internal()).SerializeToString())
    refuse_external_data(path)


@pytest.mark.parametrize("only", ["data_location", "external_data"])
def test_either_field_of_external_data_is_enough(tmp_path, only):
    tensor = external()
    tensor.ClearField("external_data" if only == "data_location" else "data_location")
    path = tmp_path / "model.onnx"
    path.write_bytes(in_an_initializer(tensor).SerializeToString())
    with pytest.raises(KitError, match="external data"):
        refuse_external_data(path)


def test_text_that_looks_like_external_data_is_accepted(tmp_path):
    words = [b"external_data", external().SerializeToString()]
    model = in_an_initializer(helper.make_tensor("words", TensorProto.STRING, [2], np.array(words, dtype=object)))
    model.doc_string = "location: ../secret"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    refuse_external_data(path)


def test_deeply_nested_graphs_are_refused(tmp_path):
    # Written by hand, because protobuf refuses such depth: a graph (6) in an attribute (5) in a node (1) in a graph.
    nested = b""
    for _ in range(100):
        for field in (6, 5, 1):
            nested = bytes([field << 3 | 2]) + _varint(len(nested)) + nested
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes([7 << 3 | 2]) + _varint(len(nested)) + nested)
    with pytest.raises(KitError, match="too deeply"):
        refuse_external_data(path)


def _varint(value: int) -> bytes:
    seven_bits = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(bits | 0x80 for bits in seven_bits[:-1]), seven_bits[-1]])


def test_a_truncated_model_is_accepted_or_a_kit_error(toy_kit, tmp_path):
    whole = (toy_kit / MODEL_FILES["fp32"]).read_bytes()
    path = tmp_path / "model.onnx"
    refusals = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            refuse_external_data(path)
        except KitError:
            refusals += 1
    # A model that is cut between two fields of the outermost message is well formed.
    assert refusals > 0.9 * len(whole)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_accepted_or_a_kit_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("guard") / "model.onnx"
    path.write_bytes(data)
    with suppress(KitError):
        refuse_external_data(path)
