"""Operators that move or rename elements: reshapes, transposes, slices, concatenation, padding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from tdcompress.engine.constants.operands import axes_of
from tdcompress.engine.constants.shapes import reshape_target, slices, split_sizes
from tdcompress.engine.provenance import DERIVED
from tdcompress.engine.read import Node
from tdcompress.engine.steps import Concat, Pad, Permute, Shape, Take, View
from tdcompress.engine.translate.state import BatchPlace, NodeTranslator, Translation
from tdcompress.errors import ModelError, UnsupportedError

_MOST_EDGES = 256


def _view(state: Translation, node: Node, full: Sequence[int]) -> None:
    """The input under a new shape (with the batch), which must keep the batch in front."""
    if not full or full[0] != state.batch:
        _refuse_move(node)
    state.add(View(name=node.name, output=node.outputs[0], x=node.inputs[0]), full[1:])


def _reshape(state: Translation, node: Node) -> None:
    """To another shape that leaves the batch, and what lies before it, where they are; it may be joined with what follows it."""
    target, marks = state.marked_constant(node, 1)
    if target is None:
        raise ModelError(f"{node.label}: no shape")
    name, full = node.inputs[0], state.full_shape(node, 0)
    axis = state.place(name).axis
    if marks is not None and (marks.ndim != 1 or (np.delete(marks, axis)).any() or marks[axis] == DERIVED):
        state.refuse_batch(node, 1)
    shape = reshape_target(full, target.reshape(-1).tolist(), bool(node.attributes.get("allowzero", 0)))
    if len(shape) <= axis or shape[:axis] != full[:axis] or shape[axis] % state.batch:
        _refuse_move(node)
    place = BatchPlace(axis=axis, joined=shape[axis] != state.batch)
    state.add(View(name=node.name, output=node.outputs[0], x=name), place.per_image(shape, state.batch))
    state.places[node.outputs[0]] = place


def _refuse_move(node: Node) -> NoReturn:
    raise UnsupportedError(
        f"{node.label} moves the batch out of the first axis; the engine runs images one by one: use the onnxruntime backend"
    )


def _flatten(state: Translation, node: Node) -> None:
    full = (state.batch, *state.shape(node, 0))
    axis = int(node.attributes.get("axis", 1))
    axis = axis + len(full) if axis < 0 else axis
    _view(state, node, (math.prod(full[:axis]), math.prod(full[axis:])))


def _squeeze(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    axes = axes_of([None, state.constant(node, 1)], node, 1)
    if axes is None:
        if not state.batch_known or state.batch == 1:
            raise UnsupportedError(
                f"{node.label} has no axes, so it removes the batch of a single image too; name the axes, or use the onnxruntime "
                "backend"
            )
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


def _dropout(state: Translation, node: Node) -> None:
    training = state.constant(node, 2)
    if training is not None and bool(training.reshape(())):
        raise UnsupportedError(f"{node.label}: training_mode; export the model in evaluation mode")
    _identity(state, node)


def _transpose(state: Translation, node: Node) -> None:
    """Of an image: its axes in their new order, without the batch, which is remembered where it goes."""
    shape, place = state.shape(node, 0), state.place(node.inputs[0])
    rank = len(state.full_shape(node, 0))
    order = [int(axis) for axis in node.attributes.get("perm", range(rank - 1, -1, -1))]
    if sorted(order) != list(range(rank)):
        raise ModelError(f"{node.label}: perm {order} for rank {rank}")
    state.places[node.outputs[0]] = replace(place, axis=order.index(place.axis))
    if not place.joined:
        order = [axis - (axis > place.axis) for axis in order if axis != place.axis]
    step = Permute(name=node.name, output=node.outputs[0], x=node.inputs[0], order=tuple(order))
    state.add(step, [shape[axis] for axis in order])


def _concat(state: Translation, node: Node) -> None:
    if len({state.kind(node, i) for i in range(len(node.inputs))}) > 1:
        raise ModelError(f"{node.label}: its parts have different element types")
    filled = [i for i in range(len(node.inputs)) if not (state.is_constant(node, i) and not state.constants[node.inputs[i]].size)]
    parts = tuple(state.tensor(node, i) for i in filled)
    shapes = [state.shapes[part] if part in state.shapes else state.shape(node, i) for i, part in zip(filled, parts, strict=True)]
    axis = state.axis(node, int(node.attributes["axis"]), len(shapes[0]) + 1)
    if any(s[:axis] != shapes[0][:axis] or s[axis + 1 :] != shapes[0][axis + 1 :] or len(s) != len(shapes[0]) for s in shapes):
        raise ModelError(f"{node.label}: parts of {[list(s) for s in shapes]} along axis {axis + 1}")
    joined = list(shapes[0])
    joined[axis] = sum(s[axis] for s in shapes)
    state.add(Concat(name=node.name, output=node.outputs[0], parts=parts, axis=axis), joined)


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
    ends, marks = state.marked_constant(node, 2)  # x[:batch], and so all of it, is what some exporters write
    axes = state.constant(node, 3)
    if marks is not None and ((marks == DERIVED).any() or any(axes is None or axes[i] != 0 for i in np.flatnonzero(marks))):
        state.refuse_batch(node, 2)
    taken = slices(full, [None, state.constant(node, 1), ends, axes, state.constant(node, 4)], node)
    if taken[0] != slice(0, state.batch, 1):
        raise UnsupportedError(f"{node.label} takes a part of the batch; use the onnxruntime backend")
    shape = [len(range(size)[part]) for size, part in zip(full, taken, strict=True)]
    state.add(Take(name=node.name, output=node.outputs[0], x=node.inputs[0], slices=taken[1:]), shape[1:])


def _pads(state: Translation, node: Node) -> tuple[list[int], list[int]]:
    """Elements before and after each axis of an image."""
    rank = len(state.shape(node, 0)) + 1
    given, axes = state.constant(node, 1), state.constant(node, 3)
    if given is None:
        raise ModelError(f"{node.label}: no pads")
    pads = [int(pad) for pad in given.reshape(-1)]
    before, after = [0] * rank, [0] * rank
    chosen = range(rank) if axes is None else [range(rank)[int(axis)] for axis in axes.reshape(-1)]
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = pads[i], pads[len(chosen) + i]
    if before[0] or after[0]:
        raise UnsupportedError(f"{node.label} pads the batch; use the onnxruntime backend")
    return before[1:], after[1:]


def _pad(state: Translation, node: Node) -> None:
    before, after = _pads(state, node)
    mode = node.attributes.get("mode", b"constant")
    if mode in (b"reflect", b"edge"):
        _pad_from_image(state, node, before, after, mode)
        return
    if mode != b"constant":
        raise UnsupportedError(f"{node.label}: mode {mode.decode(errors='replace')}; use the onnxruntime backend")
    x, shape = node.inputs[0], state.shape(node, 0)
    if min(*before, *after, 0) < 0:  # a negative pad takes away
        part = tuple(slice(max(0, -b), size - max(0, -a), 1) for size, b, a in zip(shape, before, after, strict=True))
        x, shape = state.own_name(node, "rest"), tuple(p.stop - p.start for p in part)
        state.add(Take(name=node.name, output=x, x=node.inputs[0], slices=part), shape)
        before, after = [max(0, b) for b in before], [max(0, a) for a in after]
    value = state.constant(node, 2)
    fill = 0.0 if value is None else float(np.asarray(value).reshape(()))
    step = Pad(name=node.name, output=node.outputs[0], x=x, before=tuple(before), value=fill)
    state.add(step, [size + b + a for size, b, a in zip(shape, before, after, strict=True)])


def _pad_from_image(state: Translation, node: Node, before: Sequence[int], after: Sequence[int], mode: bytes) -> None:
    """Padding with the image's own numbers, axis by axis: its edge again and again, or what lies behind the edge, mirrored."""
    x, shape = node.inputs[0], list(state.shape(node, 0))
    for axis, (front, back) in enumerate(zip(before, after, strict=True)):
        size = shape[axis]
        if min(front, back) < 0 or (mode == b"reflect" and max(front, back) >= size) or front + back > _MOST_EDGES:
            raise UnsupportedError(f"{node.label}: pads {front} and {back} of an axis of {size}; use the onnxruntime backend")
        if not front and not back:
            continue

        def take(part: slice, axis: int = axis, x: str = x) -> str:
            name = state.own_name(node, "taken")
            slices = tuple(part if i == axis else slice(0, n, 1) for i, n in enumerate(shape))
            state.add(
                Take(name=node.name, output=name, x=x, slices=slices),
                [len(range(n)[s]) for n, s in zip(shape, slices, strict=True)],
            )
            return name

        if mode == b"edge":
            ahead = [take(slice(0, 1, 1))] * front
            behind = [take(slice(size - 1, size, 1))] * back
        else:
            ahead = [take(slice(front, 0, -1))] if front else []
            stop = size - 2 - back
            behind = [take(slice(size - 2, None if stop < 0 else stop, -1))] if back else []
        joined = state.own_name(node, "padded")
        shape[axis] += front + back
        state.add(Concat(name=node.name, output=joined, parts=(*ahead, x, *behind), axis=axis), shape)
        x = joined
    state.add(View(name=node.name, output=node.outputs[0], x=x), shape)


def _depth_to_space(state: Translation, node: Node) -> None:
    """Channels as blocks of rows and columns: (C, H, W) to (C / b^2, b H, b W)."""
    shape, block = _blocks(state, node)
    channels, height, width = shape
    if channels % (block * block):
        raise ModelError(f"{node.label}: {channels} channels in blocks of {block} x {block}")
    left = channels // (block * block)
    columns_last = node.attributes.get("mode", b"DCR") == b"CRD"
    split = (left, block, block, height, width) if columns_last else (block, block, left, height, width)
    order = (0, 3, 1, 4, 2) if columns_last else (2, 3, 0, 4, 1)
    _reordered(state, node, split, order, (left, height * block, width * block))


def _space_to_depth(state: Translation, node: Node) -> None:
    """Blocks of rows and columns as channels: (C, b H, b W) to (b^2 C, H, W)."""
    shape, block = _blocks(state, node)
    channels, height, width = shape
    if height % block or width % block:
        raise ModelError(f"{node.label}: planes of {height} x {width} in blocks of {block} x {block}")
    tall, wide = height // block, width // block
    _reordered(state, node, (channels, tall, block, wide, block), (2, 4, 0, 1, 3), (channels * block * block, tall, wide))


def _blocks(state: Translation, node: Node) -> tuple[Shape, int]:
    shape, block = state.shape(node, 0), int(node.attributes["blocksize"])
    if len(shape) != 3 or block < 1:
        raise ModelError(f"{node.label}: blocks of {block} in an input of rank {len(shape) + 1}")
    return shape, block


def _reordered(state: Translation, node: Node, split: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> None:
    """The input under the shape `split`, its axes in another order, under the shape `shape`."""
    parts, moved = state.own_name(node, "parts"), state.own_name(node, "moved")
    state.add(View(name=node.name, output=parts, x=node.inputs[0]), split)
    state.add(Permute(name=node.name, output=moved, x=parts, order=tuple(order)), [split[axis] for axis in order])
    state.add(View(name=node.name, output=node.outputs[0], x=moved), shape)


SHAPES: Mapping[str, NodeTranslator] = MappingProxyType(
    {
        "Concat": _concat,
        "DepthToSpace": _depth_to_space,
        "Dropout": _dropout,
        "Flatten": _flatten,
        "Identity": _identity,
        "Pad": _pad,
        "Reshape": _reshape,
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
