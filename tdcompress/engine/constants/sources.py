"""Operators that make an array from attributes, from numbers, of another type."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx

from tdcompress.engine.constants.operands import Evaluator, Operands, need, require_memory
from tdcompress.engine.read import Array, Node


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
    return np.full(require_memory(need(inputs, 0).tolist()), value[0])


def _range(inputs: Operands, node: Node, opset: int) -> Array:
    start, limit, delta = (need(inputs, i).reshape(()) for i in range(3))
    count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    require_memory([count])
    return np.asarray(start + np.arange(count).astype(start.dtype) * delta)


def _cast(inputs: Operands, node: Node, opset: int) -> Array:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attributes["to"])))
    return need(inputs, 0).astype(dtype)


SOURCES: Mapping[str, Evaluator] = MappingProxyType(
    {
        "Cast": _cast,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "Range": _range,
    }
)
