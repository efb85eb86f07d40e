"""Constants where tensors are usual: folded, or the same for every image; folding that would lose a number is left out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from onnx import helper

from tdcompress.engine import Session
from tdcompress.errors import ModelError, UnsupportedError


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


FOLDED = {
    "Clip": (["c", "low", "high"], {}),
    "Erf": (["c"], {}),
    "LeakyRelu": (["c"], {"alpha": 0.2}),
    "Log": (["positive"], {}),
    "MatMul": (["c", "m"], {}),
    "ReduceMax": (["c"], {"axes": [0]}),
    "ReduceMin": (["c"], {"axes": [1], "keepdims": 1}),
    "Relu": (["c"], {}),
    "Sigmoid": (["c"], {}),
    "Sign": (["c"], {}),
    "Softmax": (["c"], {"axis": 1}),
    "Tanh": (["c"], {}),
}


@pytest.mark.parametrize("op", FOLDED)
def test_operators_on_constants(model, check, op):
    inputs, attributes = FOLDED[op]
    c = 3 * floats(1, 5, 6)
    constants = {"c": c, "positive": np.abs(c) + 1, "m": floats(2, 6, 6), "low": np.float32(-1), "high": np.float32(0.5)}
    nodes = [helper.make_node(op, inputs, ["f"], **attributes), helper.make_node("Add", ["x", "f"], ["y"])]
    check(model(nodes, {name: constants[name] for name in inputs}, {"x": ["b", 5, 6]}, opset=17), {"x": floats(3, 2, 5, 6)})


C, NINE = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((1, 1), 9, np.float32)
EXACTLY = {
    "the largest of three": ("Max", [C, 5 - C, np.float32(3.5)], {}, [[5, 4, 3.5], [3.5, 4, 5]]),
    "the smallest of three": ("Min", [C, 5 - C, np.float32(1.5)], {}, [[0, 1, 1.5], [1.5, 1, 0]]),
    "the largest of one": ("Max", [C], {}, C),
    "no axes, nothing to add": ("ReduceSum", [C], {"noop_with_empty_axes": 1}, C),
    "no axes, nothing to compare": ("ReduceMax", [C], {"noop_with_empty_axes": 1}, C),
    "no axes, so all": ("ReduceSum", [C], {}, [[15]]),
    "elements of the first row": ("GatherElements", [C, np.array([[-1, 0]])], {"axis": 1}, [[2, 0]]),
    "elements into the first row": ("ScatterElements", [C, np.array([[-1]]), NINE], {"axis": -1}, [[0, 1, 9], [3, 4, 5]]),
    "elements into the last row": ("ScatterElements", [C, np.array([[1]]), NINE], {}, [[0, 1, 2], [9, 4, 5]]),
    "backwards from before the first": ("Slice", [C, *(np.array([n]) for n in (-9, -10, 1, -1))], {}, [[0], [3]]),
}


@pytest.mark.parametrize("case", EXACTLY)
def test_what_is_folded_is_exact(model, check, case):
    op, arrays, attributes, want = EXACTLY[case]
    constants = {f"c{i}": array for i, array in enumerate(arrays)}
    nodes = [helper.make_node(op, list(constants), ["f"], **attributes), helper.make_node("Add", ["x", "f"], ["y"])]
    shape = np.shape(want)
    (got,) = check(model(nodes, constants, {"x": ["b", *shape]}), {"x": np.zeros((1, *shape), np.float32)})
    np.testing.assert_array_equal(got[0], want)


@pytest.mark.parametrize("op", ["GatherElements", "ScatterElements"])
def test_indices_that_reach_beyond_the_data(model, op):
    constants = {"c": C[:1], "i": np.array([[0], [1]]), "u": np.ones((2, 1), np.float32)}
    inputs = list(constants)[: 2 if op == "GatherElements" else 3]
    nodes = [helper.make_node(op, inputs, ["f"], name="far", axis=1), helper.make_node("Add", ["x", "f"], ["y"])]
    with pytest.raises(ModelError, match=r"far.*\[2, 1\] into \[1, 3\]"):
        Session(model(nodes, {name: constants[name] for name in inputs}, {"x": ["b", 2, 3]}))


def test_an_operator_that_is_not_folded_is_named_with_advice(model):
    nodes = [helper.make_node("Atan", ["c"], ["f"], name="angle"), helper.make_node("Add", ["x", "f"], ["y"])]
    with pytest.raises(UnsupportedError, match=r"angle.*onnxruntime"):
        Session(model(nodes, {"c": floats(1, 6)}, {"x": ["b", 6]}))


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("first", [False, True])
def test_concatenation_with_a_constant(model, check, isa, axis, first):
    shape = [1, 4, 5, 6]
    shape[axis] = 2
    parts = ["c", "p"] if first else ["p", "c", "p"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["p"]),
        helper.make_node("Concat", parts, ["q"], axis=axis),
        helper.make_node("Relu", ["q"], ["y"]),
    ]
    data = model(nodes, {"c": floats(4, *shape), "w": floats(5, 4, 3, 1, 1)}, {"x": [1, 3, 5, 6]})
    check(data, {"x": floats(6, 1, 3, 5, 6)}, isa)


def test_concatenation_with_rows_that_differ_between_images_is_refused(model):
    nodes = [helper.make_node("Concat", ["x", "c"], ["y"], axis=1, name="join")]
    with pytest.raises(UnsupportedError, match=r"join.*same for every"):
        Session(model(nodes, {"c": floats(4, 2, 3)}, {"x": [2, 5]}))


@pytest.mark.parametrize("shape", [(3, 5), (1, 3, 5), (4, 3, 5), (1, 4, 3, 5)])
def test_a_constant_left_operand(model, check, shape):
    nodes = [helper.make_node("MatMul", ["c", "x"], ["y"])]
    check(model(nodes, {"c": floats(7, *shape)}, {"x": ["b", 4, 5, 6]}), {"x": floats(8, 3, 4, 5, 6)}, threads=2)


@pytest.mark.parametrize("shape", [(4, 6, 3), (1, 4, 6, 3), (1, 6, 3)])
def test_constant_matrices_on_the_right(model, check, shape):
    nodes = [helper.make_node("MatMul", ["x", "c"], ["y"])]
    check(model(nodes, {"c": floats(7, *shape)}, {"x": ["b", 4, 5, 6]}), {"x": floats(8, 3, 4, 5, 6)})


def test_a_matrix_with_a_batch_of_its_own_is_refused(model):
    nodes = [helper.make_node("MatMul", ["x", "c"], ["y"], name="many")]
    with pytest.raises(UnsupportedError, match="many"):
        Session(model(nodes, {"c": floats(7, 2, 4, 6, 3)}, {"x": [2, 4, 5, 6]}))


PADS = {"both": [0, 0, 2, 1, 0, 0, 1, 3], "channels": [0, 2, 0, 0, 0, 1, 0, 4], "ends": [0, 0, 0, 0, 0, 1, 0, 5]}


@pytest.mark.parametrize("mode", ["reflect", "edge"])
@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("after_conv", [False, True])
def test_padding_with_the_image_itself(model, check, mode, pads, after_conv):
    nodes = [helper.make_node("Pad", ["in" if not after_conv else "p", "pads"], ["y"], mode=mode)]
    if after_conv:
        nodes.insert(0, helper.make_node("Conv", ["in", "w"], ["p"]))
    constants = {"pads": np.array(PADS[pads]), **({"w": floats(1, 5, 5, 1, 1)} if after_conv else {})}
    check(model(nodes, constants, {"in": ["b", 5, 4, 6]}), {"in": floats(9, 2, 5, 4, 6)})


def test_a_slice_backwards_from_before_the_first(model, check):
    """ONNX takes such a start as the first element; Python as one before it."""
    constants = {name: np.array([n]) for name, n in (("start", -9), ("end", -10), ("axis", 2), ("step", -1))}
    x = floats(1, 2, 4, 5)
    nodes = [helper.make_node("Slice", ["x", *constants], ["y"])]
    (got,) = check(model(nodes, constants, {"x": ["b", 4, 5]}), {"x": x})
    np.testing.assert_array_equal(got, x[:, :, :1])


def test_negative_padding_and_a_slice_backwards(model, check):
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["p"]),
        helper.make_node("Slice", ["p", "a", "z", "axes", "s"], ["y"]),
    ]
    constants = {
        "pads": np.array([0, 1, -2, 3, 0, -1, 1, -4]),
        "value": np.float32(0.5),
        "a": np.array([-1, 3]),
        "z": np.array([-(2**40), 0]),
        "axes": np.array([3, 1]),
        "s": np.array([-2, -1]),
    }
    check(model(nodes, constants, {"x": ["b", 5, 6, 7]}), {"x": floats(9, 2, 5, 6, 7)})


SCALES = {
    "overflow": (["Mul", "Mul"], [np.float32(1e30), np.float32(1e30)]),
    "underflow": (["Mul", "Mul"], [np.float32(1e-30), np.float32(1e-30)]),
    "there and back": (["Mul", "Mul"], [np.float32(1e30), np.float32(1e-30)]),
    "a reciprocal that is too large": (["Div"], [np.float32(2e-38)]),
    "a reciprocal that is too small": (["Div"], [np.float32(3e38)]),
    "shift": (["Add", "Mul"], [np.float32(1e30), np.float32(1e30)]),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("producer", [None, "Conv", "Gemm"])
@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0])
def test_folding_that_float32_cannot_hold_is_left_out(model, check, case, producer, size):
    ops, constants = SCALES[case]
    named = {f"c{i}": array for i, array in enumerate(constants)}
    nodes, last = [], "x"
    if producer is not None:
        named["w"] = floats(1, 4, 4, 1, 1) if producer == "Conv" else floats(1, 4, 4)
        nodes, last = [helper.make_node(producer, ["x", "w"], ["p"])], "p"
    for index, op in enumerate(ops):
        output = "y" if index == len(ops) - 1 else f"t{index}"
        nodes.append(helper.make_node(op, [last, f"c{index}"], [output]))
        last = output
    shape = (4,) if producer == "Gemm" else (4, 3, 5)
    x = np.float32(size) * floats(2, 2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = Session(model(nodes, named, {"x": ["b", *shape]})).run(None, {"x": x})[0]
    want = x.astype(np.float64)
    if producer is not None:
        want = np.einsum("oi,bi...->bo...", named["w"].reshape(4, 4).T if producer == "Gemm" else named["w"].reshape(4, 4), want)
    with np.errstate(all="ignore"):
        for op, constant in zip(ops, constants, strict=True):  # rounded and flushed after each operator
            want = (
                (want.astype(np.float32) * constant if op == "Mul" else want.astype(np.float32) / constant)
                if op != "Add"
                else want + constant
            )
            want = np.where(np.abs(want) < np.finfo(np.float32).tiny, 0, want.astype(np.float32))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-4, atol=1e-6 * np.abs(want[finite]).max(initial=0))


def test_a_subnormal_divisor_is_refused(model):
    nodes = [helper.make_node("Div", ["x", "c"], ["y"], name="tiny")]
    with pytest.raises(UnsupportedError, match=r"tiny.*subnormal"):
        Session(model(nodes, {"c": np.float32(1e-40)}, {"x": ["b", 4]}))


COLLIDING = [
    "y/rows",
    "y/out",
    "y/pooled",
    "y/kept",
    "y/flat",
    "y/softmax",
    "y/mean",
    "y/centred",
    "y/erf",
    "y/half",
    "y/positive",
]
WITH_STEPS_BETWEEN = {
    "Conv": (["x", "w"], {"w": (3, 4, 3)}, {}, 17),
    "MaxPool": (["x"], {}, {"kernel_shape": [2]}, 17),
    "ReduceMean": (["x"], {}, {"axes": [2], "keepdims": 0}, 17),
    "Softmax": (["x"], {}, {"axis": 1}, 11),
    "LayerNormalization": (["x", "w"], {"w": (9,)}, {}, 17),
    "Gelu": (["x"], {}, {}, 20),
    "PRelu": (["x", "w"], {"w": (4, 1)}, {}, 17),
    "Pad": (["x", "w"], {}, {"mode": "reflect"}, 17),
}


@pytest.mark.parametrize("op", WITH_STEPS_BETWEEN)
def test_names_of_the_model_do_not_meet_names_between_steps(model, check, op):
    """Every name that the engine would give a tensor between the steps of a node belongs to the model already."""
    inputs, shapes, attributes, opset = WITH_STEPS_BETWEEN[op]
    constants = {name: floats(3, *shape) for name, shape in shapes.items()}
    if op == "Pad":
        constants["w"] = np.array([0, 0, 1, 0, 0, 1])
    nodes, last = [], "in"
    for name in COLLIDING:
        nodes.append(helper.make_node("Abs" if name == "y/out" else "Neg", [last], [name]))
        last = name
    nodes.append(helper.make_node("Add", [COLLIDING[0], last], ["x"]))
    nodes.append(helper.make_node(op, inputs, ["y"], **attributes))
    nodes.append(helper.make_node("Mul", [COLLIDING[3], COLLIDING[5]], ["z"]))
    check(model(nodes, constants, {"in": ["b", 4, 9]}, ["y", "z"], opset=opset), {"in": floats(4, 2, 4, 9)})


def test_layer_norm_with_parameters_that_would_make_its_input_larger(model):
    nodes = [helper.make_node("LayerNormalization", ["x", "s"], ["y"], name="norm")]
    with pytest.raises(ModelError, match=r"norm.*\[3, 4\].*\[1, 4\]"):
        Session(model(nodes, {"s": floats(1, 3, 4)}, {"x": ["b", 1, 4]}))


@pytest.mark.parametrize("level", [0.3, 1.0, 1000.0])
@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_layer_norm_of_nearly_constant_rows(model, level, spread):
    """Against float64: the error of a mean in float32 may not show."""
    x = (level * (1 + spread * np.random.default_rng(1).random((2, 7, 64)))).astype(np.float32)
    nodes = [helper.make_node("LayerNormalization", ["x", "scale"], ["y"])]
    got = Session(model(nodes, {"scale": np.ones(64, np.float32)}, {"x": ["b", 7, 64]})).run(None, {"x": x})[0]
    exact = x.astype(np.float64)
    exact = exact - exact.mean(-1, keepdims=True)
    want = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
