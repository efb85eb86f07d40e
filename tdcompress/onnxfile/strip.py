"""Remove what an ONNX file does not need to run: documentation, stack traces, inferred shapes; flush denormal weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tdcompress.onnxfile.graphs import every_node, graphs
from tdcompress.onnxfile.load import STANDARD

# float16 is left alone: its denormals are ordinary small weights, and CPUs widen it before they compute.
_FLUSHED: Mapping[int, type[np.floating[Any]]] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}


def undocumented(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without doc strings, metadata below the model's own (stack traces of exporters) and inferred shapes.

    The model's own `metadata_props` stay. Inferred shapes (`value_info`) stay where operators outside the standard set
    are used, since not every reader can infer those again.
    """
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    slim.ClearField("doc_string")
    standard_only = {node.domain for node in every_node(slim)} <= set(STANDARD)
    for function in slim.functions:
        _bare(function)
        del function.value_info[:]
    for node in every_node(slim):
        _bare(node)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    for _, graph in graphs(slim):
        _bare(graph)
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            _bare(value)
        for sparse in graph.sparse_initializer:
            _bare(sparse.values)
        if standard_only:
            del graph.value_info[:]
    return slim


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what running does not need; it computes the same.

    Besides what `undocumented` removes, unused domains and attributes that equal their operator's default are gone, and
    denormal weights (on many CPUs x10 to x100 slower) are zero.
    """
    slim = undocumented(model)
    used = {*STANDARD, *(node.domain for node in every_node(slim))}
    imported = [entry for entry in slim.opset_import if entry.domain in used]
    del slim.opset_import[:]
    slim.opset_import.extend(imported)
    versions = {"" if entry.domain in STANDARD else entry.domain: entry.version for entry in imported}
    for node in every_node(slim):
        _drop_defaults(node, versions)
    for _, graph in graphs(slim):
        for tensor in graph.initializer:
            _flush(tensor)
    return slim


def _bare(message: Any) -> None:
    message.ClearField("doc_string")  # assigning "" would write an empty string, 2 bytes each
    if "metadata_props" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("metadata_props")


def _drop_defaults(node: onnx.NodeProto, versions: Mapping[str, int]) -> None:
    """Remove attributes that say what their operator does anyway."""
    domain = "" if node.domain in STANDARD else node.domain
    if domain not in versions or not onnx.defs.has(node.op_type, versions[domain], domain):
        return
    known = onnx.defs.get_schema(node.op_type, versions[domain], domain).attributes
    for place in range(len(node.attribute) - 1, -1, -1):
        attribute = node.attribute[place]
        usual = known[attribute.name].default_value if attribute.name in known else None
        if usual is not None and usual.name and usual == attribute:
            del node.attribute[place]


def _flush(tensor: onnx.TensorProto) -> None:
    """Make the denormal values of a float initializer +0, in place."""
    dtype = _FLUSHED.get(tensor.data_type)
    if dtype is None:
        return
    values = numpy_helper.to_array(tensor)
    denormal = (values != 0) & (np.abs(values) < np.finfo(dtype).smallest_normal)
    if denormal.any():
        tensor.CopyFrom(numpy_helper.from_array(np.where(denormal, dtype(0), values), tensor.name))
