"""Shapes that other exporters write: a batch of -1, a first axis that is no batch, axes of size 0."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import graph_model, normal

from tdcompress.engine import Session
from tdcompress.errors import ModelError, UnsupportedError, UserError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


def test_a_batch_of_minus_one_is_free(model, check):
    data = onnx.load_model_from_string(model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": ["b", 4]}))
    data.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    session = Session(data.SerializeToString())
    assert session.get_inputs()[0].shape == [None, 4]
    for batch in (1, 3):
        x = floats(batch, 4)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))
    data.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -2
    with pytest.raises(ModelError, match="dimension -2"):
        Session(data.SerializeToString())


def test_a_first_axis_that_is_no_batch_is_told():
    """As recurrent networks have their state: (layers, batch, width)."""
    inputs = {"x": (TensorProto.FLOAT, ["b", 1, 4]), "h": (TensorProto.FLOAT, [2, 1, 4])}
    session = Session(graph_model([helper.make_node("Add", ["x", "h"], ["y"])], inputs))
    said = r"'h' has the shape \[2, 1, 4\]; every input needs the same batch, here 1; the model fixes it: .* use the onnxruntime"
    with pytest.raises(UserError, match=said):
        session.run(None, {"x": floats(1, 1, 4), "h": floats(2, 1, 4)})


def test_an_axis_of_size_0_is_named(model):
    for shape in (["b", 0, 4], [0, 4]):
        with pytest.raises(UnsupportedError, match=r"'x' has an axis of size 0, .*nothing to compute"):
            Session(model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": shape}))
    node = helper.make_node("Slice", ["x", "from", "to", "axes"], ["y"], name="cut")
    constants = {"from": np.array([2]), "to": np.array([2]), "axes": np.array([1])}
    with pytest.raises(UnsupportedError, match=r"'cut': its output .* no axis of size 0"):
        Session(model([node], constants, {"x": ["b", 4]}))


def test_an_empty_constant_joins_nothing(model, check):
    node = helper.make_node("Concat", ["empty", "x", "x"], ["y"], axis=1)
    check(model([node], {"empty": np.zeros((2, 0), np.float32)}, {"x": [2, 3]}), {"x": floats(2, 3)})
