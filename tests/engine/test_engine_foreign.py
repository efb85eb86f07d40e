"""Operators that other exporters write: reductions, activations, norms, blocks of pixels, tiles."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from onnx import helper
from small_models import normal

from tdcompress.engine import Session
from tdcompress.errors import UnsupportedError

RNG = np.random.default_rng(11)
floats = partial(normal, RNG)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), (1, 1, 5, 7), (1, 3, 5, 7)])
def test_slopes_with_a_batch_axis(model, check, isa, shape):
    check(
        model([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": floats(*shape)}, {"x": ["b", 3, 5, 7]}),
        {"x": floats(2, 3, 5, 7)},
        isa,
    )


@pytest.mark.parametrize("op", ["ReduceMin", "ReduceMax", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"])
@pytest.mark.parametrize("axes", [[1], [2, 3], [1, 3], [-1], [1, 2, 3]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(model, check, isa, op, axes, keepdims):
    data = model([helper.make_node(op, ["x", "a"], ["y"], keepdims=keepdims)], {"a": np.array(axes)}, {"x": ["b", 3, 5, 18]})
    x = floats(2, 3, 5, 18)
    check(data, {"x": np.abs(x) + 0.1 if op == "ReduceLogSum" else x}, isa)


def test_the_least_of_not_a_number_is_none(model, isa):
    """As numpy and onnx's reference have it; onnxruntime's answer depends on where the NaN stands."""
    x = floats(2, 3, 4, 4)
    x[0, 1, 2, 2], x[1, 0, 0, 0], x[1, 2] = np.nan, -np.inf, np.inf
    for axes in ([2, 3], [1], [3]):
        data = model([helper.make_node("ReduceMin", ["x", "a"], ["y"])], {"a": np.array(axes)}, {"x": ["b", 3, 4, 4]})
        np.testing.assert_array_equal(Session(data, isa=isa).run(None, {"x": x})[0], x.min(tuple(axes), keepdims=True))


@pytest.mark.parametrize("op", ["Elu", "Selu", "Celu", "Softplus", "Softsign"])
def test_activations_made_of_others(model, check, isa, op):
    attributes = {"alpha": 1.5} if op in ("Elu", "Celu") else {}
    data = model([helper.make_node(op, ["x"], ["y"], **attributes)], {}, {"x": ["b", 3, 5, 7]})
    check(data, {"x": 4 * floats(2, 3, 5, 7)}, isa)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_operands(model, check, op, count):
    names = ["x", "c", "x", "d"][:count]
    data = model([helper.make_node(op, names, ["y"])], {"c": floats(3, 1), "d": floats(1, 3, 4)}, {"x": ["b", 3, 4]})
    check(data, {"x": floats(2, 3, 4)})


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_local_response_normalisation(model, check, isa, size):
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.02, beta=0.6, bias=1.5)
    check(model([node], {}, {"x": ["b", 6, 4, 5]}), {"x": 3 * floats(2, 6, 4, 5)}, isa)


@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 9)])
def test_instance_normalisation(model, check, shape):
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)
    check(model([node], {"s": floats(6), "b": floats(6)}, {"x": ["b", *shape]}), {"x": floats(2, *shape)})


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks(model, check, op, mode):
    attributes = {"mode": mode} if op == "DepthToSpace" else {}
    data = model([helper.make_node(op, ["x"], ["y"], blocksize=2, **attributes)], {}, {"x": ["b", 8, 4, 6]})
    check(data, {"x": floats(2, 8, 4, 6)})


@pytest.mark.parametrize("target", [[1, 1, 4, 5], [4, 1], [1, 3, 1, 1], [3, 4, 5]])
def test_expanding(model, check, target):
    data = model([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array(target)}, {"x": ["b", 3, 1, 5]})
    check(data, {"x": floats(2, 3, 1, 5)})


def test_expanding_the_batch_is_refused(model):
    for shape, target in ((["b", 3], [2, 4, 3]), ([1, 3], [4, 3])):
        with pytest.raises(UnsupportedError, match="reaches the batch axis"):
            Session(model([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array(target)}, {"x": shape}))


def test_tiling(model, check):
    node = helper.make_node("Tile", ["x", "r"], ["y"])
    check(model([node], {"r": np.array([1, 2, 1, 3])}, {"x": ["b", 3, 2, 5]}), {"x": floats(2, 3, 2, 5)})
    with pytest.raises(UnsupportedError, match="repeats the batch"):
        Session(model([node], {"r": np.array([2, 2, 1, 3])}, {"x": ["b", 3, 2, 5]}))
