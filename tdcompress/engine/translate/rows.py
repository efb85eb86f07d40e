"""Operators that take rows from other places: Gather, Resize, Expand, Tile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tdcompress.engine.provenance import DERIVED, IS_BATCH
from tdcompress.engine.read import Array, Node
from tdcompress.engine.resize import COORDINATES, ROUNDINGS, Axis, AxisTaps, cubic_taps, linear_taps, nearest_taps
from tdcompress.engine.steps import Lookup, Resample, Shape, Take, View
from tdcompress.engine.translate.state import NodeTranslator, Translation
from tdcompress.errors import ModelError, UnsupportedError

_MOST_ROWS = 1 << 24
"""Of a table: numbers of rows are float32 while they are computed."""


def _gather(state: Translation, node: Node) -> None:
    if not state.is_constant(node, 1):
        _look_up(state, node)
        return
    shape = state.shape(node, 0)
    axis = state.axis(node, int(node.attributes.get("axis", 0)), len(shape) + 1)
    chosen, size = np.asarray(state.constant(node, 1)), shape[axis]
    if chosen.size and not (-size <= chosen.min() and chosen.max() < size):
        raise ModelError(f"{node.label}: an index outside an axis of {size}")
    flat = np.where(chosen < 0, chosen + size, chosen).reshape(-1)
    taken = node.outputs[0] if chosen.ndim == 1 else state.own_name(node, "taken")
    between = [*shape[:axis], len(flat), *shape[axis + 1 :]]
    if len(flat) == 1:
        part = tuple(slice(int(flat[0]), int(flat[0]) + 1, 1) if i == axis else slice(0, n, 1) for i, n in enumerate(shape))
        state.add(Take(name=node.name, output=taken, x=node.inputs[0], slices=part), between)
    else:
        step = Resample(name=node.name, output=taken, x=node.inputs[0], axis=axis, indices=flat.astype(np.int32))
        state.add(step, between)
    if chosen.ndim != 1:
        state.add(View(name=node.name, output=node.outputs[0], x=taken), [*shape[:axis], *chosen.shape, *shape[axis + 1 :]])
    if node.inputs[0] in state.kinds:
        state.kinds[node.outputs[0]] = state.kinds[node.inputs[0]]


def _look_up(state: Translation, node: Node) -> None:
    """Rows of a constant table: an embedding."""
    if not state.is_constant(node, 0):
        raise UnsupportedError(f"{node.label}: both its data and its indices are computed; use the onnxruntime backend")
    table, shape = state.constant(node, 0), state.shape(node, 1)
    if table is None or table.ndim == 0 or int(node.attributes.get("axis", 0)) % table.ndim != 0:
        raise UnsupportedError(f"{node.label}: computed indices of another axis than the first; use the onnxruntime backend")
    floats = state.floats(node, 0)
    if len(table) > _MOST_ROWS or not table.size or not np.array_equal(floats.astype(table.dtype), table, equal_nan=True):
        raise UnsupportedError(
            f"{node.label}: a table of {list(table.shape)} and {table.dtype} is not one that float32 holds; use the "
            "onnxruntime backend"
        )
    rows = floats if floats.ndim == 2 else floats.reshape(len(table), -1)
    state.add(Lookup(name=node.name, output=node.outputs[0], x=node.inputs[1], table=rows), (*shape, *table.shape[1:]))
    if table.dtype != np.float32:
        state.kinds[node.outputs[0]] = table.dtype


def _expand(state: Translation, node: Node) -> None:
    shape = state.shape(node, 0)
    target, marks = state.marked_constant(node, 1)
    if target is None or target.ndim != 1:
        raise ModelError(f"{node.label}: no shape")
    names_batch = len(target) > len(shape)
    if marks is not None and (not names_batch or marks[0] != IS_BATCH or marks[1:].any()):
        state.refuse_batch(node, 1)
    batch = int(target[0]) if names_batch else 1
    if len(target) > len(shape) + 1 or batch not in (1, state.batch):
        raise UnsupportedError(f"{node.label} to {target.tolist()} reaches the batch axis; use the onnxruntime backend")
    sizes = target[1:] if names_batch else target
    wanted = np.broadcast_shapes(shape, tuple(int(size) for size in sizes))
    _spread(state, node, shape, [np.zeros(n, np.int32) if n != old else None for n, old in zip(wanted, shape, strict=True)])


def _tile(state: Translation, node: Node) -> None:
    shape, repeats = state.shape(node, 0), np.asarray(state.constant(node, 1)).reshape(-1)
    if len(repeats) != len(shape) + 1 or (repeats < 0).any():
        raise ModelError(f"{node.label}: repeats {repeats.tolist()} for rank {len(shape) + 1}")
    if repeats[0] != 1:
        raise UnsupportedError(f"{node.label} repeats the batch; use the onnxruntime backend")
    _spread(
        state,
        node,
        shape,
        [
            np.tile(np.arange(n, dtype=np.int32), count) if count != 1 else None
            for n, count in zip(shape, repeats[1:], strict=True)
        ],
    )


def _spread(state: Translation, node: Node, shape: Shape, chosen: Sequence[Array | None]) -> None:
    """The input with the places `chosen` of each axis; None: all of it."""
    _resampled(state, node, shape, {axis: (indices, None) for axis, indices in enumerate(chosen) if indices is not None})


def _resampled(state: Translation, node: Node, shape: Shape, taps: Mapping[int, AxisTaps]) -> None:
    """Axis by axis, first those that become smaller."""
    x, sizes = node.inputs[0], list(shape)
    if math.prod(len(indices) for indices, _ in taps.values()) > _MOST_ROWS:
        raise UnsupportedError(f"{node.label}: axes of {[len(indices) for indices, _ in taps.values()]} are too large")
    order = sorted(taps, key=lambda axis: len(taps[axis][0]) / sizes[axis])
    for axis in order:
        indices, weights = taps[axis]
        name = state.own_name(node, "part")
        sizes[axis] = len(indices)
        state.add(Resample(name=node.name, output=name, x=x, axis=axis, indices=indices, weights=weights), sizes)
        x = name
    state.add(View(name=node.name, output=node.outputs[0], x=x), sizes)


def _text(node: Node, name: str, default: str) -> str:
    value = node.attributes.get(name, default)
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _resize(state: Translation, node: Node) -> None:
    """Axis by axis; every mode but antialiasing, regions of interest and a kept aspect ratio."""
    shape = state.shape(node, 0)
    mode = _text(node, "mode", "nearest")
    coordinates = _text(node, "coordinate_transformation_mode", "half_pixel")
    rounding = _text(node, "nearest_mode", "round_prefer_floor")
    unusual = node.attributes.get("antialias", 0) or _text(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    if mode not in ("nearest", "linear", "cubic") or coordinates not in COORDINATES or rounding not in ROUNDINGS or unusual:
        raise UnsupportedError(
            f"{node.label}: mode {mode}, {coordinates}, {rounding}, antialiased or not stretched is not handled; use the "
            "onnxruntime backend"
        )
    taps: dict[int, AxisTaps] = {}
    for number, axis in enumerate(_resized_axes(state, node, shape, coordinates)):
        if axis is None:
            continue
        if axis.resized < 1:
            raise ModelError(f"{node.label}: an axis of {axis.size} becomes one of {axis.resized}")
        if mode == "nearest":
            taps[number] = nearest_taps(axis, coordinates, rounding)
        elif mode == "linear":
            taps[number] = linear_taps(axis, coordinates)
        else:
            a, outside = float(node.attributes.get("cubic_coeff_a", -0.75)), bool(node.attributes.get("exclude_outside", 0))
            taps[number] = cubic_taps(axis, coordinates, a, exclude_outside=outside)
    _resampled(state, node, shape, taps)


def _resized_axes(state: Translation, node: Node, shape: Shape, coordinates: str) -> list[Axis | None]:
    """Per axis of an image: what becomes of it; None where it stays."""
    full = (state.batch, *shape)
    axes = [range(len(full))[int(axis)] for axis in node.attributes.get("axes", range(len(full)))]
    scales = state.constant(node, 2)
    sizes, marks = state.marked_constant(node, 3)
    if marks is not None and ((marks == DERIVED).any() or any(axes[i] != 0 for i in np.flatnonzero(marks))):
        state.refuse_batch(node, 3)
    found: list[Axis | None] = [None] * len(full)
    given = sizes if sizes is not None and sizes.size else scales
    if given is None or given.size != len(axes):
        raise ModelError(f"{node.label}: neither scales nor sizes for {len(axes)} axes")
    for axis, value in zip(axes, given.reshape(-1), strict=True):
        size = full[axis]
        resized = int(value) if given is sizes else math.floor(np.float32(size) * np.float32(value))
        scale = np.float32(resized) / np.float32(size) if given is sizes else np.float32(value)
        if coordinates == "align_corners" and given is scales and np.float32(size) * scale != resized:
            raise UnsupportedError(
                f"{node.label}: align_corners with {size} x {scale:g}, which is no whole number: runtimes disagree what that "
                "means; give sizes instead of scales, or use the onnxruntime backend"
            )
        if axis and (resized != size or scale != 1):
            found[axis] = Axis(size=size, resized=resized, scale=scale)
        elif resized != size and not (marks is not None and axis == 0):
            raise UnsupportedError(f"{node.label} resizes the batch; use the onnxruntime backend")
    return found[1:]


ROWS: Mapping[str, NodeTranslator] = MappingProxyType({"Expand": _expand, "Gather": _gather, "Resize": _resize, "Tile": _tile})
