"""Functions of whole registers, sums of long rows and windows over nothing, against float64 and at the edges of float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper

from tdcompress.engine import Session

EDGES = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 88.7, 89.5, -87.3, -90, 104, -104, 1e30, -1e30, 0.625, -0.625], np.float32
)
FUNCTIONS = {
    "Exp": (np.exp, 3e-7, 0.0),
    "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 3e-7, 1e-37),
    "Tanh": (np.tanh, 4e-7, 0.0),
    "Erf": (np.vectorize(math.erf), 5e-7, 3e-7),
}


def run(model, op: str, x: np.ndarray, isa: str | None = None, **attributes) -> np.ndarray:
    shape = ["b", *x.shape[1:]]
    return Session(model([helper.make_node(op, ["x"], ["y"], **attributes)], {}, {"x": shape}, opset=20), isa=isa).run(
        None, {"x": x}
    )[0]


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_against_float64(model, isa, op):
    function, relative, absolute = FUNCTIONS[op]
    rng = np.random.default_rng(3)
    x = np.concatenate([EDGES, rng.uniform(-110, 110, 4000), rng.standard_normal(4000), 1e-3 * rng.standard_normal(999)])
    x = x.astype(np.float32)
    got = run(model, op, x[None], isa)[0]
    with np.errstate(all="ignore"):
        want = function(x.astype(np.float64))
        want = np.where(np.abs(want) > np.finfo(np.float32).max, np.sign(want) * np.inf, want)
    want[np.abs(want) < np.finfo(np.float32).tiny] = 0  # subnormal numbers are flushed
    np.testing.assert_allclose(got, want, rtol=relative, atol=absolute)
    odd = op in ("Tanh", "Erf")
    assert np.signbit(got[4]) == odd


@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 31, 40])
def test_rows_that_do_not_fill_registers(model, check, isa, width):
    """The rest of a row is computed in a register of its own, and nothing is written behind it."""
    x = np.random.default_rng(width).standard_normal((2, 3, 5, width)).astype(np.float32)
    for op in FUNCTIONS:
        check(model([helper.make_node(op, ["x"], ["y"])], {}, {"x": ["b", 3, 5, width]}), {"x": x}, isa)


def test_reciprocal_and_friends_keep_the_sign_of_zero(model, isa):
    x = np.array([[0.0, -0.0]], np.float32)
    assert run(model, "Reciprocal", x, isa).tolist() == [[np.inf, -np.inf]]
    assert np.signbit(run(model, "Identity", x, isa)).tolist() == [[False, True]]


@pytest.mark.parametrize("size", [1, 7, 16, 1000, 3001, 200_000])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_of_long_rows(model, isa, op, size):
    x = np.random.default_rng(size).standard_normal((1, 2, size)).astype(np.float32)
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    want = powers / powers.sum(-1, keepdims=True)
    want = np.log(want) if op == "LogSoftmax" else want
    for axis, array, expected in ((-1, x, want), (1, x.transpose(0, 2, 1).copy(), want.transpose(0, 2, 1))):
        got = run(model, op, array, isa, axis=axis)
        assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


def test_means_of_many_numbers(model, isa):
    x = np.random.default_rng(0).random((1, 100_000, 3)).astype(np.float32)
    for axis in (1, 2):
        data = x if axis == 1 else x.transpose(0, 2, 1).copy()
        session = Session(
            model([helper.make_node("ReduceMean", ["x", "a"], ["y"])], {"a": np.array([axis])}, {"x": ["b", *data.shape[1:]]}),
            isa=isa,
        )
        got = session.run(None, {"x": data})[0]
        np.testing.assert_allclose(got, data.astype(np.float64).mean(axis, keepdims=True), rtol=1e-6)


def test_an_average_over_nothing_but_padding(model, check):
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[1, 2], dilations=[1, 2], pads=[0, 1, 0, 1])
    check(model([node], {}, {"x": ["b", 2, 3, 1]}, opset=20), {"x": np.ones((1, 2, 3, 1), np.float32)})


@pytest.mark.parametrize("shape", [(3, 17, 19), (16, 16, 16), (1, 40, 3), (5, 1, 33)])
@pytest.mark.parametrize("order", [[0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 3, 2, 1], [0, 2, 1, 3]])
def test_every_order_of_axes(model, check, shape, order):
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    check(model([helper.make_node("Transpose", ["x"], ["y"], perm=order)], {}, {"x": ["b", *shape]}), {"x": x})
