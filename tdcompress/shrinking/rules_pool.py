"""Pooling, resizing and padding: channels pass, pixels change."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from tdcompress.shrinking.calls import OperatorCall, Result, Rule
from tdcompress.shrinking.cells import Cells, Signal, blanked, channel_vector
from tdcompress.shrinking.channels import ChannelGraph, constant, zeros_alone


def spatial(graph: ChannelGraph, call: OperatorCall, *, dims: int, keeps_constants: bool = True) -> Result:
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
        cells = zeros_alone(cells)
    values = call.node.meta["val"]
    shapes = [v.shape for v in values] if isinstance(values, list | tuple) else [values.shape]
    results = [Signal(shape=tuple(shape), cells=cells) for shape in shapes]
    if not isinstance(values, list | tuple):
        return results[0]
    return (results[0], *(Signal(shape=s.shape, cells=blanked(s.cells, value=True, unit=True)) for s in results[1:]))


def average_pool(graph: ChannelGraph, call: OperatorCall, *, dims: int) -> Result:
    """Average pooling; zeros of the border count in, unless told otherwise.

    Args:
        graph: what is known so far.
        call: the operator.
        dims: spatial axes.
    """
    borders = any(call["padding"]) and call["count_include_pad"]
    return spatial(graph, call, dims=dims, keeps_constants=not borders and call.arguments.get("divisor_override") is None)


def unpool(graph: ChannelGraph, call: OperatorCall, *, dims: int) -> Result:
    """Undo a max pooling: each value to the place that the pooling found, between zeros.

    Args:
        graph: takes the unions.
        call: the operator.
        dims: spatial axes.
    """
    values, places = (_without_axes(graph, graph.signal(call[name]).cells, dims, call) for name in ("self", "indices"))
    graph.unify(values["channel"], places["channel"], f"{call.layer} has places for channels of fixed number")
    return Signal(shape=call.shape, cells=zeros_alone(values))


def grid_sample(graph: ChannelGraph, call: OperatorCall) -> Result:
    """(B, C, ...) at places (B, ..., 2 or 3): each channel by itself; outside there may be zeros."""
    places = graph.signal(call["grid"])
    graph.pin(places.channel, f"{call.layer} reads it as places")
    cells = _without_axes(graph, graph.signal(call["input"]).cells, len(call.shape) - 2, call)
    return Signal(shape=call.shape, cells=zeros_alone(cells))


def pad(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Padding of pixels; other borders than zeros keep every constant, and padded channels stay."""
    x = graph.signal(call["self"])
    widths = list(call["pad"])
    axes = [len(x.shape) - 1 - i for i in range(len(widths) // 2) if widths[2 * i] or widths[2 * i + 1]]
    if any(x.cells.shape[axis] > 1 for axis in axes):
        graph.pin(x.channel, f"{call.layer} pads an axis of channels")
        return Signal(shape=call.shape, cells=blanked(_bare(Signal(shape=x.shape, cells=x.cells[_first(x)])).cells, value=True))
    cells = x.cells
    mode = call.arguments.get("mode", "constant")
    if mode == "constant":
        border = call["value"] or 0.0
        same = (cells["value"] == border) & (call.node.name not in graph.sized)
        cells = constant(cells, cells["value"], cells["known"] & same)
    return Signal(shape=call.shape, cells=cells)


def _without_axes(graph: ChannelGraph, cells: Cells, dims: int, call: OperatorCall) -> Cells:
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
    cells = blanked(signal.cells, value=True, unit=True)
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
    **{f"{private}upsample_nearest_exact{d}d": partial(spatial, dims=d) for d in (1, 2, 3) for private in ("", "_")},
    **{f"upsample_{kind}": partial(spatial, dims=2) for kind in ("bilinear2d", "bicubic2d")},
    **{f"_upsample_{kind}2d_aa": partial(spatial, dims=2) for kind in ("bilinear", "bicubic")},
    "upsample_linear1d": partial(spatial, dims=1),
    "upsample_trilinear3d": partial(spatial, dims=3),
    **{f"max_unpool{d}d": partial(unpool, dims=d) for d in (2, 3)},
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), grid_sample),
    "pad": pad,
    "constant_pad_nd": pad,
}
