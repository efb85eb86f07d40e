"""Branches whose condition is known, or that shapes decide, and those that are refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import graph_model, normal

from tdcompress.engine import Session
from tdcompress.errors import UnsupportedError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


def branch(name: str, nodes, outputs, constants=None) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        name,
        [],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs],
        [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
    )


def if_node(condition: str, *, constants=None, outputs=("y",)) -> onnx.NodeProto:
    yes = branch(
        "yes", [helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "outer"], ["z"])], ["z"], constants
    )
    no = branch("no", [helper.make_node("Neg", ["x"], ["z"])], ["z"], {"w": floats(1)})
    return helper.make_node("If", [condition], list(outputs), name=f"choice_{outputs[0]}", then_branch=yes, else_branch=no)


@pytest.mark.parametrize("condition", [True, False])
def test_a_branch_that_is_known(check, condition):
    """Both branches name their values alike, and one reads a value around it; twice in one graph."""
    nodes = [
        if_node("c", constants={"w": floats(1, 4)}, outputs=["first"]),
        if_node("c", constants={"w": floats(1, 4)}, outputs=["second"]),
    ]
    nodes.append(helper.make_node("Add", ["first", "second"], ["y"]))
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 4])}, {"c": np.array(condition), "outer": floats(1, 4)})
    check(data, {"x": floats(3, 4)})


@pytest.mark.parametrize("width", [1, 4])
def test_a_branch_that_shapes_decide(check, width):
    """As torch writes x.squeeze(1) for an axis of an unknown size."""
    squeeze = branch("yes", [helper.make_node("Squeeze", ["x", "one"], ["s"])], ["s"])
    keep = branch("no", [helper.make_node("Identity", ["x"], ["k"])], ["k"])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1, end=2),
        helper.make_node("Equal", ["shape", "one"], ["is_one"]),
        helper.make_node("If", ["is_one"], ["chosen"], then_branch=squeeze, else_branch=keep),
        helper.make_node("Relu", ["chosen"], ["y"]),
    ]
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", "w", 3])}, {"one": np.array([1])})
    check(data, {"x": floats(2, width, 3)})


def test_branches_in_branches_and_constant_results(check):
    inner = helper.make_node(
        "If",
        ["c"],
        ["deep"],
        then_branch=branch("deep_yes", [helper.make_node("Mul", ["x", "k"], ["q"])], ["q"]),
        else_branch=branch("deep_no", [helper.make_node("Neg", ["x"], ["q"])], ["q"]),
    )
    outer = helper.make_node(
        "If",
        ["c"],
        ["moved", "kept"],
        then_branch=branch("yes", [inner, helper.make_node("Identity", ["k"], ["same"])], ["deep", "same"], {"k": floats(1, 4)}),
        else_branch=branch("no", [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Abs", ["x"], ["m"])], ["n", "m"]),
    )
    data = graph_model(
        [outer, helper.make_node("Add", ["moved", "kept"], ["y"])], {"x": (TensorProto.FLOAT, ["b", 4])}, {"c": np.array(True)}
    )
    check(data, {"x": floats(3, 4)})


def test_branches_that_are_refused():
    inputs = {"x": (TensorProto.FLOAT, ["b", 4]), "c": (TensorProto.BOOL, [1])}
    with pytest.raises(UnsupportedError, match="If 'choice_y': its condition is computed from the inputs"):
        Session(graph_model([if_node("c", constants={"w": floats(1)})], inputs, {"outer": floats(1)}))
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Equal", ["shape", "one"], ["alone"]),
        if_node("alone", constants={"w": floats(1)}),
    ]
    with pytest.raises(UnsupportedError, match=r"If 'choice_y': input 0 .* batch size"):
        Session(graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 4])}, {"one": np.array([1]), "outer": floats(1)}))
    loop = helper.make_node("Loop", ["n", ""], ["y"], name="again", body=branch("body", [], ["z"]))
    data = graph_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["b", 4])}, {"n": np.array(2)})
    changed = onnx.load_model_from_string(data)
    changed.graph.node.append(loop)
    with pytest.raises(UnsupportedError, match=r"control flow .Loop 'again'."):
        Session(changed.SerializeToString())
