"""Models as small ONNX graphs, and numbers for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 numbers of the standard normal distribution."""
    return generator.standard_normal(shape).astype(np.float32)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
) -> bytes:
    """A model whose inputs have one element type, and that may use onnxruntime's own operators."""
    typed = {name: (dtype, shape) for name, shape in inputs.items()}
    return graph_model(nodes, typed, constants, outputs, opset=opset, domains=("com.microsoft",))


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    constants: Mapping[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = 18,
    ir_version: int = 9,
    domains: Sequence[str] = (),
) -> bytes:
    """Inputs: name -> (element type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version))
    for value in model.graph.output:
        value.type.tensor_type.shape.SetInParent()  # known to shape inference or not, the field must be there
    return model.SerializeToString()
