"""TensorProto <-> numpy, by bits: which element types are packed, what counts as a zero, how large a message is."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import numpy_helper

from tdcompress.errors import ModelError, one_line

Array = NDArray[Any]

# Element types that the decoders handle; onnxruntime has CPU kernels of every decoder operator for them.
PACKABLE: Mapping[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
    onnx.TensorProto.INT8: np.dtype(np.int8),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
}


_BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}  # these take a byte each in numpy only


def to_array(tensor: onnx.TensorProto) -> Array:
    """The values of a dense tensor.

    Raises:
        ModelError: shape and data do not fit together, or the element type is unknown.
    """
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"weight {tensor.name!r} has a negative size in its shape {list(tensor.dims)}")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(f"weight {tensor.name!r}: shape {list(tensor.dims)} and data do not fit: {one_line(error)}") from error


def from_array(array: Array, name: str) -> onnx.TensorProto:
    """A dense tensor of the array's shape and type, with raw little-endian data."""
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def is_parameter(dtype: np.dtype[Any]) -> bool:
    """Whether weights are of this element type: floats of any width, and integers of at most 8 bits, but no shapes or indices."""
    return dtype.kind in "fV" or (dtype.kind in "iu" and dtype.itemsize == 1)  # V: what numpy itself does not know, as bfloat16


def zeros_in(array: Array) -> int:
    """How many elements of an array of any shape are 0 or -0; none where they are not numbers."""
    return int(np.count_nonzero(array == 0)) if array.dtype.kind in "fiubV" else 0


def value_bytes(dtype: np.dtype[Any]) -> float:
    """Bytes of an element in a file; half a byte for a 4-bit one."""
    return _BITS.get(dtype.name, 8 * dtype.itemsize) / 8


def nonzero(array: Array) -> NDArray[np.int64]:
    """Positions (K,) in the flattened array of what is not zero bit for bit; -0.0 is kept as a value, NaN too."""
    bits = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    return np.flatnonzero(bits)


def position_bits(total: int, kept: int) -> float:
    """N * H(p): the least bits that say which `kept` of `total` elements are there, each set equally likely.

    H(p) = -p log2 p - (1 - p) log2 (1 - p) with p = kept / total (Shannon 1948).
    """
    if kept in (0, total):
        return 0.0
    p = kept / total
    return total * (-p * math.log2(p) - (1 - p) * math.log2(1 - p))


def bound_bytes(total: int, kept: int, per_value: float) -> float:
    """Lower bound of a weight's bytes: value bits + n * H(p) position bits, or dense where that is less.

    Args:
        total: elements.
        kept: elements that are not zero.
        per_value: bytes of one.
    """
    return min(total * per_value, kept * per_value + position_bits(total, kept) / 8)


def message_bytes(messages: Iterable[Message]) -> int:
    """Bytes that these messages take as repeated fields of a graph: body, length and tag each."""
    return sum(_field_bytes(message.ByteSize()) for message in messages)


def _field_bytes(body: int) -> int:
    return body + 1 + max(1, math.ceil(body.bit_length() / 7))  # all graph fields used here have one-byte tags
