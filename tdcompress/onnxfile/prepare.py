"""Bring a model from any exporter into the form that packing works on, without a change of what it computes."""

from collections.abc import Set

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
from onnx import helper, version_converter

from tdcompress.errors import UnsupportedError, one_line
from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.load import opset
from tdcompress.onnxfile.passes import graph_pass
from tdcompress.onnxfile.tensors import PACKABLE, from_array, to_array
from tdcompress.onnxfile.weights import constant_tensor, still_packed

LOWEST_OPSET = 13  # Split takes its sizes as an input since then
_LOWEST_IR = 7  # the file format that opset 13 came with


def _not_current(model: onnx.ModelProto) -> str:
    if opset(model) < LOWEST_OPSET or model.ir_version < _LOWEST_IR:
        return f"operator set {opset(model)}, file format {model.ir_version}"
    return ""


def _has_constants(model: onnx.ModelProto) -> str:
    for _, graph in graphs(model):
        for node in graph.node:
            tensor = constant_tensor(node)
            if tensor is not None and tensor.data_type in PACKABLE:
                return f"the weight {node.output[0]!r} is still in a Constant node"
    return ""


@graph_pass(requires=[still_packed], ensures=[_not_current, _has_constants])
def prepared(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy with every weight as an initializer of a current file format, and how many weights were -0.0.

    - Weights in Constant nodes become initializers of the same name (older exporters write them so).
    - Format versions below 4 must list initializers as inputs; that list goes, as it is no longer needed.
    - An operator set older than 13 is raised to 13 by onnx's own converter, and functions of the model are written out before.
    - -0.0 becomes +0.0: masks that multiply leave it behind, and a network cannot tell but by dividing by it.

    Requires: a well-formed graph (`passes.malformed`) whose weights are not packed (`densified`).
    Ensures: the same network; operator set 13 or later, file format 7 or later, no weight in a Constant node.

    Raises:
        ModelError: the graph is malformed, or a weight's shape and data do not fit together.
        UnsupportedError: onnx cannot raise the operator set, or a weight is packed.
    """
    ready = with_current_opset(model)
    negative_zeros = 0
    for _, graph in graphs(ready):
        _lift_constants(graph)
        for tensor in graph.initializer:
            negative_zeros += _unsign_zeros(tensor)
    return ready, negative_zeros


@graph_pass(ensures=[_not_current])
def with_current_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a current file format and of operator set 13 at least.

    Requires: a well-formed graph.
    Ensures: the same network; operator set 13 or later, file format 7 or later.

    Raises:
        ModelError: the graph is malformed.
        UnsupportedError: onnx cannot raise the operator set.
    """
    ready = onnx.ModelProto()
    ready.CopyFrom(model)
    if ready.ir_version < 4:
        _unlist_initializers(ready.graph)
    if opset(ready) < LOWEST_OPSET:
        ready = _raised(ready)
    ready.ir_version = max(ready.ir_version, _LOWEST_IR)
    return ready


def unpackable(graph: onnx.GraphProto) -> dict[str, str]:
    """Initializers that have to stay as they are, with the reason."""
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    reasons = {}
    for tensor in graph.initializer:
        if tensor.name in inputs:
            reasons[tensor.name] = "it is also an input, which the caller may override"
        elif tensor.name in outputs:
            reasons[tensor.name] = "it is also an output"
        elif tensor.data_type not in PACKABLE:
            reasons[tensor.name] = not_packed(tensor.data_type)
        elif 0 in tensor.dims or not tensor.dims:
            reasons[tensor.name] = "it is a scalar or empty"
    return reasons


def not_packed(data_type: int) -> str:
    """The reason why weights of an element type stay as they are."""
    return f"element type {onnx.TensorProto.DataType.Name(data_type)} is not packed"


def _unlist_initializers(graph: onnx.GraphProto) -> None:
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    model.ir_version = max(model.ir_version, 4)
    if model.functions:  # the converter leaves them out, and their calls in
        model = _without_functions(model)
    before = opset(model)
    if before < 7:
        _widen_slopes(model)
    try:
        raised: onnx.ModelProto = version_converter.convert_version(model, LOWEST_OPSET)
    except (RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"operator set {opset(model)} cannot be raised to {LOWEST_OPSET}: {one_line(error)}; export the model again"
        ) from error
    del raised.metadata_props[:]
    raised.metadata_props.extend(model.metadata_props)
    _forget_inferred(raised.graph, {value.name for value in model.graph.value_info})
    if before < 11:
        _place_pixels_as_before(raised)
    return raised


def _without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each call of a function of the model replaced by the function's nodes.

    Raises:
        UnsupportedError: a function cannot be written out, one of another operator set than the model's for example.
    """
    inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    if inlined.functions:
        raise UnsupportedError(
            f"operator set {opset(model)} cannot be raised to {LOWEST_OPSET}: the function {inlined.functions[0].name!r} "
            "cannot be written out; export the model again"
        )
    return inlined


def _place_pixels_as_before(model: onnx.ModelProto) -> None:
    """Upsample and Resize scaled places before operator set 11; since then they take the middles of pixels unless told otherwise.

    onnx's converter leaves that out.
    """
    for _, graph in graphs(model):
        for node in graph.node:
            if node.op_type == "Resize" and not any(a.name == "coordinate_transformation_mode" for a in node.attribute):
                node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
                node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


def _widen_slopes(model: onnx.ModelProto) -> None:
    """PRelu took one slope per channel before operator set 7, and broadcasts like all others since: (C) becomes (C, 1, 1).

    onnx's converter leaves that out.

    Raises:
        UnsupportedError: the slopes are computed, or the rank of what they are for cannot be inferred.
    """
    slopes = {node.input[1]: node.input[0] for node in model.graph.node if node.op_type == "PRelu"}
    if not slopes:
        return
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, x in slopes.items():
        if name not in tensors or x not in ranks:
            raise UnsupportedError(
                f"operator set {opset(model)} cannot be raised to {LOWEST_OPSET}: the slopes {name!r} of a PRelu are not "
                f"constant, or the rank of {x!r} is not known; export the model again"
            )
        tensors[name].dims.extend([1] * (ranks[x] - 2 if len(tensors[name].dims) == 1 else 0))


def _forget_inferred(graph: onnx.GraphProto, known: Set[str]) -> None:
    """Remove the shapes that the converter found out: they make the file larger, and a runtime finds them out too."""
    kept = [value for value in graph.value_info if value.name in known]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _lift_constants(graph: onnx.GraphProto) -> None:
    for number in range(len(graph.node) - 1, -1, -1):
        tensor = constant_tensor(graph.node[number])
        if tensor is not None and tensor.data_type in PACKABLE:
            lifted = graph.initializer.add()
            lifted.CopyFrom(tensor)
            lifted.name = graph.node[number].output[0]
            del graph.node[number]


def _unsign_zeros(tensor: onnx.TensorProto) -> int:
    dtype = PACKABLE.get(tensor.data_type)
    if dtype is None or dtype.kind != "f":
        return 0
    array = to_array(tensor)
    negative = (array == 0) & np.signbit(array)
    count = int(np.count_nonzero(negative))
    if count:
        tensor.CopyFrom(from_array(np.where(negative, dtype.type(0), array), tensor.name))
    return count
