"""Weights that an exporter wrote in another form have their parameters' names."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tdcompress.onnxfile.parameter_names import with_parameter_names

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def renamed(weights: dict[str, np.ndarray], parameters: dict[str, np.ndarray]) -> list[str]:
    """The weights' names afterwards; each is read by one node of its own."""
    nodes = [helper.make_node("Identity", [name], [f"y{number}"]) for number, name in enumerate(weights)]
    outputs = [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None) for number in range(len(weights))]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    given = helper.make_model(helper.make_graph(nodes, "g", [], outputs, initializers))
    made = with_parameter_names(given, parameters)
    names = [tensor.name for tensor in made.graph.initializer]
    assert [node.input[0] for node in made.graph.node] == names
    assert [tensor.name for tensor in given.graph.initializer] == list(weights)
    growth = sum(2 * (len(new) - len(old)) for new, old in zip(names, weights, strict=True))
    assert made.ByteSize() - given.ByteSize() == growth  # once where it is defined, once where it is read
    return names


def test_a_transposed_matrix() -> None:
    assert renamed({"val_48": MATRIX.T}, {"layer.weight": MATRIX}) == ["layer.weight"]


def test_gates_in_another_order_under_a_leading_axis() -> None:
    assert renamed({"val_7": MATRIX[None, ::-1]}, {"lstm.weight_ih_l0": MATRIX}) == ["lstm.weight_ih_l0"]


def test_a_parameter_that_is_there_itself_too() -> None:
    given = {"embed.weight": MATRIX, "val_1": MATRIX.T}
    assert renamed(given, {"embed.weight": MATRIX}) == ["embed.weight", "embed.weight.T"]
    assert renamed(given, {"embed.weight": MATRIX, "head.weight": MATRIX}) == ["embed.weight", "head.weight"]


def test_what_is_no_parameter_keeps_its_name() -> None:
    given = {
        "val_1": MATRIX.T + 1,
        "val_2": MATRIX.T.astype(np.float64),
        "val_3": MATRIX.reshape(-1),
        "val_4": MATRIX.T.astype(np.int64),
        "val_5": MATRIX.T[None, None].repeat(2, 1),
    }
    assert renamed(given, {"layer.weight": MATRIX, "layer.bias": MATRIX.reshape(-1)}) == list(given)


def test_of_equal_parameters_each_name_is_given_once() -> None:
    given = {"val_1": MATRIX.T, "val_2": MATRIX.T, "val_3": MATRIX.T}
    named = renamed(given, {"a": MATRIX, "b": MATRIX})
    assert named == ["a", "b", "a.T"]


def test_subgraphs_read_the_new_name() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["val_1"], ["r"])],
        "then",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, [3, 2])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    weights = [numpy_helper.from_array(MATRIX.T, "val_1"), numpy_helper.from_array(np.array(True), "c")]
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 2])], weights)
    made = with_parameter_names(helper.make_model(graph), {"w": MATRIX})
    onnx.checker.check_model(made)
    assert {attribute.g.node[0].input[0] for attribute in made.graph.node[0].attribute} == {"w"}
