"""Operators that move elements without computing: the same operator of numpy, applied to the cells."""

from collections.abc import Callable, Mapping
from math import gcd

import numpy as np

from tdcompress.shrinking.calls import OperatorCall, Result, Rule, hold_axes, indices_taken, note_numbers, untracked
from tdcompress.shrinking.cells import Cells, Signal, blanked, expand, reshape
from tdcompress.shrinking.channels import ChannelGraph, Parameter
from tdcompress.shrinking.demands import EqualCounts, WholeSlices


def view(graph: ChannelGraph, call: OperatorCall) -> Result:
    """view, reshape, flatten, unflatten, squeeze, unsqueeze: the elements in the same order."""
    x = graph.signal(call.tensors()[0])
    if str(call.node.target).endswith(".dtype"):
        return untracked(graph, call, "it reads the bits of numbers")
    cells = reshape(x.cells, x.shape, call.shape)
    _narrows_by_slices(graph, cells, call)
    if x.tracked:
        note_numbers(graph, call)
    return Signal(shape=call.shape, cells=cells)


def _narrows_by_slices(graph: ChannelGraph, cells: Cells, call: OperatorCall) -> None:
    """A result that tells several axes apart narrows only by slices."""
    if sum(n > 1 for n in cells.shape) < 2 or not (cells["channel"] >= 0).any():
        return
    graph.demands.append(WholeSlices(ids=cells["channel"], layer=call.layer))
    graph.blocks.append(cells["channel"])


def permute(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Permute."""
    x = graph.signal(call["self"])
    return Signal(shape=call.shape, cells=x.cells.transpose([axis % len(x.shape) for axis in call["dims"]]))


def transpose(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Swap two axes."""
    x = graph.signal(call["self"])
    ndim = len(x.shape)
    if ndim < 2:
        return x
    first, second = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (ndim - 2, ndim - 1)
    return Signal(shape=call.shape, cells=x.cells.swapaxes(first, second))


def move_axes(graph: ChannelGraph, call: OperatorCall) -> Result:
    """movedim, moveaxis: some axes to other places."""
    x = graph.signal(call["self"])
    return Signal(shape=call.shape, cells=np.moveaxis(x.cells, call["source"], call["destination"]))


def expand_to(graph: ChannelGraph, call: OperatorCall) -> Result:
    """expand, expand_as: axes of length 1 repeat."""
    x = graph.signal(call["self"])
    missing = len(call.shape) - len(x.shape)
    if x.tracked:
        note_numbers(graph, call)
    return Signal(shape=call.shape, cells=x.cells.reshape((1,) * missing + x.cells.shape))


def repeat(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Repeat, tile: all of an axis so many times, also of axes before the first."""
    x = graph.signal(call["self"])
    given = call.arguments.get("repeats") or call["dims"]
    ndim = len(call.shape)
    cells = x.cells.reshape((1,) * (ndim - x.cells.ndim) + x.cells.shape)
    times = [1] * (ndim - len(given)) + list(given)
    return Signal(shape=call.shape, cells=np.tile(cells, np.where(np.array(cells.shape) > 1, times, 1)))


def repeat_interleave(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Each index of one axis so many times in turn, as keys are for several heads that read them."""
    x = graph.signal(call["self"])
    times, axis = call["repeats"], call["dim"]
    if not isinstance(times, int) or axis is None:
        return untracked(graph, call, "this form of it is not handled")
    return Signal(shape=call.shape, cells=x.cells if x.cells.shape[axis] == 1 else np.repeat(x.cells, times, axis))


def cat(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Concatenate along an axis. Parts that do not tell its indices apart are spelled out next to those that do."""
    parts = [graph.signal(item) for item in call["tensors"]]
    parts = [part for part in parts if part.shape != (0,)]  # torch accepts and ignores these
    axis = call["dim"] % len(call.shape)
    alike = all(part.cells.shape[axis] == 1 and part.shape[axis] >= 1 for part in parts)
    others = [[n for a, n in enumerate(part.cells.shape) if a != axis] for part in parts]
    target = list(np.broadcast_shapes(*others))
    target.insert(axis, 0)
    pieces = []
    for part in parts:
        cells = expand(part.cells, part.shape, [axis])
        target[axis] = cells.shape[axis]
        pieces.append(np.broadcast_to(cells, target))
    if alike and len({piece.take([0], axis).tobytes() for piece in pieces}) == 1:
        return Signal(shape=call.shape, cells=pieces[0].take([0], axis))
    if not alike or not _spatial(parts, axis):
        return Signal(shape=call.shape, cells=np.concatenate(pieces, axis))
    return _joined_along(graph, call, pieces, axis)


def _spatial(parts: list[Signal], axis: int) -> bool:
    """Whether the parts are tokens or pixels: channels lie along other axes and are the same number in each part."""
    return all(any(n > 1 for a, n in enumerate(part.cells.shape) if a != axis) for part in parts if part.tracked)


def _joined_along(graph: ChannelGraph, call: OperatorCall, pieces: list[Cells], axis: int) -> Result:
    """Tokens beside tokens: the channels of all parts are one."""
    rows = [piece.take([0], axis) for piece in pieces]
    result = rows[0].copy()
    for row in rows[1:]:
        graph.unify(result["channel"], row["channel"], f"{call.layer} lays tokens of a fixed width beside it")
        same = result["known"] & row["known"] & (result["value"] == row["value"])
        result["known"], result["value"] = same, np.where(same, result["value"], 0.0)
        result["unit"] = np.where(result["unit"] == row["unit"], result["unit"], -1)
    return Signal(shape=call.shape, cells=result)


def stack(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Concatenate along a new axis: parts stay apart along it."""
    parts = [graph.signal(item) for item in call["tensors"]]
    axis = call["dim"] % len(call.shape)
    shape = np.broadcast_shapes(*(part.cells.shape for part in parts))
    cells = np.stack([np.broadcast_to(part.cells, shape) for part in parts], axis)
    _narrows_by_slices(graph, cells, call)
    return Signal(shape=call.shape, cells=cells)


def split(graph: ChannelGraph, call: OperatorCall) -> Result:
    """chunk, split, split_with_sizes, unbind, tensor_split: pieces of one axis."""
    x = graph.signal(call["self"])
    ndim = len(x.shape)
    axis = call["dim"] % ndim
    values = call.node.meta["val"]
    unbind = values[0].dim() < ndim
    widths = [1 if unbind else int(value.shape[axis]) for value in values]
    results = []
    start = 0
    for value, width in zip(values, widths, strict=True):
        cells = x.cells if x.cells.shape[axis] == 1 else x.cells.take(range(start, start + width), axis)
        start += width
        results.append(Signal(shape=tuple(value.shape), cells=cells.squeeze(axis) if unbind else cells))
    if x.tracked and x.cells.shape[axis] > 1:
        note_numbers(graph, call)
        if unbind:
            hold_axes(graph, call, x.channel, (axis,), "takes each index by itself")
        elif len(set(widths)) == 1:
            pieces = [np.moveaxis(result.channel, axis, -1).reshape(-1, widths[0]) for result in results]
            graph.demands.append(EqualCounts(rows=np.stack(pieces, 1), layer=call.layer))
        else:
            hold_axes(graph, call, x.channel, (axis,), "splits it into parts of fixed, different sizes")
    return tuple(results)


def slice_axis(graph: ChannelGraph, call: OperatorCall) -> Result:
    """x[start:end:step] along one axis, and narrow.

    Bounds that cut channels are taken for fractions of the width (c // 2), so that the parts stay equally wide, as a chunk's do;
    if they are numbers, a trial tells. Where there are no such parts, no index of that axis may go.
    """
    x = graph.signal(call["self"])
    found = indices_taken(call.node)
    assert found is not None
    axis, taken = found
    if x.cells.shape[axis] == 1:
        return Signal(shape=call.shape, cells=x.cells)
    if len(taken) < x.shape[axis] and x.tracked:
        part = gcd(taken.start, taken.stop, x.shape[axis]) if taken.step == 1 else 1
        if part > 1 and x.cells.size == x.shape[axis] and isinstance(call["self"], Signal):
            note_numbers(graph, call)
            graph.demands.append(EqualCounts(rows=x.channel.reshape(1, -1, part), layer=call.layer))
        else:
            hold_axes(graph, call, x.channel, (axis,), "cuts a slice with fixed bounds")
    return Signal(shape=call.shape, cells=x.cells.take(taken, axis))


def select(graph: ChannelGraph, call: OperatorCall) -> Result:
    """x[i] along one axis: no index of that axis may go."""
    x = graph.signal(call["self"])
    axis = call["dim"] % len(x.shape)
    if x.cells.shape[axis] > 1 and x.tracked:
        hold_axes(graph, call, x.channel, (axis,), "takes an index by its number")
    index = 0 if x.cells.shape[axis] == 1 else call["index"] % x.shape[axis]
    return Signal(shape=call.shape, cells=x.cells.take([index], axis).squeeze(axis))


def index(graph: ChannelGraph, call: OperatorCall) -> Result:
    """x[tensor]: rows of a table along axis 0, or pixels; indexing channels keeps them."""
    x = graph.signal(call["self"])
    indices = call["indices"]
    used = [axis for axis, item in enumerate(indices) if item is not None]
    for axis in used:
        graph.pin(graph.signal(indices[axis]).channel, f"{call.layer} reads it as places")
    if used == [0] and isinstance(call["self"], Parameter):  # a table: its rows are alike
        first = x.cells.take([0], 0)
        graph.unify(x.channel, first["channel"], call.layer)
        x = Signal(shape=x.shape, cells=blanked(first, value=True))
    if len(used) != 1 or x.cells.shape[used[0]] > 1:
        return untracked(graph, call, "it picks channels by number")
    axis = used[0]
    extra = len(call.shape) - len(x.shape)
    shape = x.cells.shape[:axis] + (1,) * (extra + 1) + x.cells.shape[axis + 1 :]
    return Signal(shape=call.shape, cells=x.cells.reshape(shape))


def index_select(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Some indices of an axis of pixels or tokens; of channels all stay."""
    x = graph.signal(call["self"])
    if x.cells.shape[call["dim"]] > 1:
        return untracked(graph, call, "it picks channels by number")
    graph.pin(graph.signal(call["index"]).channel, f"{call.layer} reads it as places")
    return Signal(shape=call.shape, cells=x.cells)


def unmoved(reorder: Callable[[Cells, OperatorCall], Cells]) -> Rule:
    """A rule for roll and flip, which reorder axes; where those are channels, they stay."""

    def rule(graph: ChannelGraph, call: OperatorCall) -> Result:
        x = graph.signal(call["self"])
        dims = call["dims"] or range(len(x.shape))
        if any(x.cells.shape[axis] > 1 for axis in dims):
            return untracked(graph, call, "it moves channels by a fixed distance")
        return Signal(shape=x.shape, cells=reorder(x.cells, call))

    return rule


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"), view
    ),
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "adjoint"), transpose),
    **dict.fromkeys(("movedim", "moveaxis"), move_axes),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand_to),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "unbind", "tensor_split"), split),
    **dict.fromkeys(("slice", "narrow"), slice_axis),
    "select": select,
    "index": index,
    "index_select": index_select,
    **dict.fromkeys(("roll", "flip"), unmoved(lambda cells, call: cells)),
}
