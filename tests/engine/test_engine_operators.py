"""Every operator but Conv against onnxruntime."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import normal

from tdcompress.engine import Session, explain

RNG = np.random.default_rng(7)
floats = partial(normal, RNG)


def one(op: str, *inputs: str, **attributes: object):
    return helper.make_node(op, ["x", *inputs], ["y"], name=op.lower(), **attributes)


UNARY = {
    "Abs": one("Abs"),
    "Clip": one("Clip", "low", "high"),
    "Erf": one("Erf"),
    "Exp": one("Exp"),
    "Gelu": one("Gelu"),
    "HardSigmoid": one("HardSigmoid", alpha=0.3, beta=0.4),
    "HardSwish": one("HardSwish"),
    "LeakyRelu": one("LeakyRelu", alpha=0.2),
    "Neg": one("Neg"),
    "PRelu": one("PRelu", "slope"),
    "Reciprocal": one("Reciprocal"),
    "Relu": one("Relu"),
    "Sigmoid": one("Sigmoid"),
    "Tanh": one("Tanh"),
    "Identity": one("Identity"),
    "Dropout": one("Dropout"),
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(model, check, isa, op):
    constants = {
        "Clip": {"low": np.float32(-0.5), "high": np.float32(0.75)},
        "PRelu": {"slope": floats(3, 1, 1)},
    }.get(op, {})
    data = model([UNARY[op]], constants, {"x": ["b", 3, 5, 7]}, opset=20)
    check(data, {"x": 3 * floats(2, 3, 5, 7)}, isa)


@pytest.mark.parametrize("op", ["Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"])
@pytest.mark.parametrize("producer", ["Conv", "Gemm"])
def test_activation_after_a_layer(model, check, isa, op, producer):
    constants = {"low": np.float32(-0.5), "high": np.float32(0.75)} if op == "Clip" else {}
    constants["w"] = floats(5, 3, 3, 3) if producer == "Conv" else floats(21, 5)
    layer = helper.make_node(producer, ["in", "w"], ["x"], name="layer")
    data = model([layer, UNARY[op]], constants, {"in": ["b", 3, 6, 9] if producer == "Conv" else ["b", 21]}, opset=20)
    check(data, {"in": floats(2, 3, 6, 9) if producer == "Conv" else floats(2, 21)}, isa)


def test_sqrt_and_log_of_positive_numbers(model, check):
    nodes = [helper.make_node("Sqrt", ["x"], ["s"]), helper.make_node("Log", ["s"], ["y"])]
    check(model(nodes, {}, {"x": ["b", 9]}), {"x": np.abs(floats(3, 9)) + 1})


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 1), (1, 4, 1), (1, 1, 5), (5,), (1,), (1, 3, 4, 5)])
@pytest.mark.parametrize("reverse", [False, True])
def test_binary_with_a_constant(model, check, op, shape, reverse):
    names = ["c", "x"] if reverse else ["x", "c"]
    data = model([helper.make_node(op, names, ["y"])], {"c": np.abs(floats(*shape)) + 0.5}, {"x": ["b", 3, 4, 5]})
    check(data, {"x": np.abs(floats(2, 3, 4, 5)) + 0.5})


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 1), (1, 4, 5), (1, 1, 1)])
def test_binary_of_two_inputs(model, check, isa, op, shape):
    data = model([one(op, "z")], {}, {"x": ["b", 3, 4, 5], "z": ["b", *shape]})
    check(data, {"x": floats(2, 3, 4, 5), "z": np.abs(floats(2, *shape)) + 0.5}, isa)


@st.composite
def pools(draw):
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    return {
        "op": draw(st.sampled_from(["MaxPool", "AveragePool"])),
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in range(2)],
        "pads": [draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)],
        "ceil_mode": draw(st.integers(0, 1)),
        "count_include_pad": draw(st.integers(0, 1)),
        "size": [draw(st.integers(4, 20)) for _ in range(2)],
    }


@settings(max_examples=100, derandomize=True, deadline=None)
@given(case=pools(), after_conv=st.booleans())
def test_random_pools(model, check, case, after_conv):
    attributes = {k: case[k] for k in ("kernel_shape", "strides", "pads", "ceil_mode")}
    if case["op"] == "AveragePool":
        attributes["count_include_pad"] = case["count_include_pad"]
        if case["ceil_mode"] and case["count_include_pad"]:
            attributes["ceil_mode"] = 0  # onnxruntime and the standard disagree here
    rng = np.random.default_rng(0)
    nodes, constants = [one(case["op"], **attributes)], {}
    if after_conv:
        nodes.insert(0, helper.make_node("Conv", ["in", "w"], ["x"]))
        constants["w"] = rng.standard_normal((3, 3, 1, 1)).astype(np.float32)
    name = "in" if after_conv else "x"
    data = model(nodes, constants, {name: ["b", 3, *case["size"]]}, opset=19)
    check(data, {name: rng.standard_normal((2, 3, *case["size"])).astype(np.float32)})


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("size", [1, 4, 7, 8, 12, 32])
def test_global_pools_after_a_convolution(model, check, isa, op, size):
    nodes = [helper.make_node("Conv", ["in", "w"], ["x"]), one(op)]
    check(model(nodes, {"w": floats(5, 2, 1, 1)}, {"in": ["b", 2, size, size]}), {"in": floats(2, 2, size, size)}, isa)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax"])
@pytest.mark.parametrize("axes", [[1], [2, 3], [-1], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(model, check, op, axes, keepdims):
    data = model([one(op, "axes", keepdims=keepdims)], {"axes": np.array(axes, np.int64)}, {"x": ["b", 3, 4, 37]})
    check(data, {"x": floats(2, 3, 4, 37)})


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("axis", "opset"), [(-1, 18), (1, 18), (2, 18), (1, 11), (2, 11)])
def test_softmax(model, check, op, axis, opset):
    check(model([one(op, axis=axis)], {}, {"x": ["b", 3, 4, 5]}, opset=opset), {"x": 5 * floats(2, 3, 4, 5)})


@pytest.mark.parametrize("outputs", [1, 10, 16, 33])
@pytest.mark.parametrize("features", [1, 15, 40, 300])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.05, 0.0])
def test_fully_connected(model, check, isa, outputs, features, density):
    w = floats(outputs, features) * (RNG.random((outputs, features)) < density)
    data = model([one("Gemm", "w", "c", transB=1, alpha=0.5, beta=2.0)], {"w": w, "c": floats(outputs)}, {"x": ["b", features]})
    check(data, {"x": floats(3, features)}, isa)


def test_a_large_sparse_layer_is_stored_by_rows(model, check):
    w = floats(2000, 1500) * (RNG.random((2000, 1500)) < 0.1)
    data = model([one("Gemm", "w", transB=1)], {"w": w}, {"x": ["b", 1500]})
    assert explain(data)[0].kernel == "rows"
    check(data, {"x": floats(2, 1500)})


def test_matmul_on_tokens_and_between_activations(model, check):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["p", "t"], ["y"]),
    ]
    check(model(nodes, {"w": floats(8, 6)}, {"x": ["b", 5, 8]}), {"x": floats(3, 5, 8)})


def test_batch_norm_alone_and_after_gemm(model, check):
    names = ["scale", "shift", "mean", "variance"]
    constants = {name: np.abs(floats(6)) + 0.1 for name in names}
    check(model([one("BatchNormalization", *names)], constants, {"x": ["b", 6, 4, 9]}), {"x": floats(2, 6, 4, 9)})
    nodes = [helper.make_node("Gemm", ["in", "w"], ["x"]), one("BatchNormalization", *names)]
    check(model(nodes, {**constants, "w": floats(7, 6)}, {"in": ["b", 7]}), {"in": floats(2, 7)})


def test_layer_norm(model, check):
    data = model(
        [one("LayerNormalization", "scale", "shift", axis=-1)], {"scale": floats(8), "shift": floats(8)}, {"x": ["b", 5, 8]}
    )
    check(data, {"x": floats(2, 5, 8)})


SHAPES = {
    "Flatten": ([one("Flatten")], {}),
    "Reshape": ([one("Reshape", "s")], {"s": np.array([0, 6, -1], np.int64)}),
    "Transpose": ([one("Transpose", perm=[0, 2, 3, 1])], {}),
    "Concat": ([one("Concat", "x", axis=1)], {}),
    "Concat last": ([one("Concat", "x", axis=-1)], {}),
    "Slice": (
        [one("Slice", "from", "to", "axes", "steps")],
        {"from": np.array([1, 0]), "to": np.array([3, 2**40]), "axes": np.array([1, 3]), "steps": np.array([1, 2])},
    ),
    "Pad": ([one("Pad", "pads", "value")], {"pads": np.array([0, 1, 0, 2, 0, 0, 3, 1]), "value": np.float32(0.5)}),
    "Squeeze": (
        [helper.make_node("Unsqueeze", ["x", "a"], ["u"]), helper.make_node("Squeeze", ["u", "a"], ["y"])],
        {"a": np.array([2])},
    ),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("after_conv", [False, True])
def test_moving_elements(model, check, case, after_conv):
    nodes, constants = SHAPES[case]
    if after_conv:
        nodes, constants = [helper.make_node("Conv", ["in", "w"], ["x"]), *nodes], {**constants, "w": floats(3, 3, 1, 1)}
    name = "in" if after_conv else "x"
    check(model(nodes, constants, {name: ["b", 3, 4, 5]}), {name: floats(2, 3, 4, 5)})


def test_split_has_several_outputs(model, check):
    node = helper.make_node("Split", ["x", "sizes"], ["y", "z"], axis=1)
    check(model([node], {"sizes": np.array([1, 3], np.int64)}, {"x": ["b", 4, 5]}, ["y", "z"]), {"x": floats(2, 4, 5)})


def test_concat_of_convolutions(model, check, isa):
    """DenseNet's pattern: parts on different grids, then a convolution over all of them."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["p"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w2"], ["q"]),
        helper.make_node("Concat", ["x", "p", "q"], ["all"], axis=1),
        helper.make_node("Conv", ["all", "w3"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    constants = {"w1": floats(4, 3, 3, 3), "w2": floats(2, 3, 1, 1), "w3": floats(5, 9, 3, 3)}
    check(model(nodes, constants, {"x": ["b", 3, 14, 10]}), {"x": floats(2, 3, 14, 10)}, isa)


def test_uint8_images_standardised_in_the_graph(model, check):
    """NHWC bytes -> float -> NCHW -> per-image mean 0 and deviation max(sd, 1/sqrt(n)) -> convolution."""
    spec = [
        ("Cast", ["x"], "f", {"to": TensorProto.FLOAT}),
        ("Transpose", ["f"], "n", {"perm": [0, 3, 1, 2]}),
        ("ReduceMean", ["n", "axes"], "mean", {}),
        ("Sub", ["n", "mean"], "centred", {}),
        ("Mul", ["centred", "centred"], "squared", {}),
        ("ReduceMean", ["squared", "axes"], "variance", {}),
        ("Sqrt", ["variance"], "sd", {}),
        ("Max", ["sd", "least"], "deviation", {}),
        ("Div", ["centred", "deviation"], "z", {}),
        ("Conv", ["z", "w"], "y", {"pads": [1, 1, 1, 1]}),
    ]
    nodes = [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in spec]
    constants = {"axes": np.array([1, 2, 3], np.int64), "least": np.float32(1 / np.sqrt(192)), "w": floats(4, 3, 3, 3)}
    data = model(nodes, constants, {"x": ["b", 8, 8, 3]}, dtype=TensorProto.UINT8)
    check(data, {"x": RNG.integers(0, 256, (3, 8, 8, 3), np.uint8)})


def test_shape_arithmetic_of_a_dynamic_batch(model, check):
    """What exporters write for x.view(x.shape[0], -1): Shape, Slice, Concat, Reshape."""
    spec = [
        ("Shape", ["x"], "full", {}),
        ("Slice", ["full", "zero", "one", "zero"], "batch", {}),
        ("Concat", ["batch", "rest"], "target", {"axis": 0}),
        ("Reshape", ["x", "target"], "y", {}),
    ]
    nodes = [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in spec]
    constants = {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([-1])}
    check(model(nodes, constants, {"x": ["b", 3, 4]}), {"x": floats(5, 3, 4)})


def test_dynamic_image_size(model):
    data = model([one("Conv", "w", pads=[1, 1, 1, 1])], {"w": floats(2, 3, 3, 3)}, {"x": ["b", 3, "h", "w_"]})
    session = Session(data)
    for size in (5, 9, 5):
        assert session.run(None, {"x": floats(1, 3, size, size + 1)})[0].shape == (1, 2, size, size + 1)


@pytest.mark.parametrize("tokens", [3, 4, 5, 8, 33])
@pytest.mark.parametrize("outputs", [1, 15, 16, 31, 64, 65, 130])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_over_many_tokens(model, check, isa, tokens, outputs, bias):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"])]
    if bias:
        nodes.append(helper.make_node("Add", ["p", "c"], ["q"]))
    nodes.append(helper.make_node("Relu", ["q" if bias else "p"], ["y"]))
    constants = {"w": floats(21, outputs), **({"c": floats(outputs)} if bias else {})}
    check(model(nodes, constants, {"x": ["b", tokens, 21]}), {"x": floats(2, tokens, 21)}, isa)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 7, 16), (5, 16, 65), (9, 33, 64), (6, 3, 15)])
def test_matrices_that_do_not_fill_blocks(model, check, isa, shape):
    rows, inner, columns = shape
    nodes = [helper.make_node("MatMul", ["x", "z"], ["y"])]
    data = model(nodes, {}, {"x": ["b", 3, rows, inner], "z": ["b", 3, inner, columns]})
    check(data, {"x": floats(2, 3, rows, inner), "z": floats(2, 3, inner, columns)}, isa)


def test_softmax_of_nan_is_nan(model, check, isa):
    x = floats(3, 40)
    x[1, 3], x[2, 38] = np.nan, -np.inf
    check(model([one("Softmax", axis=-1)], {}, {"x": ["b", 40]}), {"x": x}, isa)
