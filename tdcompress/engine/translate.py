"""ONNX nodes to steps, for given input shapes: constants are folded, shapes inferred, the batch axis is taken away.

Every kernel works on one image, so a tensor's first axis must be the batch from the input to the output. While shapes
are inferred the batch is a large prime (or the size that the model fixes): a reshape that keeps it is recognised, one
that mixes it with other axes is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants import evaluate
from tdcompress.engine.read import Array, Graph, Node
from tdcompress.engine.steps import Network, Shape
from tdcompress.engine.translate_arithmetic import ARITHMETIC
from tdcompress.engine.translate_layers import LAYERS
from tdcompress.engine.translate_shapes import SHAPES
from tdcompress.engine.translation import Translation, Translator
from tdcompress.errors import ModelError, UnsupportedError

BATCH = 1_000_003
"""Stands for an unknown batch size."""

TRANSLATORS: Mapping[str, Translator] = MappingProxyType({**LAYERS, **ARITHMETIC, **SHAPES})
"""Every operator that the engine runs."""


def _shape_constant(state: Translation, node: Node) -> Array | None:
    """Shape and Size of a computed tensor are known without computing it."""
    if node.op not in ("Shape", "Size"):
        return None
    full = (state.batch, *state.shape(node, 0))
    if node.op == "Size":
        return np.asarray(math.prod(full), np.int64)
    return np.asarray(full[node.attributes.get("start", 0) : node.attributes.get("end", len(full))], np.int64)


def translate(graph: Graph, input_shapes: Mapping[str, Shape], batch: int | None) -> Network:
    """The steps of a graph.

    Args:
        graph: a checked model.
        input_shapes: per input, its shape without the batch.
        batch: the batch size if the model fixes one.

    Raises:
        UnsupportedError: an operator, or a use of one, that the engine does not have; the message names it.
        ModelError: shapes or attributes that do not fit.
    """
    state = Translation(graph, BATCH if batch is None else batch)
    state.shapes.update(input_shapes)
    state.casts.update(value.name for value in graph.inputs if value.dtype != np.float32)
    for node in graph.nodes:
        try:
            _translate_node(state, node)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError) as error:
            raise ModelError(f"{node.label} has inputs or attributes that do not fit: {error}") from error
    for value in graph.outputs:
        if value.name in state.constants:
            raise UnsupportedError(f"output {value.name!r} is a constant; remove it from the model's outputs")
        if value.name not in state.shapes:
            raise ModelError(f"output {value.name!r} is not computed by any node")
    return Network(
        steps=tuple(state.steps),
        shapes=state.shapes,
        inputs={value.name: value.dtype for value in graph.inputs},
        outputs=tuple(value.name for value in graph.outputs),
    )


def _translate_node(state: Translation, node: Node) -> None:
    shape = _shape_constant(state, node) if node.op in ("Shape", "Size") and node.inputs[0] not in state.constants else None
    if shape is not None:
        state.constants[node.outputs[0]] = shape
    elif node.op in ("Shape", "Size"):
        array = state.constants[node.inputs[0]]
        full = np.asarray(array.shape, np.int64)[node.attributes.get("start", 0) : node.attributes.get("end", array.ndim)]
        state.constants[node.outputs[0]] = np.asarray(array.size, np.int64) if node.op == "Size" else full
    elif all(not name or name in state.constants for name in node.inputs):
        results = evaluate(node, [state.constants[name] if name else None for name in node.inputs], state.opset)
        state.constants.update({name: array for name, array in zip(node.outputs, results, strict=True) if name})
    elif node.op not in TRANSLATORS:
        raise UnsupportedError(
            f"the engine has no operator {node.op} ({node.name!r}); use the onnxruntime backend for this model"
        )
    else:
        uncast = [name for name in node.inputs if name in state.casts]
        if uncast and node.op not in ("Cast", "Transpose", "Identity"):
            raise UnsupportedError(
                f"{node.label} reads the input {uncast[0]!r}, which is not float32, without a Cast; use the onnxruntime backend"
            )
        if any(node.outputs[1:]) and node.op != "Split":
            raise UnsupportedError(
                f"{node.label}: its second output {node.outputs[1]!r} is not computed by the engine; use the onnxruntime backend"
            )
        TRANSLATORS[node.op](state, node)
