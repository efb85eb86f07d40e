"""Whether the 8-bit sums of a file come out the same on every processor.

x86 without VNNI adds two products of uint8 and int8 in 16 bits, and cuts what does not fit: 255 * (w1 + w2) must stay in
-32,768 .. 32,767. Weights of at most 64 in magnitude do, whichever two meet: 255 * (64 + 64) = 32,640. A weight that is stored in
8 bits and cast to float before anything is computed with it is in no such sum.
"""

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.onnxfile.graphs import every_node
from tdcompress.onnxfile.listed_names import with_own_names
from tdcompress.onnxfile.weights import StoredWeight, constant_weights, stored_weights
from tdcompress.processor import Processor

PORTABLE_MAGNITUDE = 64
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def full_range_weights(model: onnx.ModelProto) -> list[StoredWeight]:
    """The int8 matrices whose pair sums may leave 16 bits: an element is larger than 64 in magnitude.

    Raises:
        ModelError: a weight is malformed, or the list of names is damaged.
    """
    model = with_own_names(model)
    in_float = _cast_to_float(model)
    weights = [w for w in (*stored_weights(model), *constant_weights(model)) if w.name not in in_float]
    return [w for w in weights if w.array.dtype == np.int8 and w.array.ndim > 1 and _magnitude(w.array) > PORTABLE_MAGNITUDE]


def _cast_to_float(model: onnx.ModelProto) -> set[str]:
    """What Cast alone reads, and makes floating-point numbers of."""
    casts, others = set[str](), set[str]()
    for node in every_node(model):
        to_float = node.op_type == "Cast" and any(each.name == "to" and each.i in _FLOATS for each in node.attribute)
        (casts if to_float else others).update(node.input)
    return casts - others


def saturation_note(count: int, processor: Processor) -> str | None:
    """What a user of a file with so many full-range weights has to know on this processor; None where nothing.

    Args:
        count: how many of the file's weights `full_range_weights` names.
        processor: what will run it.
    """
    if not count or processor.saturates is False:
        return None
    where = f"on this processor ({processor.name}: x86 without VNNI)" if processor.saturates else "on x86 without VNNI"
    return f"{count} full-range int8 weights: their 8-bit sums can saturate {where}; quantise with the portable range"


def _magnitude(array: np.ndarray[tuple[int, ...], np.dtype[np.int8]]) -> int:
    return int(np.abs(array.astype(np.int16)).max(initial=0))
