"""Pooling, resizing and reductions: channels pass, pixels change."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from tdcompress.shrink.cells import Cells, Signal, channel_vector, forget
from tdcompress.shrink.channels import ChannelGraph, constant
from tdcompress.shrink.rules import Call, Result, Rule


def spatial(graph: ChannelGraph, call: Call, *, dims: int, keeps_constants: bool = True) -> Result:
    """An operator that mixes the last ``dims`` axes within each channel.

    Args:
        graph: takes the unions.
        call: the operator; its first tensor is the input.
        dims: number of mixed axes.
        keeps_constants: a constant channel stays that constant (a zero stays zero in any case).
    """
    x = graph.signal(call.tensors()[0])
    cells = _without_axes(graph, x.cells, dims, call)
    if not keeps_constants:
        cells = constant(cells, cells["value"], cells["known"] & (cells["value"] == 0))
    values = call.node.meta["val"]
    shapes = [v.shape for v in values] if isinstance(values, list | tuple) else [values.shape]
    results = [Signal(shape=tuple(shape), cells=cells) for shape in shapes]
    return results[0] if not isinstance(values, list | tuple) else (results[0], *(_bare(s) for s in results[1:]))


def average_pool(graph: ChannelGraph, call: Call, *, dims: int) -> Result:
    """Average pooling; zeros of the border count in, unless told otherwise."""
    borders = any(call["padding"]) and call["count_include_pad"]
    return spatial(graph, call, dims=dims, keeps_constants=not borders and call.arguments.get("divisor_override") is None)


def reduce(graph: ChannelGraph, call: Call, *, keeps_constants: bool) -> Result:
    """Mean, sum, maximum or minimum over axes: pixels are averaged per channel; over channels, they all stay."""
    x = graph.signal(call.tensors()[0])
    ndim = len(x.shape)
    dims = call.arguments.get("dim")
    listed = list(range(ndim)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
    axes = sorted(axis % ndim for axis in listed)
    cells = forget(x.cells, unit=True)
    told_apart = [axis for axis in axes if cells.shape[axis] > 1]
    if told_apart:
        graph.pin(cells["channel"], f"{call.layer} reduces over channels")
        cells = forget(cells.take([0], told_apart[0]), value=True)
        for axis in told_apart[1:]:
            cells = cells.take([0], axis)
        cells["channel"] = np.where(np.ones(cells.shape, bool), -1, 0)
    if not keeps_constants:
        cells = constant(cells, cells["value"], cells["known"] & (cells["value"] == 0))
    if not call.arguments.get("keepdim"):
        cells = cells.reshape([n for axis, n in enumerate(cells.shape) if axis not in axes])
    return Signal(shape=call.shape, cells=cells)


def softmax(graph: ChannelGraph, call: Call) -> Result:
    """Softmax over an axis reads all of it together."""
    x = graph.signal(call.tensors()[0])
    if x.cells.shape[call["dim"]] > 1:
        graph.pin(x.channel, f"the softmax in {call.layer} reads all channels together")
    return Signal(shape=x.shape, cells=forget(x.cells, value=True, unit=True))


def pad(graph: ChannelGraph, call: Call) -> Result:
    """Padding of pixels; other borders than zeros keep every constant, and padded channels stay."""
    x = graph.signal(call["self"])
    widths = list(call["pad"])
    axes = [len(x.shape) - 1 - i for i in range(len(widths) // 2) if widths[2 * i] or widths[2 * i + 1]]
    if any(x.cells.shape[axis] > 1 for axis in axes):
        graph.hold(x.channel, f"{call.layer} pads an axis of channels")
        return Signal(shape=call.shape, cells=forget(_bare(Signal(shape=x.shape, cells=x.cells[_first(x)])).cells, value=True))
    cells = x.cells
    mode = call.arguments.get("mode", "constant")
    if mode == "constant":
        border = call["value"] or 0.0
        same = (cells["value"] == border) & (call.node.name not in graph.sized)
        cells = constant(cells, cells["value"], cells["known"] & same)
    return Signal(shape=call.shape, cells=cells)


def _without_axes(graph: ChannelGraph, cells: Cells, dims: int, call: Call) -> Cells:
    """Cells that do not tell the last ``dims`` axes apart: channels there are unified, constants kept where they agree."""
    lead, tail = cells.shape[: cells.ndim - dims], cells.shape[cells.ndim - dims :]
    if all(n == 1 for n in tail):
        return cells
    rows, vector = channel_vector(cells.reshape(int(np.prod(lead)), -1).T, 1)
    graph.unify(rows, rows[:1], call.layer)
    return vector.reshape(*lead, *(1 for _ in tail))


def _first(x: Signal) -> tuple[slice, ...]:
    return tuple(slice(0, 1) for _ in x.shape)


def _bare(signal: Signal) -> Signal:
    cells = forget(signal.cells, value=True, unit=True)
    cells["channel"] = -1
    return Signal(shape=signal.shape, cells=cells)


RULES: Mapping[str, Rule] = {
    **{f"max_pool{d}d": partial(spatial, dims=d) for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": partial(spatial, dims=d) for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": partial(spatial, dims=d) for d in (1, 2, 3)},
    **{f"_adaptive_avg_pool{d}d": partial(spatial, dims=d) for d in (2, 3)},
    **{f"adaptive_max_pool{d}d": partial(spatial, dims=d) for d in (1, 2, 3)},
    **{f"avg_pool{d}d": partial(average_pool, dims=d) for d in (1, 2, 3)},
    **{f"upsample_nearest{d}d": partial(spatial, dims=d) for d in (1, 2, 3)},
    **{f"upsample_{kind}": partial(spatial, dims=2) for kind in ("bilinear2d", "bicubic2d")},
    "upsample_linear1d": partial(spatial, dims=1),
    "upsample_trilinear3d": partial(spatial, dims=3),
    "mean": partial(reduce, keeps_constants=True),
    "amax": partial(reduce, keeps_constants=True),
    "amin": partial(reduce, keeps_constants=True),
    "sum": partial(reduce, keeps_constants=False),
    "softmax": softmax,
    "_softmax": softmax,
    "pad": pad,
    "constant_pad_nd": pad,
}
