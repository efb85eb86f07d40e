"""What is in an ONNX file: per weight shape, zeros, encoding, bytes and their lower bound; and the whole."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from tdcompress.onnxfile.cost import own_bytes
from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.load import load_model, opset, serialised
from tdcompress.onnxfile.metadata import get_metadata
from tdcompress.onnxfile.reports import FileReport, TensorReport, ValueReport
from tdcompress.onnxfile.tensors import PACKABLE, bound_bytes
from tdcompress.onnxfile.weights import StoredWeight, sections, stored_weights

_PARAMETERS = frozenset(PACKABLE.values())


def inspect_onnx(path: str | Path, *, external_data: bool = False) -> FileReport:
    """Describe an ONNX file, packed or not.

    Raises:
        ModelError: not a model, or damaged.
    """
    return inspect_model(load_model(path, external_data=external_data))


def inspect_model(model: onnx.ModelProto) -> FileReport:
    """Describe a model as `save_model` would write it."""
    data = serialised(model)
    weights = stored_weights(model)
    tensors = tuple(describe(weight) for weight in weights)
    operators: Counter[str] = Counter()
    decoder_bytes = 0
    for _, graph in graphs(model):
        operators.update(node.op_type for node in graph.node)
        for key, section in sections(graph).items():
            operators.subtract(node.op_type for node in section.nodes)
            own = sum(_file_bytes(weight) for weight in weights if weight.key == key)
            decoder_bytes += section.n_bytes() - own
    parameters = [tensor for tensor in tensors if np.dtype(tensor.dtype) in _PARAMETERS]
    return FileReport(
        file_bytes=len(data),
        gzip_bytes=len(gzip.compress(data, 6, mtime=0)),
        bound_bytes=sum(tensor.bound_bytes for tensor in tensors),
        decoder_bytes=decoder_bytes,
        graph_bytes=len(data) - decoder_bytes - sum(tensor.file_bytes for tensor in tensors),
        opset=opset(model),
        ir_version=model.ir_version,
        parameters=sum(tensor.elements for tensor in parameters),
        zeros=sum(tensor.zeros for tensor in parameters),
        operators={name: count for name, count in sorted(operators.items()) if count},
        metadata=get_metadata(model),
        inputs=tuple(_describe_value(value) for value in model.graph.input),
        outputs=tuple(_describe_value(value) for value in model.graph.output),
        tensors=tensors,
    )


def describe(weight: StoredWeight) -> TensorReport:
    """One weight of a file."""
    array, key = weight.array, weight.key
    zeros = int(np.count_nonzero(array == 0)) if array.dtype.kind in "fiub" else 0
    kept = array.size - zeros if key.dtype in _PARAMETERS else array.size
    return TensorReport(
        name=weight.full_name,
        shape=array.shape,
        dtype=key.dtype.name,
        stored=key.stored.name,
        elements=array.size,
        zeros=zeros,
        encoding=key.encoding,
        file_bytes=_file_bytes(weight),
        bound_bytes=bound_bytes(array.size, kept, key.stored.itemsize),
    )


def _file_bytes(weight: StoredWeight) -> int:
    """What the file would lose without this weight, if another one with rows of the same shape stays."""
    return own_bytes(weight, weight.key, beside=(1, *weight.array.shape[1:]))


def _describe_value(value: onnx.ValueInfoProto) -> ValueReport:
    kind = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    shape = tuple(size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in kind.shape.dim)
    return ValueReport(name=value.name, dtype=dtype, shape=shape)
