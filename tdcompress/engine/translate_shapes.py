"""Operators that move or rename elements: reshapes, transposes, slices, concatenation, padding, casts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx

from tdcompress.engine.constants import axes_of, reshape_target, slices, split_sizes
from tdcompress.engine.read import Node
from tdcompress.engine.steps import Concat, Pad, Permute, Take, View
from tdcompress.engine.translation import Translation, Translator
from tdcompress.errors import ModelError, UnsupportedError


def _view(state: Translation, node: Node, full: Sequence[int]) -> None:
    """The input under a new shape (with the batch), which must keep the batch in front."""
    if not full or full[0] != state.batch:
        raise UnsupportedError(
            f"{node.label} moves the batch out of the first axis; the engine runs images one by one: use the onnxruntime backend"
        )
    state.add(View(name=node.name, output=node.outputs[0], x=node.inputs[0]), full[1:])


def _reshape(state: Translation, node: Node) -> None:
    target = state.constant(node, 1)
    if target is None:
        raise ModelError(f"{node.label}: no shape")
    full = (state.batch, *state.shape(node, 0))
    _view(state, node, reshape_target(full, target.reshape(-1).tolist(), bool(node.attributes.get("allowzero", 0))))


def _flatten(state: Translation, node: Node) -> None:
    full = (state.batch, *state.shape(node, 0))
    axis = int(node.attributes.get("axis", 1))
    axis = axis + len(full) if axis < 0 else axis
    _view(state, node, (math.prod(full[:axis]), math.prod(full[axis:])))


def _squeeze(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    axes = axes_of([None, state.constant(node, 1)], node, 1)
    if axes is None:
        gone = {i for i, size in enumerate(shape) if size == 1}
    else:
        gone = {state.axis(node, axis, len(shape) + 1) for axis in axes}
    if any(shape[i] != 1 for i in gone):
        raise ModelError(f"{node.label}: an axis that is not 1 in {list(shape)}")
    _view(state, node, [state.batch, *(size for i, size in enumerate(shape) if i not in gone)])


def _unsqueeze(state: Translation, node: Node) -> None:
    full: list[int] = [state.batch, *state.shape(node, 0)]
    axes = axes_of([None, state.constant(node, 1)], node, 1) or []
    rank = len(full) + len(axes)
    for axis in sorted(range(rank)[axis] for axis in axes):
        full.insert(axis, 1)
    _view(state, node, full)


def _identity(state: Translation, node: Node) -> None:
    state.add(View(name=node.name, output=node.outputs[0], x=node.inputs[0]), state.shape(node, 0))
    if node.inputs[0] in state.casts:
        state.casts.add(node.outputs[0])


def _dropout(state: Translation, node: Node) -> None:
    training = state.constant(node, 2)
    if training is not None and bool(training.reshape(())):
        raise UnsupportedError(f"{node.label}: training_mode; export the model in evaluation mode")
    _identity(state, node)


def _cast(state: Translation, node: Node) -> None:
    to = int(node.attributes["to"])
    if to != onnx.TensorProto.FLOAT:
        raise UnsupportedError(
            f"{node.label} to {onnx.TensorProto.DataType.Name(to)}; the engine computes in float32: use the onnxruntime backend"
        )
    state.add(View(name=node.name, output=node.outputs[0], x=node.inputs[0]), state.shape(node, 0))


def _transpose(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    order = list(node.attributes.get("perm", range(len(shape), -1, -1)))
    if sorted(order) != list(range(len(shape) + 1)):
        raise ModelError(f"{node.label}: perm {order} for rank {len(shape) + 1}")
    if order[0] != 0:
        raise UnsupportedError(
            f"{node.label} moves the batch out of the first axis; the engine runs images one by one: use the onnxruntime backend"
        )
    image_order = tuple(axis - 1 for axis in order[1:])
    step = Permute(name=node.name, output=node.outputs[0], x=node.inputs[0], order=image_order)
    state.add(step, [shape[axis] for axis in image_order])
    if node.inputs[0] in state.casts:
        state.casts.add(node.outputs[0])


def _concat(state: Translation, node: Node) -> None:
    shapes = [state.shape(node, i) for i in range(len(node.inputs))]
    axis = state.axis(node, int(node.attributes["axis"]), len(shapes[0]) + 1)
    if any(s[:axis] != shapes[0][:axis] or s[axis + 1 :] != shapes[0][axis + 1 :] or len(s) != len(shapes[0]) for s in shapes):
        raise ModelError(f"{node.label}: parts of {[list(s) for s in shapes]} along axis {axis + 1}")
    full = list(shapes[0])
    full[axis] = sum(s[axis] for s in shapes)
    state.add(Concat(name=node.name, output=node.outputs[0], parts=node.inputs, axis=axis), full)


def _split(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    axis = state.axis(node, int(node.attributes.get("axis", 0)), len(shape) + 1)
    start = 0
    for output, size in zip(node.outputs, split_sizes(shape[axis], [None, state.constant(node, 1)], node), strict=True):
        part = [slice(0, n, 1) for n in shape]
        part[axis] = slice(start, start + size, 1)
        start += size
        state.add(
            Take(name=node.name, output=output, x=node.inputs[0], slices=tuple(part)),
            [size if i == axis else n for i, n in enumerate(shape)],
        )


def _slice(state: Translation, node: Node) -> None:
    full = (state.batch, *state.shape(node, 0))
    inputs = [None, *(state.constant(node, i) for i in range(1, 5))]
    taken = slices(full, inputs, node)
    if taken[0] != slice(0, state.batch, 1):
        raise UnsupportedError(f"{node.label} takes a part of the batch; use the onnxruntime backend")
    if any(part.step < 0 for part in taken):
        raise UnsupportedError(f"{node.label}: a negative step; use the onnxruntime backend")
    shape = [len(range(size)[part]) for size, part in zip(full, taken, strict=True)]
    state.add(Take(name=node.name, output=node.outputs[0], x=node.inputs[0], slices=taken[1:]), shape[1:])


def _pad(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    rank = len(shape) + 1
    if node.attributes.get("mode", b"constant") != b"constant":
        raise UnsupportedError(
            f"{node.label}: mode {node.attributes['mode'].decode(errors='replace')}; use the onnxruntime backend"
        )
    given = state.constant(node, 1)
    if given is None:
        raise ModelError(f"{node.label}: no pads")
    pads, value, axes = [int(pad) for pad in given.reshape(-1)], state.constant(node, 2), state.constant(node, 3)
    before, after = [0] * rank, [0] * rank
    chosen = range(rank) if axes is None else [range(rank)[int(axis)] for axis in axes.reshape(-1)]
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = pads[i], pads[len(chosen) + i]
    if before[0] or after[0]:
        raise UnsupportedError(f"{node.label} pads the batch; use the onnxruntime backend")
    if min(pads, default=0) < 0:
        raise UnsupportedError(f"{node.label}: negative pads; use the onnxruntime backend")
    fill = 0.0 if value is None else float(np.asarray(value).reshape(()))
    step = Pad(name=node.name, output=node.outputs[0], x=node.inputs[0], before=tuple(before[1:]), value=fill)
    state.add(step, [size + b + a for size, b, a in zip(shape, before[1:], after[1:], strict=True)])


SHAPES: Mapping[str, Translator] = MappingProxyType(
    {
        "Cast": _cast,
        "Concat": _concat,
        "Dropout": _dropout,
        "Flatten": _flatten,
        "Identity": _identity,
        "Pad": _pad,
        "Reshape": _reshape,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
