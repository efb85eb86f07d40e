"""What unpacking costs a runtime that folds constants when it loads a file, from the shapes of the decoders' results."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import helper

from tdcompress.onnxfile.encodings.base import Section

_SMALL = 4096  # elements; larger constants are data, whose values say nothing about shapes


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Of all decoders of a file.

    Attributes:
        bytes: of the results of all their nodes. onnxruntime keeps every result until the whole graph is folded.
        largest: bytes of the largest result.
    """

    bytes: int
    largest: int


def loading(sections: Iterable[Section]) -> Loading:
    """What onnxruntime allocates while it unpacks sections, beside what it needs for the dense file."""
    results = [size for section in sections for size in _results(section)]
    return Loading(bytes=sum(results), largest=max(results, default=0))


def _results(section: Section) -> list[int]:
    """Bytes of each result of a section's nodes."""
    constants = [tensor for tensor in section.initializers if math.prod(tensor.dims) <= _SMALL]
    data = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in section.initializers
        if math.prod(tensor.dims) > _SMALL
    ]
    graph = helper.make_graph(section.nodes, "decoder", data, [], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    made = {name for node in section.nodes for name in node.output}
    return [_bytes(value) for value in inferred if value.name in made]


def _bytes(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    width = int(helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    return width * math.prod(int(size.dim_value) for size in tensor.shape.dim)
