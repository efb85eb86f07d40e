"""Operators that read or write at places, given by numbers or truth values."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants.operands import Evaluator, Operands, need, require_memory
from tdcompress.engine.read import Array, Node


def _wrap(indices: Array, size: int) -> Array:
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise ValueError(f"an index outside an axis of {size}")
    return np.where(indices < 0, indices + size, indices)


def _gather(inputs: Operands, node: Node, opset: int) -> Array:
    data, indices, axis = need(inputs, 0), need(inputs, 1), int(node.attributes.get("axis", 0))
    axis = range(data.ndim)[axis]
    require_memory(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])
    return np.take(data, _wrap(indices, data.shape[axis]), axis)


def _within_reach(data: Array, indices: Array, axis: int) -> Array:
    """The part of `data` that `indices` along an axis speak of: as long as they are in every other axis."""
    axis = range(data.ndim)[axis]
    if indices.ndim != data.ndim or any(
        n > size for i, (n, size) in enumerate(zip(indices.shape, data.shape, strict=True)) if i != axis
    ):
        raise ValueError(f"indices of {list(indices.shape)} into {list(data.shape)}")
    return data[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))]


def _gather_elements(inputs: Operands, node: Node, opset: int) -> Array:
    data, indices, axis = need(inputs, 0), need(inputs, 1), int(node.attributes.get("axis", 0))
    return np.take_along_axis(_within_reach(data, indices, axis), _wrap(indices, data.shape[axis]), axis)


def _scatter_elements(inputs: Operands, node: Node, opset: int) -> Array:
    data, indices, updates = (need(inputs, i) for i in range(3))
    axis, reduction = int(node.attributes.get("axis", 0)), node.attributes.get("reduction", b"none")
    if reduction not in (b"none", "none") or indices.shape != updates.shape:
        raise ValueError("a reduction, or updates of another shape than the indices")
    out = data.copy()
    np.put_along_axis(_within_reach(out, indices, axis), _wrap(indices, data.shape[axis]), updates.astype(data.dtype), axis)
    return out


def _where(inputs: Operands, node: Node, opset: int) -> Array:
    condition, a, b = (need(inputs, i) for i in range(3))
    require_memory(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition, a, b)


PLACES: Mapping[str, Evaluator] = MappingProxyType(
    {
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "NonZero": lambda inputs, node, opset: np.array(np.nonzero(need(inputs, 0)), np.int64),
        "ScatterElements": _scatter_elements,
        "Where": _where,
    }
)
