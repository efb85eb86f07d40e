"""What has a weight matrix: linear layers, convolutions, embeddings, products with a parameter. Channels end, new ones begin."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tdcompress.shrinking.calls import OperatorCall, Result, Rule, note_numbers, untracked
from tdcompress.shrinking.cells import Signal, along, blank, channel_vector
from tdcompress.shrinking.channels import ChannelGraph, Flags, Matrix, Parameter, layer_name
from tdcompress.shrinking.demands import AtLeastOne, Groups, MatrixReader
from tdcompress.shrinking.kernel_taps import by_tap, shifts
from tdcompress.shrinking.rules_attention import matmul
from tdcompress.shrinking.trace import module_of


def linear(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Y = x W^T + b over the last axis; W is (O, I)."""
    if not isinstance(call["weight"], Parameter):
        return untracked(graph, call, "its weight is computed, not a parameter")
    matrix = graph.matrix(call["weight"])
    return _apply(graph, call, matrix, call["input"], call["bias"], axis=-1)


def product(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Y = x W over the last axis, W a parameter (I, O) by itself; products of computed tensors are attention's."""
    x, weight = call.tensors()
    if not isinstance(weight, Parameter) or graph.state[weight.name].ndim != 2:
        return matmul(graph, call)
    return _apply(graph, call, graph.matrix(weight, out_axis=1), x, None, axis=-1)


def product_with_bias(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Y = b + x W, W a parameter (I, O): addmm, as HuggingFace's ``Conv1D`` has it."""
    if not isinstance(call["mat2"], Parameter) or call["alpha"] != 1 or call["beta"] != 1:
        return untracked(graph, call, "this kind of product is not handled")
    return _apply(graph, call, graph.matrix(call["mat2"], out_axis=1), call["mat1"], call["self"], axis=-1)


def convolution(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Convolution of 1, 2 or 3 dimensions; W is (O, I / groups, kernel)."""
    if not isinstance(call["weight"], Parameter):
        return untracked(graph, call, "its weight is computed, not a parameter")
    weight = graph.state[call["weight"].name]
    matrix = graph.matrix(call["weight"], groups=call["groups"])
    padding = call["padding"]
    padded = padding == "same" and max(weight.shape[2:]) > 1 if isinstance(padding, str) else any(padding)
    if matrix.groups > 1:
        _tie_depthwise(graph, matrix, call)
    no_fold = "it pads with zeros" if padded else ""
    return _apply(graph, call, matrix, call["input"], call["bias"], axis=1 - weight.ndim, no_fold=no_fold)


def transposed_convolution(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Transposed convolution; W is (I, O / groups, kernel). Its borders see fewer taps, so only 1x1 kernels fold constants."""
    if not isinstance(call["weight"], Parameter):
        return untracked(graph, call, "its weight is computed, not a parameter")
    weight = graph.state[call["weight"].name]
    matrix = graph.matrix(call["weight"], out_axis=1, groups=call["groups"])
    uniform = max(weight.shape[2:]) == 1 and max(call["stride"]) == 1 and not any(call["padding"])
    if matrix.groups > 1:
        _tie_depthwise(graph, matrix, call)
    no_fold = "" if uniform else "its taps differ between pixels"
    return _apply(graph, call, matrix, call["input"], call["bias"], axis=1 - weight.ndim, no_fold=no_fold)


def embedding(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Rows of a table (V, D), one per index: D channels are made, the V rows stay."""
    if not isinstance(call["weight"], Parameter):
        return untracked(graph, call, "its table is computed, not a parameter")
    matrix = graph.matrix(call["weight"], out_axis=1)
    graph.pin(graph.signal(call["indices"]).channel, f"{call.layer} looks rows up by it")
    graph.hold(matrix.inputs, f"{call.layer} looks rows up by number")
    vector = blank((matrix.outputs.size,))
    vector["channel"] = matrix.outputs.ravel()
    vector["unit"] = matrix.first_unit + np.arange(vector.size)
    vector["known"] = (graph.state[matrix.parameter].detach() == 0).all(0).cpu().numpy()
    graph.demands.append(AtLeastOne(ids=matrix.outputs, layer=call.layer))
    return Signal(shape=call.shape, cells=along(vector, -1, len(call.shape)))


def _apply(
    graph: ChannelGraph,
    call: OperatorCall,
    matrix: Matrix,
    operand: Signal | Parameter,
    bias: Signal | Parameter | None,
    *,
    axis: int,
    no_fold: str = "",
) -> Signal:
    """Read the channels of ``axis``, make the outputs' channels, and compute the outputs that are constant."""
    x = graph.signal(operand)
    layer = layer_name(matrix.parameter)
    rows, vector = channel_vector(x.cells, axis)
    shape = matrix.inputs.shape
    graph.unify(rows, matrix.inputs.reshape(1, -1), f"the input of {layer} has a fixed size")
    vector = np.broadcast_to(vector, matrix.inputs.size).reshape(shape)
    weight = graph.state[matrix.parameter]
    reader = MatrixReader(
        layer=layer,
        module=module_of(call.node),
        matrix=matrix,
        bias=bias.name if isinstance(bias, Parameter) else None,
        vector=vector,
        used=(by_tap(weight, matrix) != 0).any(-1).cpu().numpy(),
        no_fold=no_fold,
    )
    graph.demands.append(reader)
    graph.demands.append(AtLeastOne(ids=matrix.inputs, layer=layer))
    graph.demands.append(AtLeastOne(ids=matrix.outputs, layer=layer))
    out = blank((matrix.outputs.size,))
    out["channel"] = matrix.outputs.ravel()
    out["unit"] = matrix.first_unit + np.arange(out.size)
    out["known"], out["value"] = _constants(reader, weight)
    out["known"] &= matrix.parameter not in graph.sized
    if bias is not None:
        shift = graph.signal(bias)
        graph.unify(shift.channel, out["channel"], f"the bias of {layer} is computed")
        out["known"] &= shift.cells["known"]
        out["value"] += shift.cells["value"]
    out["value"][~out["known"]] = 0.0
    if matrix.out_axis == graph.matrices[matrix.parameter].out_axis:
        graph.constant_units[matrix.parameter] = out["known"] & graph.constant_units.get(matrix.parameter, np.True_)
    return Signal(shape=call.shape, cells=along(out, axis, len(call.shape)))


def _constants(reader: MatrixReader, weight: Tensor) -> tuple[Flags, NDArray[np.float64]]:
    """Which outputs do not depend on the input, and their values without the bias."""
    unknown = ~reader.leaves
    if reader.matrix.groups == 1:
        known = ~reader.used[0][:, unknown[0]].any(1)[None]
    else:
        known = ~(reader.used & unknown[:, None, :]).any(-1)
    values = shifts(weight, reader.matrix, reader.vector["value"], reader.leaves & (reader.vector["value"] != 0))
    return known.ravel(), values.ravel()


def _tie_depthwise(graph: ChannelGraph, matrix: Matrix, call: OperatorCall) -> None:
    """A group with one input goes as a whole; wider groups narrow equally."""
    note_numbers(graph, call)
    if matrix.inputs.shape[1] == 1 or matrix.outputs.shape[1] == 1:
        graph.unify(matrix.inputs[:, :1], matrix.outputs, call.layer)
        graph.unify(matrix.inputs[:, :1], matrix.inputs, call.layer)
        return
    graph.demands.append(Groups(matrix=matrix, layer=layer_name(matrix.parameter)))
    graph.couplings.append(np.concatenate([matrix.inputs, matrix.outputs], axis=1))


RULES: Mapping[str, Rule] = {
    "linear": linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution),
    "embedding": embedding,
    **dict.fromkeys(("matmul", "mm"), product),
    "addmm": product_with_bias,
}
