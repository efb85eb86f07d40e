"""What to do where onnxruntime has an operator for float32 alone, as it has on a CPU for convolutions and many others."""

import re
from pathlib import Path

import onnx

from tdcompress.onnxfile.graphs import every_node

_REFUSED = re.compile(r"Could not find an implementation for (\w+)\(\d+\)")


def not_in_float64(error: Exception, model: onnx.ModelProto | Path) -> str:
    """Why onnxruntime does not load a model, in words of ours, where that is float64; else "".

    Args:
        error: onnxruntime's.
        model: the model, or its file, which onnx has read before.
    """
    found = _REFUSED.search(str(error))
    if found is None:
        return ""
    proto = onnx.load(model, load_external_data=False) if isinstance(model, Path) else model
    if not _in_float64(proto):
        return ""
    reader = next((node for node in every_node(proto) if node.op_type == found[1]), None)
    where = "" if reader is None else f" ({(*reader.input, *reader.output)[1]!r})"
    return f"it has no {found[1]} for float64 on a CPU{where}; export the network in float32: model.float()"


def _in_float64(model: onnx.ModelProto) -> bool:
    types = (value.type.tensor_type.elem_type for value in model.graph.input)
    return onnx.TensorProto.DOUBLE in {*types, *(tensor.data_type for tensor in model.graph.initializer)}
