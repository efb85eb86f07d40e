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


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what running does not need; it computes the same.

    Gone are doc strings, metadata below the model's own, unused domains, attributes that equal their operator's default,
    and inferred shapes; denormal weights are zero.

    The model's own `metadata_props` stay. Inferred shapes (`value_info`) stay where operators outside the standard set
    are used, since not every reader can infer those again.
    """
    return strip_counted(model)[0]


def strip_counted(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """As `strip`, with the number of weights that were denormal (on many CPUs x10 to x100 slower) and are zero now."""
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    slim.ClearField("doc_string")
    domains = {node.domain for node in every_node(slim)}
    standard_only = domains <= set(STANDARD)
    imported = [entry for entry in slim.opset_import if entry.domain in {*STANDARD, *domains}]
    del slim.opset_import[:]
    slim.opset_import.extend(imported)
    versions = {"" if entry.domain in STANDARD else entry.domain: entry.version for entry in imported}
    for function in slim.functions:
        _bare(function)
        del function.value_info[:]
    for node in every_node(slim):
        _bare(node)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
        _drop_defaults(node, versions)
    flushed = 0
    for _, graph in graphs(slim):
        _bare(graph)
        for value in (*graph.input, *graph.output, *graph.value_info):
            _bare(value)
        for sparse in graph.sparse_initializer:
            _bare(sparse.values)
        if standard_only:
            del graph.value_info[:]
        for tensor in graph.initializer:
            _bare(tensor)
            flushed += _flush(tensor)
    return slim, flushed


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


def _flush(tensor: onnx.TensorProto) -> int:
    """Make the denormal values of a float initializer +0, in place; returns how many."""
    dtype = _FLUSHED.get(tensor.data_type)
    if dtype is None:
        return 0
    values = numpy_helper.to_array(tensor)
    denormal = (values != 0) & (np.abs(values) < np.finfo(dtype).smallest_normal)
    count = int(np.count_nonzero(denormal))
    if count:
        tensor.CopyFrom(numpy_helper.from_array(np.where(denormal, dtype(0), values), tensor.name))
    return count
