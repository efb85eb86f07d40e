"""ONNX nodes to steps, for given input shapes: constants are folded, shapes inferred, the batch axis is taken away.

Every kernel works on one image, so a tensor's first axis must be the batch from the input to the output. While shapes are
inferred, the batch size is a large prime, or the size that the model fixes. So a reshape that keeps it is recognised. One that
mixes it with other axes is refused, and so is arithmetic with it (provenance.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from tdcompress.engine.constants.evaluate import EVALUATORS, evaluate
from tdcompress.engine.provenance import DERIVED, IS_BATCH, deciding_input, trace_marks
from tdcompress.engine.read import Array, Graph, Node
from tdcompress.engine.steps import ConstantTensor, Network, Shape, View
from tdcompress.engine.translate.arithmetic import ARITHMETIC
from tdcompress.engine.translate.follow import Followed
from tdcompress.engine.translate.layers import LAYERS
from tdcompress.engine.translate.logic import LOGIC
from tdcompress.engine.translate.rows import ROWS
from tdcompress.engine.translate.shapes import SHAPES
from tdcompress.engine.translate.state import FIRST, NodeTranslator, Translation
from tdcompress.errors import ModelError, UnsupportedError, one_line

TRANSLATORS: Mapping[str, NodeTranslator] = MappingProxyType({**LAYERS, **ARITHMETIC, **LOGIC, **ROWS, **SHAPES})
"""Every operator that the engine runs, but If, which is settled when a model is loaded."""

MOVING = frozenset({*SHAPES, "Expand", "Tile"}) - {"Pad"}
"""What gives the numbers of its first input in other places, so that their element type stays."""

ANY_KIND = MOVING | LOGIC.keys() | {"Gather"}
"""What also takes integers and bools; arithmetic does not, as float32 does not hold every integer."""

MOVES_BATCH = frozenset({"MatMul", "Reshape", "Transpose"})
"""What takes tensors whose batch is not the first axis, and says where it is afterwards."""

ELEMENTWISE = (ARITHMETIC.keys() - {name for name in ARITHMETIC if name.startswith("Reduce")} - {"PRelu"}) | (
    LOGIC.keys() | {"Dropout", "Identity"}
)
"""What leaves the batch where it is, and does not ask where that is."""


def _shape_of(state: Translation, node: Node) -> None:
    """Shape and Size are known without computing the tensor."""
    name = node.inputs[0]
    full = state.constants[name].shape if name in state.constants else state.full_shape(node, 0)
    of_images = not state.batch_known and (name not in state.constants or name in state.empty)
    marks = state.place(name).marks(len(full)) if of_images else None
    part = slice(node.attributes.get("start", 0), node.attributes.get("end", len(full)))
    if node.op == "Shape":
        state.keep(node.outputs[0], np.asarray(full[part], np.int64), None if marks is None else marks[part])
    else:
        whole = None if marks is None else np.asarray(IS_BATCH if math.prod(full[1:]) == 1 else DERIVED, np.int8)
        state.keep(node.outputs[0], np.asarray(math.prod(full), np.int64), whole)
    if state.followed is not None and (name not in state.constants or name in state.empty):
        state.followed.shape_of(node.outputs[0], state.constants[node.outputs[0]])


def _fold(state: Translation, node: Node) -> None:
    """A node whose inputs are all constants."""
    inputs = [state.constants[name] if name else None for name in node.inputs]
    if state.followed is not None:
        state.followed.folded(node, whole=all(array is None or array.dtype.kind in "iu" for array in inputs))
    if not state.empty.isdisjoint(node.inputs):
        _fold_empty(state, node, inputs)
        return
    if not any(name in state.marks for name in node.inputs):
        for name, array in zip(node.outputs, evaluate(node, inputs, state.opset), strict=True):
            if name:
                state.keep(name, array)
        return
    marks = [state.marks.get(name) for name in node.inputs]
    if node.op == "ConstantOfShape" or (node.op == "Expand" and marks[1] is not None):
        _same_for_every_image(state, node)
        return
    deciding = deciding_input(node, marks)
    if deciding is not None:
        state.refuse_batch(node, deciding)
    results = evaluate(node, inputs, state.opset)
    found = trace_marks(
        node, inputs, marks, results, batch=state.batch, evaluate=lambda node, inputs: evaluate(node, inputs, state.opset)
    )
    for name, array, mark in zip(node.outputs, results, found, strict=True):
        if name:
            state.keep(name, array, mark)


def _fold_empty(state: Translation, node: Node, inputs: Sequence[Array | None]) -> None:
    """What has no elements because an input has none; a number for each image, as a sum of none would be, is refused."""
    found = evaluate(node, inputs, state.opset) if node.op in MOVING | ELEMENTWISE | {"Gather"} else ()
    if any(array.shape[:1] != (state.batch,) for array in found) or not found:
        raise UnsupportedError(
            f"{node.label} makes numbers out of an input with an axis of size 0; use the onnxruntime backend for this model"
        )
    for name, array in zip(node.outputs, found, strict=True):
        if name:
            state.keep(name, array)
            state.empty.add(name)


def _same_for_every_image(state: Translation, node: Node) -> None:
    """A constant expanded to the batch: a computed tensor of one image."""
    where = 0 if node.op == "ConstantOfShape" else 1
    if state.followed is not None:
        state.followed.require_fixed(node.inputs[where])
    target, marks = state.marked_constant(node, where)
    if target is None or marks is None or target.ndim != 1 or marks[0] != IS_BATCH or marks[1:].any():
        state.refuse_batch(node, where)
    inputs = [target[1:]]
    if node.op == "Expand":
        data = state.constant(node, 0)
        if data is None or data.ndim > len(target) or (data.ndim == len(target) and data.shape[0] != 1):
            state.refuse_batch(node, where)
        inputs.insert(0, data[0] if data.ndim == len(target) else data)
    value = evaluate(node, inputs, state.opset)[0]
    if value.dtype != np.float32:
        state.refuse_batch(node, where)
    state.add(ConstantTensor(name=node.name, output=node.outputs[0], value=value), value.shape)


def translate(graph: Graph, input_shapes: Mapping[str, Shape], batch: int | None, followed: Followed | None = None) -> Network:
    """The steps of a graph.

    Args:
        graph: a checked model.
        input_shapes: per input, its shape without the batch. One with an axis of size 0 is a constant without elements: a past
            of which nothing was said yet.
        batch: the batch size if the model fixes one.
        followed: is told what depends on lengths.

    Raises:
        LengthError: with `followed`, a program for every length cannot be made.
        UnsupportedError: an operator, or a use of one, that the engine does not have; the message names it.
        ModelError: shapes or attributes that do not fit.
    """
    state = Translation(graph, batch, followed)
    state.shapes.update(input_shapes)
    state.kinds.update({value.name: value.dtype for value in graph.inputs if value.dtype != np.float32})
    for value in graph.inputs:
        if 0 in input_shapes[value.name]:
            state.keep(value.name, np.empty((state.batch, *input_shapes[value.name]), value.dtype))
            state.empty.add(value.name)
    translate_nodes(state, graph.nodes)
    for value in graph.outputs:
        if value.name in state.constants:
            raise UnsupportedError(f"output {value.name!r} is a constant; remove it from the model's outputs")
        if value.name not in state.shapes:
            raise ModelError(f"output {value.name!r} is not computed by any node")
        if state.place(value.name) != FIRST:
            raise UnsupportedError(
                f"output {value.name!r} does not have the batch as its first axis; use the onnxruntime backend for this model"
            )
        if value.dtype != np.float32 or value.name in state.kinds:
            raise UnsupportedError(
                f"output {value.name!r} is {state.kinds.get(value.name, value.dtype)}; the engine gives float32: use the "
                "onnxruntime backend for this model"
            )
    return Network(
        steps=tuple(state.steps),
        shapes=state.shapes,
        inputs={value.name: value.dtype for value in graph.inputs},
        outputs=tuple(dict.fromkeys(value.name for value in graph.outputs)),
    )


def with_folded_constants(graph: Graph) -> Graph:
    """The same model without what is the same for all inputs: for one that is planned again and again.

    Raises:
        ModelError, UnsupportedError: as `translate`.
    """
    state = Translation(graph, None)
    rest: list[Node] = []
    for node in graph.nodes:
        if node.op in EVALUATORS and all(not name or name in state.constants for name in node.inputs):
            _fold(state, node)
        else:
            rest.append(node)
    read = {*_names_read(rest), *(value.name for value in graph.outputs)}
    constants = {name: array for name, array in state.constants.items() if name in read}
    return replace(graph, nodes=tuple(rest), constants=constants, derived={})


def _names_read(nodes: Sequence[Node]) -> set[str]:
    """By nodes, and in their branches."""
    inside = (
        names for node in nodes for branch in node.branches.values() for names in (_names_read(branch.nodes), branch.outputs)
    )
    return {name for node in nodes for name in node.inputs}.union(*inside)


def translate_nodes(state: Translation, nodes: Sequence[Node]) -> None:
    """Fold or translate nodes in their order.

    Raises:
        ModelError, UnsupportedError: as `translate`.
    """
    for node in nodes:
        try:
            translate_node(state, node)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError) as error:
            raise ModelError(f"{node.label} has inputs or attributes that do not fit: {one_line(error)}") from error


def translate_node(state: Translation, node: Node) -> None:
    """Fold a node, or append its steps.

    Raises:
        UnsupportedError: no such operator here, or not on these numbers, or not with a second output.
    """
    if node.op in ("Shape", "Size"):
        _shape_of(state, node)
    elif node.op == "If":
        _choose(state, node)
    elif all(not name or name in state.constants for name in node.inputs):
        _fold(state, node)
    elif node.op not in TRANSLATORS:
        raise UnsupportedError(
            f"the engine has no operator {node.op} ({node.name!r}); use the onnxruntime backend for this model"
        )
    else:
        other = [name for name in node.inputs if name in state.kinds]
        if other and node.op not in ANY_KIND:
            raise UnsupportedError(
                f"{node.label} computes with {other[0]!r}, which is {state.kinds[other[0]]}; the engine computes in float32: use "
                "the onnxruntime backend"
            )
        if any(node.outputs[1:]) and node.op != "Split":
            raise UnsupportedError(
                f"{node.label}: its second output {node.outputs[1]!r} is not computed by the engine; use the onnxruntime backend"
            )
        places = {state.place(name) for name in node.inputs if name and name not in state.constants}
        if places != {FIRST} and node.op not in MOVES_BATCH and (node.op not in ELEMENTWISE or len(places) > 1):
            raise UnsupportedError(
                f"{node.label}: the batch is not the first axis of what it reads; the engine runs images one by one: use the "
                "onnxruntime backend"
            )
        TRANSLATORS[node.op](state, node)
        if state.followed is not None:
            names = [name for name in (*node.inputs, *node.outputs) if name in state.shapes]
            looks_up = node.op == "Gather" and node.inputs[1] not in state.constants
            state.followed.computed(node, tuple(state.shapes[name] for name in names), looks_up=looks_up)
        if places != {FIRST} and node.op in ELEMENTWISE:
            state.places.update(dict.fromkeys(node.outputs, places.pop()))
        if other and node.op in MOVING:
            state.kinds.update(dict.fromkeys(node.outputs, state.kinds[other[0]]))


def _choose(state: Translation, node: Node) -> None:
    """If whose condition is known once shapes are: the branch that is taken stands in its place."""
    if not state.is_constant(node, 0):
        raise UnsupportedError(
            f"{node.label}: its condition is computed from the inputs; the engine's programs have no branches: use the "
            "onnxruntime backend"
        )
    condition = state.constant(node, 0)
    if state.followed is not None:
        state.followed.require_fixed(node.inputs[0])
    branch = node.branches["then_branch" if np.asarray(condition).reshape(()) else "else_branch"]
    scope = {name: state.own_name(node, name) for name in (*branch.constants, *_outputs_of(branch.nodes))}
    for name, array in branch.constants.items():
        state.keep(scope[name], array)
    translate_nodes(state, [_renamed(inner, scope) for inner in branch.nodes])
    for outer, inner in zip(node.outputs, branch.outputs, strict=True):
        name = scope.get(inner, inner)
        if state.followed is not None:
            state.followed.require_fixed(name)
        if name in state.constants:
            state.keep(outer, state.constants[name], state.marks.get(name))
        elif name in state.shapes:
            state.add(View(name=node.name, output=outer, x=name), state.shapes[name])
            if name in state.places:
                state.places[outer] = state.places[name]
            if name in state.kinds:
                state.kinds[outer] = state.kinds[name]
        else:
            raise ModelError(f"{node.label}: its branch gives {inner!r}, which nothing computes")


def _outputs_of(nodes: Sequence[Node]) -> list[str]:
    return [name for node in nodes for name in node.outputs if name]


def _renamed(node: Node, scope: Mapping[str, str]) -> Node:
    """A node of a branch where its values have names of their own; so in the branches below it."""
    inputs, outputs = (tuple(scope.get(name, name) for name in names) for names in (node.inputs, node.outputs))
    branches = {
        kind: replace(
            branch,
            nodes=tuple(_renamed(inner, scope) for inner in branch.nodes),
            outputs=tuple(scope.get(name, name) for name in branch.outputs),
        )
        for kind, branch in node.branches.items()
    }
    return replace(node, inputs=inputs, outputs=outputs, branches=branches)
