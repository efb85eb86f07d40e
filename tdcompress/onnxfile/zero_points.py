"""Which integer of a quantised weight stands for 0: its zero point, which need not be 0."""

from collections.abc import Mapping

import onnx

from tdcompress.onnxfile.graphs import node_lists
from tdcompress.onnxfile.tensors import Array

# Operator -> (input that is a weight, input that is its zero point, axis that zero points of a vector go along; None: attribute).
_PLACES: Mapping[str, tuple[tuple[int, int, int | None], ...]] = {
    "DequantizeLinear": ((0, 2, None),),
    "QLinearConv": ((3, 5, 0),),
    "ConvInteger": ((1, 3, 0),),
    "QLinearMatMul": ((0, 2, -2), (3, 5, -1)),
    "MatMulInteger": ((0, 2, -2), (1, 3, -1)),
    "MatMulIntegerToFloat": ((1, 5, -1),),
    "DynamicQuantizeMatMul": ((1, 3, -1),),
    "QGemm": ((3, 5, -1),),
}
_DEFAULT_AXIS = 1  # of DequantizeLinear


def zero_points(model: onnx.ModelProto, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The zero points of quantised weights, shaped to be compared with them.

    Args:
        model: any model.
        weights: full name -> values, of any shape, of every weight; zero points are such weights too.

    Returns:
        Full name of a weight -> what stands for 0 in it; not where that is 0, computed, or given in blocks.
    """
    found: dict[str, Array] = {}
    for path, nodes in node_lists(model):
        for node in nodes:
            for weight, point, axis in _PLACES.get(node.op_type, ()):
                names = [path + node.input[place] if place < len(node.input) else "" for place in (weight, point)]
                if not all(name in weights for name in names):
                    continue
                array, zero = weights[names[0]], weights[names[1]]
                shaped = _along(zero, array.shape, _axis(node) if axis is None else axis)
                if shaped is not None and zero.any() and zero.dtype == array.dtype:
                    found[names[0]] = shaped
    return found


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), _DEFAULT_AXIS)


def _along(zero: Array, shape: tuple[int, ...], axis: int) -> Array | None:
    """Zero points as an array that broadcasts against a weight of that shape."""
    rank = len(shape)
    if zero.size == 1:
        return zero.reshape(())
    if zero.ndim != 1 or not -rank <= axis < rank or zero.size != shape[axis]:
        return None
    return zero.reshape([-1 if place == axis % rank else 1 for place in range(rank)])
