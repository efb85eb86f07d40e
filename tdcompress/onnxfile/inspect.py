"""What is in an ONNX file: per weight shape, zeros, encoding, bytes and their lower bound; and the whole."""

import gzip
from collections import Counter

import numpy as np
import onnx

from tdcompress.files import StrPath
from tdcompress.onnxfile.cost import own_bytes
from tdcompress.onnxfile.encodings.base import Section
from tdcompress.onnxfile.encodings.forms import FORMS
from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.listed_names import with_own_names
from tdcompress.onnxfile.load import in_file, load_model, opset, serialised
from tdcompress.onnxfile.loading import loading
from tdcompress.onnxfile.metadata import GRANULARITY, get_metadata
from tdcompress.onnxfile.patterns import pattern_bounds
from tdcompress.onnxfile.plan import FOLDED_BYTES
from tdcompress.onnxfile.reports import FileReport, TensorReport, ValueReport
from tdcompress.onnxfile.tensors import Array, bound_bytes, is_parameter, message_bytes, value_bytes, zeros_in
from tdcompress.onnxfile.weights import StoredWeight, constant_weights, sections, stored_weights
from tdcompress.onnxfile.zero_points import zero_points


def inspect_onnx(path: StrPath, *, external_data: bool = False) -> FileReport:
    """Describe an ONNX file, packed or not; with external data, as the one file that it would be with everything inside.

    Args:
        path: the file.
        external_data: accept weights in files beside it.

    Raises:
        ModelError: not a model, or damaged.
        UnsupportedError: an operator, domain or operator set that is not known.
    """
    model = load_model(path, external_data=external_data)
    with in_file(path):
        return inspect_model(model)


def inspect_model(model: onnx.ModelProto) -> FileReport:
    """Describe a model as `save_model` would write it."""
    data = serialised(model)
    model = with_own_names(model)
    n_bytes = model.ByteSize()
    weights = [*stored_weights(model), *constant_weights(model)]
    points = zero_points(model, {weight.full_name: weight.array for weight in weights})
    metadata = get_metadata(model)
    pattern = metadata.get(GRANULARITY, "")
    tensors = tuple(describe_weight(weight, points.get(weight.full_name), pattern) for weight in weights)
    operators: Counter[str] = Counter()
    decoder_bytes = 0
    decoders: list[Section] = []
    for _, graph in graphs(model):
        operators.update(node.op_type for node in graph.node)
        whole = Section()  # a section may read what another one makes
        for key, section in sections(graph).items():
            operators.subtract(node.op_type for node in section.nodes)
            own = sum(_file_bytes(weight) for weight in weights if weight.key == key)
            decoder_bytes += section.n_bytes() - own
            whole.initializers.extend(section.initializers)
            whole.nodes.extend(section.nodes)
        decoders.append(whole)
    cost = loading(decoders)
    parameters = [tensor for weight, tensor in zip(weights, tensors, strict=True) if is_parameter(weight.key.dtype)]
    return FileReport(
        file_bytes=len(data),
        gzip_bytes=len(gzip.compress(data, 6, mtime=0)),
        bound_bytes=sum(tensor.bound_bytes for tensor in tensors),
        decoder_bytes=decoder_bytes,
        graph_bytes=n_bytes - decoder_bytes - sum(tensor.file_bytes for tensor in tensors),
        names_saved_bytes=n_bytes - len(data),
        opset=opset(model),
        ir_version=model.ir_version,
        parameters=sum(tensor.elements for tensor in parameters),
        zeros=sum(tensor.zeros for tensor in parameters),
        operators={name: count for name, count in sorted(operators.items()) if count},
        metadata=metadata,
        loading_bytes=cost.bytes,
        unfolded=cost.largest > FOLDED_BYTES,
        inputs=tuple(_describe_value(value) for value in model.graph.input),
        outputs=tuple(_describe_value(value) for value in model.graph.output),
        tensors=tensors,
    )


def describe_weight(weight: StoredWeight, zero_point: Array | None = None, pattern: str = "") -> TensorReport:
    """One weight of a file: its shape, zeros, encoding, bytes and bound.

    Args:
        weight: the weight.
        zero_point: what stands for 0 in it, broadcasting to its shape; None = 0.
        pattern: of the zeros in the file, as its metadata says: "2:4", "1x4", or none of these.
    """
    array, key = weight.array, weight.key
    zeros = zeros_in(array) if zero_point is None else int(np.count_nonzero(array == zero_point))
    kept = array.size - zeros if is_parameter(key.dtype) else array.size
    bits, table = FORMS[key.form].entropy(array[array != 0]) if key.form else (8 * value_bytes(key.stored), 0)
    bounds = [bound_bytes(array.size, kept, bits / 8)]
    if zeros and is_parameter(key.dtype):
        bounds += pattern_bounds(array != (0 if zero_point is None else zero_point), bits / 8, pattern)
    return TensorReport(
        name=weight.full_name,
        shape=array.shape,
        dtype=key.dtype.name,
        stored=key.stored_name,
        elements=array.size,
        zeros=zeros,
        encoding=key.encoding,
        file_bytes=_file_bytes(weight),
        bound_bytes=min(bounds) + table,
    )


def _file_bytes(weight: StoredWeight) -> int:
    """What the file would lose without this weight; of a section, if another one with rows of the same shape stays."""
    if weight.message is not None:
        return message_bytes([weight.message])
    held = weight if weight.shift is None else weight.shift.away(weight.array)
    return own_bytes(held, weight.key, beside=(1, *weight.array.shape[1:]))


def _describe_value(value: onnx.ValueInfoProto) -> ValueReport:
    kind = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    shape = tuple(size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in kind.shape.dim)
    return ValueReport(name=value.name, dtype=dtype, shape=shape)
