"""Short names change nothing but names, and none that anybody asks for."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tdcompress.onnxfile.runtime import open_session
from tdcompress.onnxfile.short_names import with_short_names


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


@pytest.fixture
def model() -> onnx.ModelProto:
    """With branches that read values from around them, a weight called as a value would be, and a value's shape."""
    branches = [
        helper.make_graph([helper.make_node("Add", ["long_name_1", "a1"], ["inner"])], "then", [], [value("inner")]),
        helper.make_graph([helper.make_node("Neg", ["long_name_1"], ["c0"])], "else", [], [value("c0")]),
    ]
    nodes = [
        helper.make_node("Add", ["x", "a0"], ["long_name_0"]),
        helper.make_node("Add", ["long_name_0", "a0"], ["long_name_1"]),
        helper.make_node("If", ["choice"], ["long_name_2"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Mul", ["long_name_2", "long_name_0"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.array([1, number], np.float32), f"a{number}") for number in (0, 1)]
    choice = helper.make_tensor_value_info("choice", TensorProto.BOOL, [1])
    graph = helper.make_graph(nodes, "g", [value("x"), choice], [value("y")], weights, value_info=[value("long_name_1")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_only_names_between_nodes_change(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    short = with_short_names(model)
    onnx.checker.check_model(short, full_check=True)
    assert [list(node.output) for node in short.graph.node] == [["a2"], ["a3"], ["i0"], ["y"]]
    assert [entry.name for entry in short.graph.value_info] == ["a3"]
    assert [weight.name for weight in short.graph.initializer] == ["a0", "a1"]
    x = np.array([3, 4], np.float32)
    for choice in (True, False):
        feed = {"x": x, "choice": np.array([choice])}
        assert open_session(short).run(None, feed)[0].tolist() == open_session(model).run(None, feed)[0].tolist()
    assert with_short_names(short) == short
    assert model.SerializeToString(deterministic=True) == before
