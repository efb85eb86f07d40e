"""Operators that exchange channels and pixels, or shuffle channels: their factor is a number, so whole runs of channels go."""

from collections.abc import Mapping

import numpy as np

from tdcompress.shrinking.calls import OperatorCall, Result, Rule, untracked
from tdcompress.shrinking.cells import Signal, along, channel_vector
from tdcompress.shrinking.channels import ChannelGraph
from tdcompress.shrinking.demands import WholeSlices


def pixel_shuffle(graph: ChannelGraph, call: OperatorCall) -> Result:
    """(..., C r^2, H, W) -> (..., C, H r, W r): the r^2 channels that become one go together."""
    x = graph.signal(call["self"])
    if not _along_channels_only(x):
        return untracked(graph, call, "its pixels are told apart")
    if x.cells.shape[-3] == 1:
        return Signal(shape=call.shape, cells=x.cells)
    rows, cells = channel_vector(x.cells.ravel().reshape(call.shape[-3], -1).T, 1)
    graph.unify(rows, rows[:1], call.layer)
    return Signal(shape=call.shape, cells=along(cells, -3, len(call.shape)))


def pixel_unshuffle(graph: ChannelGraph, call: OperatorCall) -> Result:
    """(..., C, H r, W r) -> (..., C r^2, H, W): the r^2 channels that one becomes go together."""
    x = graph.signal(call["self"])
    if not _along_channels_only(x):
        return untracked(graph, call, "its pixels are told apart")
    if x.cells.shape[-3] == 1:
        return Signal(shape=call.shape, cells=x.cells)
    cells = np.repeat(x.cells.ravel(), call.shape[-3] // x.shape[-3])
    return Signal(shape=call.shape, cells=along(cells, -3, len(call.shape)))


def channel_shuffle(graph: ChannelGraph, call: OperatorCall) -> Result:
    """(B, g n, ...) -> (B, n g, ...): the groups stay, and narrow alike."""
    x = graph.signal(call["self"])
    if x.cells.size == 1:
        return x
    if x.cells.size != x.cells.shape[1]:
        return untracked(graph, call, "its pixels are told apart")
    groups = x.cells.ravel().reshape(call["groups"], -1)
    graph.demands.append(WholeSlices(ids=groups["channel"], layer=call.layer, fixed_axes=(0,)))
    graph.couplings.append(groups["channel"].T)
    return Signal(shape=call.shape, cells=along(groups.T.ravel(), 1, len(call.shape)))


def _along_channels_only(x: Signal) -> bool:
    return bool(x.cells.size == x.cells.shape[-3])


RULES: Mapping[str, Rule] = {
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
}
