"""Rows of tables and of computed tensors: embeddings, and a row that is not there."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import graph_model, normal

from tdcompress.engine import Session
from tdcompress.errors import ModelError, UnsupportedError, UserError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(20, 6), (20,), (20, 2, 3)])
def test_embeddings(check, isa, kind, shape):
    data = graph_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": (helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ["b", 5])},
        {"table": floats(*shape)},
    )
    check(data, {"x": RNG.integers(-20, 20, (3, 5)).astype(kind)}, isa)


@pytest.mark.parametrize("wrong", [20, -21, 2**31, -(2**40), 2**62])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_that_is_not_there_is_an_error(isa, wrong, threads):
    data = graph_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])], {"x": (TensorProto.INT64, ["b", 5])}, {"table": floats(20, 6)}
    )
    session, tokens = Session(data, threads, isa=isa), np.zeros((4, 5), np.int64)
    tokens[3, 2] = wrong
    with pytest.raises(UserError, match="row that a table of the model does not have"):
        session.run(None, {"x": tokens})
    tokens[3, 2] = 19
    assert session.run(None, {"x": tokens})[0].shape == (4, 5, 6)  # the next call is a new one


@pytest.mark.parametrize(
    ("indices", "axis"), [(0, 1), (-1, 1), ([2], 1), ([3, 0, 0, -1], 1), ([[0, 2], [1, 1]], 2), (1, -1), ([], 1)]
)
def test_rows_of_a_computed_tensor(model, check, isa, indices, axis):
    data = model(
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)], {"i": np.array(indices, np.int64)}, {"x": ["b", 4, 3]}
    )
    if indices == []:
        with pytest.raises(UnsupportedError, match="no axis of size 0"):
            Session(data)
        return
    check(data, {"x": floats(2, 4, 3)}, isa)


def test_rows_that_are_refused(model):
    node = helper.make_node("Gather", ["x", "i"], ["y"], name="g", axis=0)
    with pytest.raises(UnsupportedError, match="across the batch axis"):
        Session(model([node], {"i": np.array([0])}, {"x": ["b", 4]}))
    with pytest.raises(ModelError, match="outside an axis of 4"):
        Session(model([helper.make_node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([4])}, {"x": ["b", 4]}))
    tokens = {"x": (TensorProto.INT64, ["b", 5])}
    with pytest.raises(UnsupportedError, match="another axis than the first"):
        Session(graph_model([helper.make_node("Gather", ["t", "x"], ["y"], axis=1)], tokens, {"t": floats(3, 4)}))
