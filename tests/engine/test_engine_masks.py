"""Integers and masks: comparisons, logic, selection, casts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import graph_model, normal

from tdcompress.engine import Session
from tdcompress.errors import UnsupportedError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.int8])
def test_comparisons_with_a_constant(check, isa, op, reverse, kind):
    names = ["c", "x"] if reverse else ["x", "c"]
    nodes = [helper.make_node(op, names, ["b"]), helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)]
    constant = np.array([[0, 1, 2]], kind)
    data = graph_model(nodes, {"x": (helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ["b", 4, 3])}, {"c": constant})
    check(data, {"x": RNG.integers(-2, 4, (5, 4, 3)).astype(kind)}, isa)


def test_integers_that_float32_does_not_hold(check):
    tokens = {"x": (TensorProto.INT64, ["b", 3])}
    cast = helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)
    data = graph_model([helper.make_node("Equal", ["x", "c"], ["b"]), cast], tokens, {"c": np.array([2**24 - 1])})
    check(data, {"x": np.array([[2**24 - 1, 2**24, 2**24 + 1], [2**40, -(2**24), 0]])})
    with pytest.raises(UnsupportedError, match="float32 may not hold"):
        Session(graph_model([helper.make_node("Equal", ["x", "c"], ["b"]), cast], tokens, {"c": np.array([2**24 + 1])}))
    two = tokens | {"z": (TensorProto.INT64, ["b", 3])}
    with pytest.raises(UnsupportedError, match="float32 may not hold"):
        Session(graph_model([helper.make_node("Equal", ["x", "z"], ["b"]), cast], two))
    with pytest.raises(UnsupportedError, match="computes with 'x', which is int64"):
        Session(graph_model([helper.make_node("Add", ["x", "x"], ["b"]), cast], tokens))
    double = {"x": (TensorProto.DOUBLE, ["b", 3])}
    with pytest.raises(UnsupportedError, match="float32 may not hold"):
        Session(graph_model([helper.make_node("Less", ["x", "c"], ["b"]), cast], double, {"c": np.array([0.5])}))


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(check, op):
    nodes = [
        helper.make_node(op, ["x", "z"], ["a"]),
        helper.make_node("Not", ["a"], ["b"]),
        helper.make_node(op, ["b", "c"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    inputs = {name: (TensorProto.BOOL, ["b", 4]) for name in "xz"}
    data = graph_model(nodes, inputs, {"c": np.array([True, False, True, False])})
    check(data, {name: RNG.random((6, 4)) < 0.5 for name in "xz"})


@pytest.mark.parametrize("case", ["computed", "constant condition", "masked", "rest", "both constant"])
def test_selection(isa, case):
    """Infinities and NaN on the side that is not taken leave no trace."""
    x = floats(2, 3, 5)
    condition = RNG.random((2, 3, 5)) < 0.5
    constants = {"c": np.array([[True, False, True, True, False]]), "low": np.array(-np.inf, np.float32), "n": floats(3, 1)}
    names = {
        "computed": ["m", "x", "z"],
        "constant condition": ["c", "x", "z"],
        "masked": ["m", "x", "low"],
        "rest": ["c", "n", "x"],
        "both constant": ["m", "low", "n"],
    }[case]
    inputs = {"m": (TensorProto.BOOL, ["b", 3, 5]), "x": (TensorProto.FLOAT, ["b", 3, 5]), "z": (TensorProto.FLOAT, ["b", 3, 5])}
    data = graph_model([helper.make_node("Where", names, ["y"])], inputs, constants)
    z = floats(2, 3, 5)
    if case == "computed":
        x[condition == 0], z[condition] = np.nan, np.inf
    held = {"m": condition, "x": x, "z": z, **constants}
    want = np.where(*(held[name] for name in names))
    np.testing.assert_array_equal(Session(data, isa=isa).run(None, {"m": condition, "x": x, "z": z})[0], want)


def test_a_causal_mask(model, check):
    nodes = [helper.make_node("Where", ["m", "x", "low"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=-1)]
    constants = {"m": np.tril(np.ones((1, 1, 5, 5), bool)), "low": np.array(-np.inf, np.float32)}
    check(model(nodes, constants, {"x": ["b", 2, 5, 5]}), {"x": floats(2, 2, 5, 5)})


@pytest.mark.parametrize(
    ("kind", "to"),
    [(TensorProto.INT64, TensorProto.BOOL), (TensorProto.FLOAT, TensorProto.BOOL), (TensorProto.BOOL, TensorProto.INT64)],
)
def test_casts(check, kind, to):
    nodes = [helper.make_node("Cast", ["x"], ["a"], to=to), helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT)]
    data = graph_model(nodes, {"x": (kind, ["b", 4])})
    check(data, {"x": np.array([[0, 1, 2, -3], [0, 0, 5, 1]]).astype(helper.tensor_dtype_to_np_dtype(kind))})


@pytest.mark.parametrize(
    ("kind", "to"), [(TensorProto.FLOAT, "INT32"), (TensorProto.INT64, "INT8"), (TensorProto.INT32, "DOUBLE")]
)
def test_casts_that_round_are_refused(kind, to):
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], name="narrow", to=TensorProto.DataType.Value(to)),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(UnsupportedError, match=f"Cast 'narrow' from .* to {to}"):
        Session(graph_model(nodes, {"x": (kind, ["b", 4])}))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE])
def test_what_moves_numbers_keeps_their_type(check, kind):
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["b", "b"], ["c"], axis=1),
        helper.make_node("Slice", ["c", "one", "five", "one"], ["d"]),
        helper.make_node("Reshape", ["d", "flat"], ["e"]),
        helper.make_node("Gather", ["e", "picked"], ["f"], axis=1),
        helper.make_node("Cast", ["f"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = {"one": np.array([1]), "five": np.array([5]), "flat": np.array([0, -1]), "picked": np.array([0, 3, 1])}
    data = graph_model(nodes, {"x": (kind, ["b", 4])}, constants)
    check(data, {"x": np.array([[0, 1, 0, 1], [1, 1, 0, 0]]).astype(helper.tensor_dtype_to_np_dtype(kind))})
    with pytest.raises(UnsupportedError, match="output 'f' is"):
        Session(graph_model(nodes[:-1], {"x": (kind, ["b", 4])}, constants, outputs=("f",)))
