"""Remove what an ONNX file does not need to run: documentation, stack traces, needless shapes; flush denormal weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import numpy_helper

from tdcompress.onnxfile.graphs import every_node, graphs
from tdcompress.onnxfile.load import STANDARD
from tdcompress.onnxfile.optimised import optimised_differently
from tdcompress.onnxfile.passes import graph_pass

# float16 is left alone: its denormals are ordinary small weights, and CPUs widen it before they compute.
_FLUSHED: Mapping[int, type[np.floating[Any]]] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}

_WINDOWS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"})
_WINDOW_DEFAULTS: Mapping[str, int] = {"strides": 1, "dilations": 1, "pads": 0}
"""What onnx says in words alone, because the number of axes is not fixed: the value along every axis where there is none."""

_EXPORTERS = ("pkg.torch.", "pkg.onnxscript.")  # how torch's exporters begin the keys of their own metadata


def _documented(model: onnx.ModelProto) -> str:
    return next((f"{node.op_type} {node.name!r} still has a doc string" for node in every_node(model) if node.doc_string), "")


def _foreign_domains(model: onnx.ModelProto) -> str:
    used = {*STANDARD, *(node.domain for node in every_node(model))}
    return next(
        (f"it imports {entry.domain!r}, which no node uses" for entry in model.opset_import if entry.domain not in used), ""
    )


@graph_pass(ensures=[_documented])
def undocumented(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without doc strings and what exporters note about themselves (stack traces, signatures).

    The model's own `metadata_props` stay, but for those that torch's exporters name as theirs. So do the shapes of values
    (`value_info`): onnxruntime fuses some operators only where it knows these. Those of weights say nothing new, and go.

    Requires: a well-formed graph (`passes.malformed`).
    Ensures: the same nodes and weights; no doc strings.
    """
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    own = [entry for entry in slim.metadata_props if not entry.key.startswith(_EXPORTERS)]
    _silence(slim)
    slim.metadata_props.extend(own)
    for _, graph in graphs(slim):
        weights = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
        shapes = [value for value in graph.value_info if value.name not in weights]
        del graph.value_info[:]
        graph.value_info.extend(shapes)
    return slim


@graph_pass(ensures=[_documented, _foreign_domains])
def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without what running does not need; it computes the same.

    Besides what `undocumented` removes, unused domains are gone, and attributes that equal their operator's default, that repeat
    the shape of its weights, or that matter in training alone. Denormal weights (on many CPUs x10 to x100 slower) are
    zero. The shapes of values go where all operators are standard ones, which every reader can infer again, and onnxruntime's
    optimised graph is the same without.

    Requires: a well-formed graph.
    Ensures: the same network but for denormal weights; no doc strings, no domain that nothing uses.
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
    return _without_needless_shapes(slim) if used <= set(STANDARD) else slim


def _without_needless_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for _, graph in graphs(bare):
        del graph.value_info[:]
    shapeless = bare.ByteSize() == model.ByteSize()
    return bare if shapeless or optimised_differently(model, bare) == "" else model


def _silence(message: Message) -> None:
    """Clear doc strings and metadata of a message and of every message in it."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)  # assigning "" would write an empty string, 2 bytes each
        elif field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                _silence(inner)


def _drop_defaults(node: onnx.NodeProto, versions: Mapping[str, int]) -> None:
    """Remove attributes that say what their operator does anyway."""
    domain = "" if node.domain in STANDARD else node.domain
    if domain not in versions or not onnx.defs.has(node.op_type, versions[domain], domain):
        return
    known = onnx.defs.get_schema(node.op_type, versions[domain], domain).attributes
    for place in range(len(node.attribute) - 1, -1, -1):
        attribute = node.attribute[place]
        usual = known[attribute.name].default_value if attribute.name in known else None
        if (usual is not None and usual.name and usual == attribute) or _says_nothing(node, attribute):
            del node.attribute[place]


def _says_nothing(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> bool:
    """Whether an operator does the same without an attribute, though its schema gives no default."""
    if node.op_type in _WINDOWS and attribute.name in _WINDOW_DEFAULTS:
        return set(attribute.ints) == {_WINDOW_DEFAULTS[attribute.name]}
    if node.op_type == "Conv" and attribute.name == "kernel_shape":
        return True  # that of the weights, or the file would be refused
    trains = any(other.name == "training_mode" and other.i for other in node.attribute)
    return node.op_type == "BatchNormalization" and attribute.name == "momentum" and not trains


def _flush(tensor: onnx.TensorProto) -> None:
    """Make the denormal values of a float initializer +0, in place."""
    dtype = _FLUSHED.get(tensor.data_type)
    if dtype is None:
        return
    values = numpy_helper.to_array(tensor)
    denormal = (values != 0) & (np.abs(values) < np.finfo(dtype).smallest_normal)
    if denormal.any():
        tensor.CopyFrom(numpy_helper.from_array(np.where(denormal, dtype(0), values), tensor.name))
