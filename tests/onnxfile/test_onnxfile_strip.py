"""Stripping changes nothing that is computed; metadata round trip."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.errors import ModelError
from tdcompress.onnxfile.metadata import get_metadata, set_metadata
from tdcompress.onnxfile.strip import strip


def test_documentation_goes_and_outputs_stay(make_small_net: Callable, run_model: Callable) -> None:
    model = make_small_net()
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    bare = model.SerializeToString(deterministic=True)
    set_metadata(model, {"classes": "ten"})
    noisy = onnx.ModelProto()
    noisy.CopyFrom(model)
    noisy.doc_string = noisy.graph.doc_string = "secret text"
    noisy.opset_import.add(domain="ai.onnx.preview", version=1)
    for node in noisy.graph.node:
        node.doc_string = "secret text"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="secret text")
        for attribute in node.attribute:
            attribute.doc_string = "secret text"
    for tensor in noisy.graph.initializer:
        tensor.doc_string = "secret text"
        tensor.metadata_props.add(key="k", value="secret text")
    noisy.graph.node[0].attribute.add(name="group", type=onnx.AttributeProto.INT, i=1)  # the default
    noisy.graph.value_info.append(helper.make_tensor_value_info(noisy.graph.node[0].output[0], TensorProto.FLOAT, None))
    slim = strip(noisy)
    assert b"secret text" not in slim.SerializeToString()
    assert slim.SerializeToString(deterministic=True) == strip(model).SerializeToString(deterministic=True)
    assert slim.SerializeToString(deterministic=True) != bare
    assert get_metadata(slim) == {"classes": "ten"}
    assert b"secret text" in noisy.SerializeToString()  # the argument is not changed
    assert run_model(slim, images)[0].tobytes() == run_model(noisy, images)[0].tobytes()


def test_attributes_other_than_the_default_stay() -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.02)
    usual = helper.make_node("LeakyRelu", ["y"], ["z"], alpha=0.01)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xz"]
    graph = helper.make_graph([node, usual], "g", values[:1], values[1:])
    slim = strip(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert [len(n.attribute) for n in slim.graph.node] == [1, 0]


def test_windows_of_no_effect_go() -> None:
    """What onnx says in words: strides and dilations are 1, pads 0, and a convolution's kernel is of its weights' shape."""
    window = {"kernel_shape": [3, 3], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], **window),
        helper.make_node("Conv", ["a", "w"], ["b"], **window | {"strides": [1, 2], "pads": [1, 1, 1, 1]}),
        helper.make_node("MaxPool", ["b"], ["c"], **window),
        helper.make_node("BatchNormalization", ["c", *"vvvv"], ["y"], epsilon=1e-3, momentum=0.997),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    arrays = {"w": np.ones((3, 3, 3, 3), np.float32), "v": np.ones(3, np.float32)}
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    slim = strip(model)
    assert [[a.name for a in node.attribute] for node in slim.graph.node] == [
        [],
        ["pads", "strides"],
        ["kernel_shape"],
        ["epsilon"],
    ]
    onnx.checker.check_model(slim, full_check=True)


def test_inferred_shapes_stay_beside_contrib_operators() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    last = helper.make_node("Relu", ["y"], ["z"])
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xyz"}
    graph = helper.make_graph([node, last], "g", [values["x"]], [values["z"]], value_info=[values["y"]])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    assert len(strip(helper.make_model(graph, opset_imports=imports)).graph.value_info) == 1


def test_denormal_weights_become_zero() -> None:
    weights = np.array([1e-40, -1e-45, 1e-38, 0.0, 2.0, np.finfo(np.float32).smallest_normal], np.float32)
    half = np.array([6e-8, 1.0], np.float16)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(half, "h")])
    slim = strip(helper.make_model(graph))
    # 1e-38 is below the smallest normal number, 1.18e-38
    wanted = np.array([0, 0, 0, 0, 2.0, np.finfo(np.float32).smallest_normal], np.float32)
    assert numpy_helper.to_array(slim.graph.initializer[0]).tobytes() == wanted.tobytes()
    assert numpy_helper.to_array(slim.graph.initializer[1]).tobytes() == half.tobytes()


def test_metadata_round_trip() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    set_metadata(model, {"b": "2", "a": "1"})
    set_metadata(model, {"a": "3"})
    assert get_metadata(model) == {"a": "3", "b": "2"}
    assert [entry.key for entry in model.metadata_props] == ["a", "b"]
    for wrong in ({"a": 1}, {"": "x"}, {1: "x"}):
        with pytest.raises(ModelError, match="text to text"):
            set_metadata(model, wrong)  # type: ignore[arg-type]
    model.metadata_props.add(key="a", value="4")
    with pytest.raises(ModelError, match="twice"):
        get_metadata(model)
