"""Operators that change a shape, cut or join, and what they do to sizes."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants.operands import Evaluator, Operands, axes_of, need, optional, require_memory
from tdcompress.engine.read import Array, Node


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
    x, target = need(inputs, 0), need(inputs, 1)
    return x.reshape(reshape_target(x.shape, target.tolist(), bool(node.attributes.get("allowzero", 0))))


def split_sizes(size: int, inputs: Operands, node: Node) -> tuple[int, ...]:
    """How Split divides an axis of `size` among its outputs.

    Args:
        size: length of the axis.
        inputs: of the node; the second may hold the sizes.
        node: Split.
    """
    given = optional(inputs, 1)
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
    x, axis = need(inputs, 0), int(node.attributes.get("axis", 0))
    ends = np.cumsum(split_sizes(x.shape[axis], inputs, node))[:-1]
    return tuple(np.split(x, ends, axis))


def _squeeze(inputs: Operands, node: Node, opset: int) -> Array:
    axes = axes_of(inputs, node, 1)
    return np.squeeze(need(inputs, 0), None if axes is None else tuple(axes))


def _unsqueeze(inputs: Operands, node: Node, opset: int) -> Array:
    return np.expand_dims(need(inputs, 0), tuple(axes_of(inputs, node, 1) or ()))


def slices(shape: Sequence[int], inputs: Operands, node: Node) -> tuple[slice, ...]:
    """The slices that Slice takes of a tensor of `shape`, one per axis.

    Args:
        shape: of the tensor.
        inputs: of the node: data, starts, ends, axes, steps.
        node: Slice.
    """
    starts, ends = need(inputs, 1).tolist(), need(inputs, 2).tolist()
    axes, steps = optional(inputs, 3), optional(inputs, 4)
    result = [slice(0, size, 1) for size in shape]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = range(len(shape))[int(axes[i]) if axes is not None else i]
        step = int(steps[i]) if steps is not None else 1
        start = max(int(start), -shape[axis])  # also where a step is negative, which Python takes as a start before the first
        first, last, step = slice(start, int(end), step).indices(shape[axis])
        result[axis] = slice(first, None if last < 0 else last, step)
    return tuple(result)


def _slice(inputs: Operands, node: Node, opset: int) -> Array:
    x = need(inputs, 0)
    return x[slices(x.shape, inputs, node)]


def _concat(inputs: Operands, node: Node, opset: int) -> Array:
    return np.concatenate([need(inputs, i) for i in range(len(inputs))], int(node.attributes["axis"]))


def _expand(inputs: Operands, node: Node, opset: int) -> Array:
    x = need(inputs, 0)
    shape = np.broadcast_shapes(x.shape, require_memory(need(inputs, 1).tolist()))
    return np.broadcast_to(x, require_memory(shape)).copy()


def _tile(inputs: Operands, node: Node, opset: int) -> Array:
    x, repeats = need(inputs, 0), need(inputs, 1).tolist()
    require_memory([size * int(repeat) for size, repeat in zip(x.shape, repeats, strict=True)])
    return np.tile(x, repeats)


def _transpose(inputs: Operands, node: Node, opset: int) -> Array:
    return np.transpose(need(inputs, 0), node.attributes.get("perm"))


SHAPES: Mapping[str, Evaluator] = MappingProxyType(
    {
        "Concat": _concat,
        "Expand": _expand,
        "Flatten": lambda inputs, node, opset: need(inputs, 0).reshape(
            math.prod(need(inputs, 0).shape[: int(node.attributes.get("axis", 1))]), -1
        ),
        "Reshape": _reshape,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
