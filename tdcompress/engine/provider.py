"""A plan as an ONNX file, for onnxruntime with the engine's library as its plugin: one node with the plan inside.

The operator is EPContext of the domain com.microsoft, which onnxruntime has for models that were compiled before (its
documentation: "EPContext design"). csrc/provider.c runs such nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from tdcompress.engine.planfile import VERSION, Port
from tdcompress.onnxfile.listed_names import with_own_names

PROVIDER_NAME = "TdcompressExecutionProvider"
"""How onnxruntime calls the plugin, and what a file's node names as its source: csrc/provider.h has it too."""


def source_model(source: Path | bytes) -> onnx.ModelProto:
    """What a model says of itself, without weights that lie in other files. It has been read and checked before."""
    if isinstance(source, bytes):
        return with_own_names(onnx.load_model_from_string(source))
    return with_own_names(onnx.load_model(source, load_external_data=False))


def context_model(
    model: onnx.ModelProto, plan: bytes, *, isa: str, inputs: Sequence[Port], outputs: Sequence[Port]
) -> onnx.ModelProto:
    """A model with a plan in place of its nodes and weights. Names, element types, batch, metadata and texts stay.

    Args:
        model: what the plan was made of.
        plan: the plan file's bytes.
        isa: the instruction set that it is for.
        inputs: of the plan, in the model's order.
        outputs: of the plan.
    """
    node = helper.make_node(
        "EPContext",
        [port.name for port in inputs],
        [port.name for port in outputs],
        name="compiled",
        domain="com.microsoft",
        source=PROVIDER_NAME,
        main_context=1,
        embed_mode=1,
        ep_sdk_version=str(VERSION),
        hardware_architecture=isa,
        ep_cache_context=plan,
    )
    compiled = onnx.ModelProto()
    compiled.CopyFrom(model)
    graph = compiled.graph
    for kept in (graph.node, graph.initializer, graph.sparse_initializer, graph.value_info, compiled.functions):
        del kept[:]
    graph.node.append(node)
    given = {info.name: info for info in (*model.graph.input, *model.graph.output)}
    batch = given[inputs[0].name].type.tensor_type.shape.dim[0]
    ports = {port.name: port for port in (*inputs, *outputs)}
    for values in (graph.input, graph.output):
        names = [info.name for info in values if info.name in ports]  # old files list their weights among the inputs
        del values[:]
        values.extend(_with_sizes(given[name], batch, ports[name]) for name in names)
    if all(entry.domain != "com.microsoft" for entry in compiled.opset_import):
        compiled.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return compiled


def _with_sizes(info: onnx.ValueInfoProto, batch: onnx.TensorShapeProto.Dimension, port: Port) -> onnx.ValueInfoProto:
    """An input or output with the sizes of the plan behind the batch."""
    sized = onnx.ValueInfoProto()
    sized.CopyFrom(info)
    dims = sized.type.tensor_type.shape.dim
    del dims[:]
    dims.add().CopyFrom(batch)
    for size in port.shape:
        dims.add().dim_value = size
    return sized
