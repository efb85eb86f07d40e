"""Whether the 8-bit sums of a file come out the same on every processor.

x86 without VNNI adds two products of uint8 and int8 in 16 bits, and cuts what does not fit: 255 * (w1 + w2) must stay in
-32,768 .. 32,767. Weights of at most 64 in magnitude do, whichever two meet: 255 * (64 + 64) = 32,640. A weight that is stored in
8 bits and made float before anything is computed with it is in no such sum: by a Cast, or by a DequantizeLinear in a file whose
activations are float throughout. Where these are dequantised too, runtimes compute with the 8 bits of both.
"""

from collections.abc import Set

import numpy as np
import onnx
from onnx import TensorProto

from tdcompress.onnxfile.graphs import every_node
from tdcompress.onnxfile.listed_names import with_own_names
from tdcompress.onnxfile.weights import StoredWeight, constant_weights, stored_weights
from tdcompress.processor import Processor

PORTABLE_MAGNITUDE = 64
_DEQUANTISE = "DequantizeLinear"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def full_range_weights(model: onnx.ModelProto) -> list[StoredWeight]:
    """The int8 matrices whose pair sums may leave 16 bits: an element is larger than 64 in magnitude.

    Raises:
        ModelError: a weight is malformed, or the list of names is damaged.
    """
    model = with_own_names(model)
    weights = [*stored_weights(model), *constant_weights(model)]
    in_float = _made_float(model, {weight.name for weight in weights})
    weights = [weight for weight in weights if weight.name not in in_float]
    return [w for w in weights if w.array.dtype == np.int8 and w.array.ndim > 1 and _magnitude(w.array) > PORTABLE_MAGNITUDE]


def _made_float(model: onnx.ModelProto, weights: Set[str]) -> set[str]:
    """What is read only to make floating-point numbers of it alone."""
    nodes = list(every_node(model))
    activations = any(node.op_type == _DEQUANTISE and node.input[0] not in weights for node in nodes)
    alone, others = set[str](), set[str]()
    for node in nodes:
        cast = node.op_type == "Cast" and any(each.name == "to" and each.i in _FLOATS for each in node.attribute)
        made_float = cast or (node.op_type == _DEQUANTISE and not activations)
        (alone if made_float else others).update(node.input)
    return alone - others


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
