"""The last look at a program before it runs: every call reads and writes inside its buffers.

Kernels trust their descriptors. A planner's mistake would corrupt memory in silence. So, once per plan, each descriptor is
compared with the buffers of its call, and the tensors of a descriptor with each other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from tdcompress.engine.binding import LANES, ConvOp, Tensor
from tdcompress.engine.memory import Buffer, Use
from tdcompress.engine.tables import PAIR
from tdcompress.errors import TdcompressError

_Sizes = tuple[int, ...]


def _sizes(tensor: Tensor) -> _Sizes:
    return tensor.channels, tensor.height, tensor.width


def _elements(tensor: Tensor) -> int:
    return int(tensor.channels * tensor.height * tensor.width)


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The first element of its space that a kernel touches through it, and one past the last; halos included."""
    first = tensor.offset - tensor.halo_top * tensor.row_stride
    last_plane = tensor.offset + (tensor.channels - 1) * tensor.plane_stride
    return first, last_plane + (tensor.rows + tensor.halo_bottom) * tensor.row_stride


def _tensors(descriptor: ctypes.Structure) -> Iterator[Tensor]:
    """The tensors of a descriptor that are in use: one that is absent has no channels."""
    for name, *_ in descriptor._fields_:
        value = getattr(descriptor, name)
        if isinstance(value, Tensor) and value.channels:
            yield value
        elif isinstance(value, ctypes.Structure) and not isinstance(value, Tensor):
            yield from _tensors(value)


def _inside(tensor: Tensor, buffers: Sequence[Buffer]) -> bool:
    first, end = _extent(tensor)
    return any(
        buffer.space == tensor.space and buffer.start <= first and end <= buffer.start + buffer.layout.size for buffer in buffers
    )


def _reach(dims: Sequence[int], strides: Sequence[int], start: int = 0) -> tuple[int, int]:
    """The smallest and largest element that a strided walk touches."""
    ends = [(size - 1) * stride for size, stride in zip(dims, strides, strict=True)]
    return start + sum(end for end in ends if end < 0), start + sum(end for end in ends if end > 0)


def _fits(tensor: Tensor, dims: Sequence[int], strides: Sequence[int], start: int = 0) -> bool:
    lowest, highest = _reach(dims, strides, start)
    return lowest >= 0 and highest < _elements(tensor)


def _conv(op: Any) -> bool:
    ending = op.epilogue
    stored = [tensor for tensor in (ending.residual, ending.output, ending.output2) if tensor.channels]
    return all(tensor.channels == op.filters and op.vectors * LANES <= tensor.rows * tensor.row_stride for tensor in stored)


def _linear(op: Any) -> bool:
    return bool(_elements(op.input) == op.tokens * op.features and _elements(op.output) == op.tokens * op.outputs)


def _same(op: Any) -> bool:
    return _sizes(op.input) == _sizes(op.output)


def _split(op: Any) -> bool:
    (channels, height, width), (phases, tall, wide) = _sizes(op.input), _sizes(op.output)
    stride_y, stride_x = int(op.stride_y), int(op.stride_x)
    return (phases, tall, wide) == (channels * stride_y * stride_x, -(-height // stride_y), -(-width // stride_x))


def _binary(op: Any) -> bool:
    dims = op.dims[: op.ndim]
    written = 1
    for size in dims:
        written *= size
    return written == _elements(op.output) and all(
        not tensor.channels or _fits(tensor, dims, strides[: op.ndim])
        for tensor, strides in ((op.a, op.stride_a), (op.b, op.stride_b))
    )


def _binary_rows(op: Any) -> bool:
    return _sizes(op.a) == _sizes(op.b) == _sizes(op.output)


def _pool(op: Any) -> bool:
    rows = (op.output.height - 1) * op.stride_y - op.pad_top < op.input.height
    columns = (op.output.width - 1) * op.stride_x - op.pad_left < op.input.width
    return bool(op.input.channels == op.output.channels and op.scratch.width >= op.input.width and rows and columns)


def _reduce_planes(op: Any) -> bool:
    return bool(op.input.channels == op.output.channels)


def _reduce(op: Any) -> bool:
    kept = 1
    for size in op.dims[: op.kept]:
        kept *= size
    return kept == _elements(op.output) and _fits(op.input, op.dims[: op.ndim], op.strides[: op.ndim])


def _softmax(op: Any) -> bool:
    return bool(_elements(op.input) == _elements(op.output) == op.outer * op.size * op.inner)


def _permute(op: Any) -> bool:
    dims = op.dims[: op.ndim]
    return _fits(op.input, dims, op.stride_in[: op.ndim], op.input_start) and _fits(
        op.output, dims, op.stride_out[: op.ndim], op.output_start
    )


def _matmul(op: Any) -> bool:
    rows, inner, columns = int(op.rows), int(op.inner), int(op.columns)
    sizes = tuple(_elements(tensor) for tensor in (op.a, op.b, op.output))
    return sizes == (op.batch * rows * inner, op.batch * inner * columns, op.batch * rows * columns)


def _resample(op: Any) -> bool:
    sizes = op.outer * op.size_in * op.inner, op.outer * op.size_out * op.inner
    return sizes == (_elements(op.input), _elements(op.output)) and (op.taps == 1 or bool(op.weights))


def _lookup(op: Any) -> bool:
    return bool(_elements(op.input) == op.count and _elements(op.output) == op.count * op.width)


AGREEMENTS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "binary": _binary,
        "binary_rows": _binary_rows,
        "conv_dense": _conv,
        "conv_sparse": _conv,
        "copy": _same,
        "fill": lambda op: True,
        "linear": _linear,
        "lookup": _lookup,
        "map": _same,
        "matmul": _matmul,
        "permute": _permute,
        "pool": _pool,
        "reduce": _reduce,
        "reduce_planes": _reduce_planes,
        "resample": _resample,
        "softmax": _softmax,
        "split": _split,
    }
)
"""Per kernel: whether the tensors and sizes of its descriptor agree, so that loops over one stay inside the others."""


def _conv_reach(op: Any) -> tuple[int, int]:
    """The first element of the arena that a convolution reads by its table of offsets, and one past the last."""
    if op.pairs:
        cells = np.ctypeslib.as_array((ctypes.c_uint32 * (op.filters * (1 + op.group_count))).from_address(op.rows))
        counts = cells.reshape(op.filters, 1 + op.group_count)[:, 1:].astype(np.int64)
        pairs = np.frombuffer(ctypes.string_at(op.pairs, PAIR.itemsize * int(((counts + 1) // 2).sum())), PAIR)
        offsets = pairs["offset"].reshape(-1)
    else:
        offsets = np.ctypeslib.as_array((ctypes.c_int32 * (op.sets * op.taps)).from_address(op.offsets))
    start = op.input.offset
    lowest, highest = (int(offsets.min()) // 4, int(offsets.max()) // 4) if offsets.size else (0, 0)
    return start + lowest, start + highest + op.vectors * LANES


def arena_extent(descriptors: Sequence[ctypes.Structure]) -> tuple[int, int]:
    """The first element of the arena that any call touches, and one past the last.

    Args:
        descriptors: of all calls of a plan.
    """
    found = [_extent(tensor) for op in descriptors for tensor in _tensors(op) if tensor.space == 0]
    found += [_conv_reach(op) for op in descriptors if isinstance(op, ConvOp)]
    return min((first for first, _ in found), default=0), max((end for _, end in found), default=LANES)


def check_call(kind: str, descriptor: ctypes.Structure, use: Use) -> None:
    """Refuse a call that would touch memory outside its buffers.

    Args:
        kind: of operation: a key of ``AGREEMENTS``.
        descriptor: what the library gets.
        use: the buffers that it may read and write.

    Raises:
        TdcompressError: it would; a mistake of the planner, never of the model.
    """
    buffers = (*use.reads, *use.writes)
    if not all(_inside(tensor, buffers) for tensor in _tensors(descriptor)) or not AGREEMENTS[kind](descriptor):
        raise TdcompressError(f"engine: a planned {kind} reaches outside its memory; please report this, with the model")
