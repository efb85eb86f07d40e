"""TensorProto <-> numpy, by bits: which element types are packed, what counts as a zero, how large a message is."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import Message
from onnx import numpy_helper

from tdcompress.errors import ModelError

Array = npt.NDArray[Any]

# Element types that the decoders handle; onnxruntime has CPU kernels of every decoder operator for them.
PACKABLE: Mapping[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
    onnx.TensorProto.INT8: np.dtype(np.int8),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
}


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
        raise ModelError(f"weight {tensor.name!r}: shape {list(tensor.dims)} and data do not fit: {error}") from error


def from_array(array: Array, name: str) -> onnx.TensorProto:
    """A dense tensor with raw little-endian data."""
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def nonzero(array: Array) -> npt.NDArray[np.int64]:
    """Flat positions of the elements that are not zero bit for bit; -0.0 is kept as a value, NaN too."""
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


def bound_bytes(total: int, kept: int, value_bytes: int) -> float:
    """Lower bound of a weight's bytes: value bits + n * H(p) position bits, or dense where that is less."""
    return min(float(total * value_bytes), kept * value_bytes + position_bits(total, kept) / 8)


def message_bytes(messages: Iterable[Message]) -> int:
    """Bytes that these messages take as repeated fields of a graph: body, length and tag each."""
    return sum(_field_bytes(message.ByteSize()) for message in messages)


def _field_bytes(body: int) -> int:
    return body + 1 + max(1, math.ceil(body.bit_length() / 7))  # all graph fields used here have one-byte tags
