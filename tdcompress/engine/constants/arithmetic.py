"""Operators that compute."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.special

from tdcompress.engine.constants.operands import Evaluator, Operands, axes_of, need, optional, require_memory
from tdcompress.engine.read import Array, Node


def _binary(function: Callable[[Any, Any], Any]) -> Evaluator:
    """Two operands; of Max and Min any number, one after the other."""

    def evaluate(inputs: Operands, node: Node, opset: int) -> Array:
        result = need(inputs, 0)
        for index in range(1, len(inputs)):
            operand = need(inputs, index)
            require_memory(np.broadcast_shapes(result.shape, operand.shape))
            result = np.asarray(function(result, operand))
        return result

    return evaluate


def _unary(function: Callable[[Any], Any]) -> Evaluator:
    return lambda inputs, node, opset: np.asarray(function(need(inputs, 0)))


def _same_type_divide(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        quotient = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))  # ONNX integer division truncates towards zero
        return np.asarray((quotient * np.sign(a) * np.sign(b)).astype(a.dtype))
    return np.asarray(a / b)


def _bit_shift(inputs: Operands, node: Node, opset: int) -> Array:
    a, b = need(inputs, 0), need(inputs, 1)
    require_memory(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.right_shift(a, b) if node.attributes["direction"] == b"RIGHT" else np.left_shift(a, b))


def _mod(inputs: Operands, node: Node, opset: int) -> Array:
    a, b = need(inputs, 0), need(inputs, 1)
    require_memory(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.fmod(a, b) if node.attributes.get("fmod", 0) else np.mod(a, b))


def _clip(inputs: Operands, node: Node, opset: int) -> Array:
    x, low, high = need(inputs, 0), optional(inputs, 1), optional(inputs, 2)
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _leaky_relu(inputs: Operands, node: Node, opset: int) -> Array:
    x = need(inputs, 0)
    return np.where(x < 0, np.asarray(node.attributes.get("alpha", 0.01), x.dtype) * x, x)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), from the side on which exp does not overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, np.ones_like(x)) / (1 + small), x.dtype)


def _softmax(inputs: Operands, node: Node, opset: int) -> Array:
    x, default = need(inputs, 0), -1 if opset >= 13 else 1
    axis = range(x.ndim)[int(node.attributes.get("axis", default))]
    axes = axis if opset >= 13 else tuple(range(axis, x.ndim))
    powers = np.exp(x - x.max(axes, keepdims=True))
    return np.asarray(powers / powers.sum(axes, keepdims=True, dtype=np.float64), x.dtype)


def _matmul(inputs: Operands, node: Node, opset: int) -> Array:
    a, b = need(inputs, 0), need(inputs, 1)
    if a.ndim > 1 and b.ndim > 1:
        require_memory((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))
    return np.asarray(a @ b)


def _cumsum(inputs: Operands, node: Node, opset: int) -> Array:
    x, axis = need(inputs, 0), int(need(inputs, 1).reshape(()))
    reverse, exclusive = node.attributes.get("reverse", 0), node.attributes.get("exclusive", 0)
    if reverse:
        x = np.flip(x, axis)
    total = np.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        total = (total - x).astype(x.dtype)
    return np.flip(total, axis) if reverse else total


def _over_axes(inputs: Operands, node: Node) -> dict[str, Any]:
    """Which axes a reduction is over, and whether they stay, in numpy's words."""
    axes = axes_of(inputs, node, 1)
    none = () if node.attributes.get("noop_with_empty_axes", 0) else None
    return {"axis": tuple(axes) if axes else none, "keepdims": bool(node.attributes.get("keepdims", 1))}


def _largest(function: Callable[..., Any]) -> Evaluator:
    return lambda inputs, node, opset: np.asarray(function(need(inputs, 0), **_over_axes(inputs, node)))


def _reduce(function: Callable[..., Any]) -> Evaluator:
    def evaluate(inputs: Operands, node: Node, opset: int) -> Array:
        x = need(inputs, 0)
        return np.asarray(function(x, **_over_axes(inputs, node), dtype=x.dtype))

    return evaluate


ARITHMETIC: Mapping[str, Evaluator] = MappingProxyType(
    {
        "Abs": _unary(np.abs),
        "Add": _binary(np.add),
        "And": _binary(np.logical_and),
        "BitShift": _bit_shift,
        "BitwiseAnd": _binary(np.bitwise_and),
        "BitwiseOr": _binary(np.bitwise_or),
        "Ceil": _unary(np.ceil),
        "Clip": _clip,
        "Cos": _unary(np.cos),
        "CumSum": _cumsum,
        "Div": _binary(_same_type_divide),
        "Equal": _binary(np.equal),
        "Erf": _unary(lambda x: scipy.special.erf(x)),
        "Exp": _unary(np.exp),
        "Floor": _unary(np.floor),
        "Greater": _binary(np.greater),
        "GreaterOrEqual": _binary(np.greater_equal),
        "Identity": _unary(lambda x: x),
        "IsNaN": _unary(np.isnan),
        "LeakyRelu": _leaky_relu,
        "Less": _binary(np.less),
        "LessOrEqual": _binary(np.less_equal),
        "Log": _unary(np.log),
        "MatMul": _matmul,
        "Max": _binary(np.maximum),
        "Min": _binary(np.minimum),
        "Mod": _mod,
        "Mul": _binary(np.multiply),
        "Neg": _unary(np.negative),
        "Not": _unary(np.logical_not),
        "Or": _binary(np.logical_or),
        "Pow": _binary(lambda a, b: np.power(a, b).astype(a.dtype)),
        "Reciprocal": _unary(np.reciprocal),
        "ReduceMax": _largest(np.max),
        "ReduceMean": _reduce(np.mean),
        "ReduceMin": _largest(np.min),
        "ReduceProd": _reduce(np.prod),
        "ReduceSum": _reduce(np.sum),
        "Relu": _unary(lambda x: np.maximum(x, x.dtype.type(0))),
        "Sigmoid": _unary(_sigmoid),
        "Sign": _unary(np.sign),
        "Sin": _unary(np.sin),
        "Softmax": _softmax,
        "Sqrt": _unary(np.sqrt),
        "Sub": _binary(np.subtract),
        "Tanh": _unary(np.tanh),
    }
)
