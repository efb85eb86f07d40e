"""Operators evaluated on constants, with numpy, when a model is loaded.

Two things need it: shape arithmetic of dynamic batches, and packed files, whose weights come out of a decoder made of standard
operators (Cast, Equal, Not, Add, CumSum, Gather, Where, ScatterElements, Split, Reshape). A constant subgraph may
hold any operator of this table; sizes are checked before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import scipy.special

from tdcompress.engine.read import MAX_ELEMENTS, Array, Node
from tdcompress.errors import ModelError, UnsupportedError, one_line

Operands = Sequence[Array | None]
"""The constant inputs of a node, each of its own shape; None where one is absent."""


def _need(inputs: Operands, index: int) -> Array:
    array = inputs[index] if index < len(inputs) else None
    if array is None:
        raise ValueError(f"input {index} is missing")
    return array


def _optional(inputs: Operands, index: int) -> Array | None:
    return inputs[index] if index < len(inputs) else None


def _cap(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"a shape of {list(sizes)}")
    return sizes


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Operands, Node, int], Array]:
    def evaluate(inputs: Operands, node: Node, opset: int) -> Array:
        a, b = _need(inputs, 0), _need(inputs, 1)
        _cap(np.broadcast_shapes(a.shape, b.shape))
        return np.asarray(function(a, b))

    return evaluate


def _unary(function: Callable[[Any], Any]) -> Callable[[Operands, Node, int], Array]:
    return lambda inputs, node, opset: np.asarray(function(_need(inputs, 0)))


def _same_type_divide(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        quotient = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))  # ONNX integer division truncates towards zero
        return np.asarray((quotient * np.sign(a) * np.sign(b)).astype(a.dtype))
    return np.asarray(a / b)


def _cast(inputs: Operands, node: Node, opset: int) -> Array:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attributes["to"])))
    return _need(inputs, 0).astype(dtype)


def _constant(inputs: Operands, node: Node, opset: int) -> Array:
    for name, kind in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return np.asarray(node.attributes[name], kind)
    value = node.attributes.get("value", node.attributes.get("sparse_value"))
    if value is None:
        raise ValueError("no numeric value")
    return np.asarray(value)


def _constant_of_shape(inputs: Operands, node: Node, opset: int) -> Array:
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32))).reshape(-1)
    return np.full(_cap(_need(inputs, 0).tolist()), value[0])


def _cumsum(inputs: Operands, node: Node, opset: int) -> Array:
    x, axis = _need(inputs, 0), int(_need(inputs, 1).reshape(()))
    reverse, exclusive = node.attributes.get("reverse", 0), node.attributes.get("exclusive", 0)
    if reverse:
        x = np.flip(x, axis)
    total = np.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        total = (total - x).astype(x.dtype)
    return np.flip(total, axis) if reverse else total


def _wrap(indices: Array, size: int) -> Array:
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise ValueError(f"an index outside an axis of {size}")
    return np.where(indices < 0, indices + size, indices)


def _gather(inputs: Operands, node: Node, opset: int) -> Array:
    data, indices, axis = _need(inputs, 0), _need(inputs, 1), int(node.attributes.get("axis", 0))
    axis = range(data.ndim)[axis]
    _cap(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])
    return np.take(data, _wrap(indices, data.shape[axis]), axis)


def _gather_elements(inputs: Operands, node: Node, opset: int) -> Array:
    data, indices, axis = _need(inputs, 0), _need(inputs, 1), int(node.attributes.get("axis", 0))
    return np.take_along_axis(data, _wrap(indices, data.shape[axis]), axis)


def _scatter_elements(inputs: Operands, node: Node, opset: int) -> Array:
    data, indices, updates = (_need(inputs, i) for i in range(3))
    axis, reduction = int(node.attributes.get("axis", 0)), node.attributes.get("reduction", b"none")
    if reduction not in (b"none", "none") or indices.shape != updates.shape:
        raise ValueError("a reduction, or updates of another shape than the indices")
    out = data.copy()
    np.put_along_axis(out, _wrap(indices, data.shape[axis]), updates.astype(data.dtype), axis)
    return out


def _where(inputs: Operands, node: Node, opset: int) -> Array:
    condition, a, b = (_need(inputs, i) for i in range(3))
    _cap(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


def reshape_target(shape: Sequence[int], target: Sequence[int], allow_zero: bool) -> tuple[int, ...]:
    """The shape that Reshape gives: 0 copies a dimension (unless allow_zero), -1 takes what is left.

    Args:
        shape: that of the tensor before.
        target: the operator's second input, a size for each axis of the result.
        allow_zero: whether 0 means a length of 0.
    """
    sizes = [shape[i] if size == 0 and not allow_zero else int(size) for i, size in enumerate(target)]
    if sizes.count(-1) > 1 or any(size < -1 for size in sizes):
        raise ValueError(f"a reshape to {list(target)}")
    if -1 in sizes:
        known = -math.prod(sizes)
        if known == 0 or math.prod(shape) % known:
            raise ValueError(f"a reshape of {list(shape)} to {list(target)}")
        sizes[sizes.index(-1)] = math.prod(shape) // known
    if math.prod(sizes) != math.prod(shape):
        raise ValueError(f"a reshape of {list(shape)} to {list(target)}")
    return tuple(sizes)


def _reshape(inputs: Operands, node: Node, opset: int) -> Array:
    x, target = _need(inputs, 0), _need(inputs, 1)
    return x.reshape(reshape_target(x.shape, target.tolist(), bool(node.attributes.get("allowzero", 0))))


def split_sizes(size: int, inputs: Operands, node: Node) -> tuple[int, ...]:
    """How Split divides an axis of `size` among its outputs.

    Args:
        size: length of the axis.
        inputs: of the node; the second may hold the sizes.
        node: Split.
    """
    given = _optional(inputs, 1)
    if given is not None:
        sizes = tuple(int(part) for part in given.reshape(-1))
    elif "split" in node.attributes:
        sizes = tuple(int(part) for part in node.attributes["split"])
    else:
        parts = len(node.outputs)
        each = -(-size // parts)
        sizes = tuple(min(each, size - i * each) for i in range(parts))
    if any(part < 0 for part in sizes) or sum(sizes) != size or len(sizes) != len(node.outputs):
        raise ValueError(f"a split of {size} into {list(sizes)}")
    return sizes


def _split(inputs: Operands, node: Node, opset: int) -> tuple[Array, ...]:
    x, axis = _need(inputs, 0), int(node.attributes.get("axis", 0))
    ends = np.cumsum(split_sizes(x.shape[axis], inputs, node))[:-1]
    return tuple(np.split(x, ends, axis))


def axes_of(inputs: Operands, node: Node, index: int) -> list[int] | None:
    """The `axes` of a node, which older opsets give as an attribute and newer ones as an input.

    Args:
        inputs: of the node.
        node: has them as an attribute, or
        index: the input that holds them.
    """
    given = _optional(inputs, index)
    if given is not None:
        return [int(axis) for axis in given.reshape(-1)]
    return [int(axis) for axis in node.attributes["axes"]] if "axes" in node.attributes else None


def _squeeze(inputs: Operands, node: Node, opset: int) -> Array:
    axes = axes_of(inputs, node, 1)
    return np.squeeze(_need(inputs, 0), None if axes is None else tuple(axes))


def _unsqueeze(inputs: Operands, node: Node, opset: int) -> Array:
    return np.expand_dims(_need(inputs, 0), tuple(axes_of(inputs, node, 1) or ()))


def slices(shape: Sequence[int], inputs: Operands, node: Node) -> tuple[slice, ...]:
    """The slices that Slice takes of a tensor of `shape`, one per axis.

    Args:
        shape: of the tensor.
        inputs: of the node: data, starts, ends, axes, steps.
        node: Slice.
    """
    starts, ends = _need(inputs, 1).tolist(), _need(inputs, 2).tolist()
    axes, steps = _optional(inputs, 3), _optional(inputs, 4)
    result = [slice(0, size, 1) for size in shape]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = range(len(shape))[int(axes[i]) if axes is not None else i]
        step = int(steps[i]) if steps is not None else 1
        first, last, step = slice(int(start), int(end), step).indices(shape[axis])
        result[axis] = slice(first, None if last < 0 else last, step)
    return tuple(result)


def _slice(inputs: Operands, node: Node, opset: int) -> Array:
    x = _need(inputs, 0)
    return x[slices(x.shape, inputs, node)]


def _concat(inputs: Operands, node: Node, opset: int) -> Array:
    return np.concatenate([_need(inputs, i) for i in range(len(inputs))], int(node.attributes["axis"]))


def _expand(inputs: Operands, node: Node, opset: int) -> Array:
    x = _need(inputs, 0)
    shape = np.broadcast_shapes(x.shape, _cap(_need(inputs, 1).tolist()))
    return np.broadcast_to(x, _cap(shape)).copy()


def _tile(inputs: Operands, node: Node, opset: int) -> Array:
    x, repeats = _need(inputs, 0), _need(inputs, 1).tolist()
    _cap([size * int(repeat) for size, repeat in zip(x.shape, repeats, strict=True)])
    return np.tile(x, repeats)


def _range(inputs: Operands, node: Node, opset: int) -> Array:
    start, limit, delta = (_need(inputs, i).reshape(()) for i in range(3))
    count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    _cap([count])
    return np.asarray(start + np.arange(count).astype(start.dtype) * delta)


def _bit_shift(inputs: Operands, node: Node, opset: int) -> Array:
    a, b = _need(inputs, 0), _need(inputs, 1)
    _cap(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.right_shift(a, b) if node.attributes["direction"] == b"RIGHT" else np.left_shift(a, b))


def _mod(inputs: Operands, node: Node, opset: int) -> Array:
    a, b = _need(inputs, 0), _need(inputs, 1)
    _cap(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(np.fmod(a, b) if node.attributes.get("fmod", 0) else np.mod(a, b))


def _transpose(inputs: Operands, node: Node, opset: int) -> Array:
    return np.transpose(_need(inputs, 0), node.attributes.get("perm"))


def _clip(inputs: Operands, node: Node, opset: int) -> Array:
    x, low, high = _need(inputs, 0), _optional(inputs, 1), _optional(inputs, 2)
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _leaky_relu(inputs: Operands, node: Node, opset: int) -> Array:
    x = _need(inputs, 0)
    return np.where(x < 0, np.asarray(node.attributes.get("alpha", 0.01), x.dtype) * x, x)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), from the side on which exp does not overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, np.ones_like(x)) / (1 + small), x.dtype)


def _softmax(inputs: Operands, node: Node, opset: int) -> Array:
    x, default = _need(inputs, 0), -1 if opset >= 13 else 1
    axis = range(x.ndim)[int(node.attributes.get("axis", default))]
    axes = axis if opset >= 13 else tuple(range(axis, x.ndim))
    powers = np.exp(x - x.max(axes, keepdims=True))
    return np.asarray(powers / powers.sum(axes, keepdims=True, dtype=np.float64), x.dtype)


def _matmul(inputs: Operands, node: Node, opset: int) -> Array:
    a, b = _need(inputs, 0), _need(inputs, 1)
    if a.ndim > 1 and b.ndim > 1:
        _cap((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))
    return np.asarray(a @ b)


def _largest(function: Callable[..., Any]) -> Callable[[Operands, Node, int], Array]:
    def evaluate(inputs: Operands, node: Node, opset: int) -> Array:
        axes = axes_of(inputs, node, 1)
        return np.asarray(
            function(_need(inputs, 0), axis=None if not axes else tuple(axes), keepdims=bool(node.attributes.get("keepdims", 1)))
        )

    return evaluate


def _reduce(function: Callable[..., Any]) -> Callable[[Operands, Node, int], Array]:
    def evaluate(inputs: Operands, node: Node, opset: int) -> Array:
        axes = axes_of(inputs, node, 1)
        x = _need(inputs, 0)
        return np.asarray(
            function(x, axis=None if not axes else tuple(axes), keepdims=bool(node.attributes.get("keepdims", 1)), dtype=x.dtype)
        )

    return evaluate


EVALUATORS: Mapping[str, Callable[[Operands, Node, int], Array | tuple[Array, ...]]] = MappingProxyType(
    {
        "Abs": _unary(np.abs),
        "Add": _binary(np.add),
        "And": _binary(np.logical_and),
        "BitShift": _bit_shift,
        "BitwiseAnd": _binary(np.bitwise_and),
        "BitwiseOr": _binary(np.bitwise_or),
        "Cast": _cast,
        "Ceil": _unary(np.ceil),
        "Clip": _clip,
        "Concat": _concat,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "Cos": _unary(np.cos),
        "CumSum": _cumsum,
        "Div": _binary(_same_type_divide),
        "Equal": _binary(np.equal),
        "Erf": _unary(lambda x: scipy.special.erf(x)),
        "Exp": _unary(np.exp),
        "Expand": _expand,
        "Flatten": lambda inputs, node, opset: _need(inputs, 0).reshape(
            math.prod(_need(inputs, 0).shape[: int(node.attributes.get("axis", 1))]), -1
        ),
        "Floor": _unary(np.floor),
        "Gather": _gather,
        "GatherElements": _gather_elements,
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
        "NonZero": _unary(lambda x: np.array(np.nonzero(x), np.int64)),
        "Not": _unary(np.logical_not),
        "Or": _binary(np.logical_or),
        "Pow": _binary(lambda a, b: np.power(a, b).astype(a.dtype)),
        "Range": _range,
        "Reciprocal": _unary(np.reciprocal),
        "ReduceMax": _largest(np.max),
        "ReduceMean": _reduce(np.mean),
        "ReduceMin": _largest(np.min),
        "ReduceProd": _reduce(np.prod),
        "ReduceSum": _reduce(np.sum),
        "Relu": _unary(lambda x: np.maximum(x, x.dtype.type(0))),
        "Reshape": _reshape,
        "ScatterElements": _scatter_elements,
        "Sigmoid": _unary(_sigmoid),
        "Sign": _unary(np.sign),
        "Sin": _unary(np.sin),
        "Slice": _slice,
        "Softmax": _softmax,
        "Split": _split,
        "Sqrt": _unary(np.sqrt),
        "Squeeze": _squeeze,
        "Sub": _binary(np.subtract),
        "Tanh": _unary(np.tanh),
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Where": _where,
    }
)


def evaluate(node: Node, inputs: Operands, opset: int) -> tuple[Array, ...]:
    """The outputs of a node whose inputs are all constants.

    Args:
        node: the operator.
        inputs: its inputs in order, arrays of any shape; None where one is left out.
        opset: of the model.

    Raises:
        UnsupportedError: the operator is not in EVALUATORS.
        ModelError: the inputs do not fit the operator.
    """
    function = EVALUATORS.get(node.op)
    if function is None:
        raise UnsupportedError(
            f"{node.label} computes a constant, and the engine does not fold {node.op}; fold constants when exporting "
            "the model (onnxruntime's offline optimisation does), or use the onnxruntime backend"
        )
    try:
        with np.errstate(all="ignore"):
            result = function(inputs, node, opset)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise ModelError(f"{node.label} cannot be evaluated: {one_line(error)}") from error
    return result if isinstance(result, tuple) else (result,)
