"""An ONNX file as plain Python: nodes, constants, inputs and outputs, checked before anything is computed from it.

Ordinary and sparse initializers become numpy arrays; weights in files beside the model are read by onnxfile; operator sets
that are older than the engine knows are raised by onnx's converter. Refused, by name: foreign operator domains, functions,
control flow other than If, and quantised graphs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from tdcompress.errors import ModelError, UnsupportedError, one_line
from tdcompress.onnxfile.encodings.base import Room
from tdcompress.onnxfile.encodings.coo import decode_coo
from tdcompress.onnxfile.graphs import graphs
from tdcompress.onnxfile.listed_names import with_own_names
from tdcompress.onnxfile.load import in_file, load_model
from tdcompress.onnxfile.load import opset as opset_of
from tdcompress.onnxfile.prepare import with_current_opset

Array = NDArray[Any]

OLDEST_OPSET, NEWEST_OPSET = 11, 26
MAX_ELEMENTS = 1 << 28
"""The largest tensor that is taken, in elements: a damaged or hostile file must not exhaust memory."""
MAX_CONSTANT_BYTES = 1 << 32
"""Of all constants together, folded ones included."""

_QUANTISED = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
        "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Value:
    """A graph input or output. A dimension is a number, a name, or None (unknown)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One ONNX node; an absent optional input is the empty name."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    branches: Mapping[str, Branch] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A graph inside an If: it reads the values around it by their names. constants: by name, of any shape."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A checked model; nodes are in topological order. constants: by name, of any shape."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    opset: int
    derived: dict[str, Array] | None = None
    """Constants in another form, by name, once they were needed; None: nothing is kept."""


def checked_array(tensor: onnx.TensorProto) -> Array:
    """The values of a stored tensor.

    Raises:
        ModelError: its bytes do not fit its shape, or it is too large.
        UnsupportedError: it lies in another file, or its type has no numpy counterpart.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise UnsupportedError(f"tensor {tensor.name!r} lies in another file, which bytes do not say; give the model's path")
    _check_dims(tuple(tensor.dims), tensor.name)
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ModelError(f"tensor {tensor.name!r} is damaged: {one_line(error)}; get the file again") from error


def _check_dims(dims: tuple[int, ...], name: str) -> None:
    elements = 1
    for dim in dims:
        if dim < 0:
            raise ModelError(f"tensor {name!r} has the dimension {dim}; get the file again")
        elements *= dim
    if elements > MAX_ELEMENTS:
        raise UnsupportedError(f"tensor {name!r} has {elements} elements; at most {MAX_ELEMENTS} are handled")


def _to_dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse initializer (COO; linear or per-axis indices) as a dense array."""
    _check_dims(tuple(sparse.dims), sparse.values.name)
    return decode_coo(sparse, Room(left_bytes=MAX_CONSTANT_BYTES))


def _check_size(model: onnx.ModelProto) -> None:
    """Sparse initializers are small in the file and may be anything in memory."""
    elements = sum(math.prod(sparse.dims) for _, graph in graphs(model) for sparse in graph.sparse_initializer)
    if elements > MAX_CONSTANT_BYTES // 4:
        raise UnsupportedError(
            f"the sparse initializers have {elements} elements; at most {MAX_CONSTANT_BYTES // 4} are handled: use the "
            "onnxruntime backend"
        )


def _value(info: onnx.ValueInfoProto) -> Value:
    if info.type.WhichOneof("value") != "tensor_type" or not info.type.tensor_type.HasField("shape"):
        raise UnsupportedError(f"{info.name!r} is no tensor with a shape; export the model with tensors for inputs and outputs")
    tensor = info.type.tensor_type
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value != -1:  # some exporters write -1 for a size that is free
            if dim.dim_value < 0:
                raise ModelError(f"{info.name!r} has the dimension {dim.dim_value}; get the file again")
            shape.append(dim.dim_value)
        else:
            shape.append(dim.dim_param or None)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, ValueError, TypeError) as error:
        raise UnsupportedError(
            f"{info.name!r} has element type {tensor.elem_type}, which is not handled; export it as float32"
        ) from error
    return Value(name=info.name, dtype=dtype, shape=tuple(shape))


def _node(proto: onnx.NodeProto, index: int) -> Node:
    name = proto.name or (proto.output[0] if proto.output else f"#{index}")
    if (proto.domain, proto.op_type) == ("com.microsoft", "EPContext"):
        raise UnsupportedError(f"the model is compiled already ({name!r}); give the engine the file that it was made of")
    if proto.domain not in ("", "ai.onnx"):
        raise UnsupportedError(
            f"operator {proto.op_type} of the domain {proto.domain!r} ({name!r}) is not handled; use the onnxruntime backend"
        )
    if proto.op_type in _QUANTISED:
        raise UnsupportedError(
            f"the model is quantised ({proto.op_type} {name!r}); the engine runs float32: give it the file before quantisation, "
            "or use the onnxruntime backend"
        )
    attributes: dict[str, Any] = {}
    branches: dict[str, Branch] = {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH and proto.op_type == "If":
            branches[attribute.name] = _branch(attribute.g)
        elif attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise UnsupportedError(f"control flow ({proto.op_type} {name!r}) is not handled; use the onnxruntime backend")
        elif attribute.type == onnx.AttributeProto.TENSOR:
            attributes[attribute.name] = checked_array(attribute.t)
        elif attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
            attributes[attribute.name] = _to_dense(attribute.sparse_tensor)
        else:
            try:
                attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
            except (ValueError, TypeError) as error:
                raise ModelError(
                    f"{proto.op_type} {name!r}: attribute {attribute.name!r} is damaged: {one_line(error)}"
                ) from error
    return Node(
        op=proto.op_type,
        name=name,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        branches=branches,
    )


def _branch(graph: onnx.GraphProto) -> Branch:
    return Branch(
        nodes=tuple(_node(proto, index) for index, proto in enumerate(graph.node)),
        constants=_constants(graph),
        outputs=tuple(value.name for value in graph.output),
    )


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Ordinary and sparse initializers."""
    constants = {tensor.name: checked_array(tensor) for tensor in graph.initializer}
    return constants | {sparse.values.name: _to_dense(sparse) for sparse in graph.sparse_initializer}


def _parse(data: bytes) -> onnx.ModelProto:
    if not data:
        raise ModelError("the given bytes are empty, not an ONNX model")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise ModelError(f"the given bytes are not an ONNX model ({one_line(error)})") from error
    if not model.graph.node or not model.opset_import:
        raise ModelError("the given bytes are not an ONNX model (no nodes)")
    return model


def _check_model(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, DecodeError) as error:
        raise ModelError(f"the ONNX checker refuses the model: {one_line(error)}") from error


def read_graph(source: Path | bytes, *, external_data: bool = False) -> Graph:
    """Read and check a model.

    Args:
        source: a path, or the file's bytes.
        external_data: also read weights in files beside the path, if they lie in the same folder or below; bytes have no folder.

    Raises:
        ModelError: not an ONNX model, or a damaged one.
        UnsupportedError: well-formed, with something that the engine does not do; the message names it.
    """
    if isinstance(source, bytes):
        model = _parse(source)
        graph = _graph(model)
        _check_model(model)
        return graph
    model = load_model(source, external_data=external_data)
    with in_file(source):
        return _graph(model)


def _graph(model: onnx.ModelProto) -> Graph:
    model = with_own_names(model)
    if opset_of(model) < OLDEST_OPSET:
        _check_model(model)
        model = with_current_opset(model)
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UnsupportedError(
            f"opset {opset} is not handled ({OLDEST_OPSET} to {NEWEST_OPSET} are); export the model again with one of those, or "
            "use the onnxruntime backend"
        )
    if model.functions:
        raise UnsupportedError(
            f"local function {model.functions[0].name!r} is not handled; inline functions first (onnx.inliner)"
        )
    nodes = tuple(_node(proto, index) for index, proto in enumerate(model.graph.node))
    _check_size(model)
    constants = _constants(model.graph)
    inputs = tuple(_value(info) for info in model.graph.input if info.name not in constants)
    outputs = tuple(_value(info) for info in model.graph.output)
    return Graph(inputs=inputs, outputs=outputs, nodes=nodes, constants=constants, opset=opset)
