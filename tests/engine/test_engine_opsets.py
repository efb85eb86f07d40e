"""Old operator sets are raised, also where onnx's converter does not know how."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import graph_model, normal

from tdcompress.engine import Session
from tdcompress.errors import ModelError, UnsupportedError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


OLD = {
    "Squeeze": ([helper.make_node("Unsqueeze", ["x"], ["u"], axes=[1]), helper.make_node("Squeeze", ["u"], ["y"], axes=[1])], {}),
    "Clip": ([helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.75)], {}),
    "Pad": ([helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)], {}),
    "Slice": ([helper.make_node("Slice", ["x"], ["y"], axes=[1, 2], starts=[1, 0], ends=[3, 4])], {}),
    "Dropout": ([helper.make_node("Dropout", ["x"], ["y"], ratio=0.3)], {}),
    "BatchNormalization": (
        [helper.make_node("BatchNormalization", ["x", "a", "b", "c", "d"], ["y"])],
        {"a": floats(3), "b": floats(3), "c": floats(3), "d": np.abs(floats(3))},
    ),
    "Softmax": ([helper.make_node("Softmax", ["x"], ["y"], axis=1)], {}),
    "Upsample": ([helper.make_node("Upsample", ["x", "s"], ["y"], mode="nearest")], {"s": np.array([1, 1, 2, 3], np.float32)}),
    "ReduceSum": ([helper.make_node("ReduceSum", ["x"], ["y"], axes=[2], keepdims=0)], {}),
    "Sum": ([helper.make_node("Sum", ["x", "x", "c"], ["y"])], {"c": floats(1, 3, 4, 5)}),
}


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
@pytest.mark.parametrize("name", OLD)
def test_old_operator_sets_are_raised(check, name, opset):
    nodes, constants = OLD[name]
    if name == "Upsample" and opset != 9:
        nodes, constants = [helper.make_node("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])], {}
        opset = min(opset, 8)
    if (name, opset) in (("Slice", 10), ("Sum", 7)):
        pytest.skip("that operator set has it in another form")
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 3, 4, 5])}, constants, opset=opset, ir_version=4)
    check(data, {"x": floats(2, 3, 4, 5)})


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 1.7])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_pixels_are_placed_as_before_opset_11(check, opset, mode, scale):
    """Their middles count since opset 11, which onnx's converter does not know."""
    if opset == 7:
        nodes, constants = [helper.make_node("Upsample", ["x"], ["y"], mode=mode, scales=[1.0, 1.0, scale, scale])], {}
    else:
        operator = "Upsample" if opset == 9 else "Resize"
        nodes = [helper.make_node(operator, ["x", "s"], ["y"], mode=mode)]
        constants = {"s": np.array([1, 1, scale, scale], np.float32)}
    data = graph_model(nodes, {"x": (TensorProto.FLOAT, ["b", 3, 6, 6])}, constants, opset=opset, ir_version=4)
    check(data, {"x": floats(2, 3, 6, 6)})


@pytest.mark.parametrize(("channels", "columns"), [(3, 5), (5, 5)])
def test_one_slope_per_channel_before_opset_7(channels, columns):
    """Since opset 7 slopes broadcast from the last axis, which onnx's converter does not know; with 5 by 5 it would fit too."""
    slope, x = floats(channels), floats(2, channels, 4, columns)
    data = graph_model(
        [helper.make_node("PRelu", ["x", "s"], ["y"])],
        {"x": (TensorProto.FLOAT, ["b", channels, 4, columns])},
        {"s": slope},
        opset=6,
        ir_version=4,
    )
    want = np.where(x < 0, slope[:, None, None] * x, x)
    np.testing.assert_allclose(Session(data).run(None, {"x": x})[0], want, rtol=1e-6)


def test_an_operator_set_that_cannot_be_raised():
    data = graph_model(
        [helper.make_node("Upsample", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["b", 3, 4, 5])}, opset=6, ir_version=4
    )
    with pytest.raises((ModelError, UnsupportedError)):
        Session(data)
