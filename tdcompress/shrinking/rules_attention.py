"""Products of two computed tensors: attention, and the matrix products it is written with."""

from collections.abc import Mapping

import numpy as np

from tdcompress.shrinking.calls import OperatorCall, Result, Rule, untracked
from tdcompress.shrinking.cells import Cells, Ids, Signal, blanked, plain, with_leading_axes
from tdcompress.shrinking.channels import ChannelGraph, zeros_alone
from tdcompress.shrinking.demands import Product


def attention(graph: ChannelGraph, call: OperatorCall) -> Result:
    """softmax(q k^T / sqrt(d)) v with q, k (..., heads, tokens, d): a head goes as a whole; channels of v go one by one.

    Channels of q and k stay with their head, since the default scale counts them. Weights of a token sum to 1, so that a constant
    of v passes; to 0 where a mask leaves a token nothing to look at.
    """
    q, k, v = (graph.signal(call[name]) for name in ("query", "key", "value"))
    if len({len(x.shape) for x in (q, k, v)}) > 1 or any(x.cells.shape[-2] > 1 for x in (q, k, v)):
        return untracked(graph, call, "this kind of attention is not handled")
    if call.arguments.get("enable_gqa"):
        k, v = (_for_each_query(x, q.shape[-3]) for x in (k, v))
    mask, mixed = call.arguments.get("attn_mask"), blanked(v.cells, unit=True)
    if mask is not None:
        _keep_masked_heads(graph, call, (q, k, v), graph.signal(mask))
        mixed = zeros_alone(mixed)
    graph.unify(q.channel, k.channel, f"{call.layer} compares it with a tensor of fixed size")
    rows = [_rows(x.channel) for x in (q, k, v)]
    queries, keys, values = (np.broadcast_to(x, (max(map(len, rows)), x.shape[1])) for x in rows)
    if len(values) > 1 or (values >= 0).any():
        graph.demands.append(Product(left=queries, used=np.ones(queries.shape, bool), right=values, layer=call.layer))
        if (queries >= 0).all() and (values >= 0).all():
            graph.heads.append(np.concatenate([queries, keys, values], axis=1))
    return Signal(shape=call.shape, cells=mixed)


def _for_each_query(x: Signal, heads: int) -> Signal:
    """Keys or values (..., groups, tokens, d) of grouped queries: each as often as there are heads of its group."""
    times = heads // x.shape[-3]
    cells = x.cells if x.cells.shape[-3] == 1 else np.repeat(x.cells, times, -3)
    return Signal(shape=(*x.shape[:-3], heads, *x.shape[-2:]), cells=cells)


def matmul(graph: ChannelGraph, call: OperatorCall) -> Result:
    """A (..., n, k) times b (..., k, m); channels may lie along k, along m, or along the axes before (heads).

    A table on the left (a graph's adjacency, a mixing of tokens) stays whole, and counts pixels or tokens.
    """
    a, b = (graph.signal(item) for item in call.tensors()[:2])
    if min(len(a.shape), len(b.shape)) < 2 or not (a.tracked or b.tracked):
        return untracked(graph, call, "this kind of product is not handled")
    if b.tracked and graph.of_tables(a.channel):
        graph.pin(a.channel, f"{call.layer} multiplies with it from the left")
        a = plain(a.shape)
    a, b = (with_leading_axes(x, len(call.shape)) for x in (a, b))
    inner = a.cells.shape[-1] > 1 or b.cells.shape[-2] > 1
    outer = a.cells.shape[-2] > 1 or b.cells.shape[-1] > 1
    if a.cells.shape[-2] > 1 or (inner and outer):
        return untracked(graph, call, "channels along both axes of a product are not handled")
    left, right = a.cells["channel"], b.cells["channel"].swapaxes(-1, -2)  # (..., 1, k) and (..., m or 1, k or 1)
    if inner:
        return _contract(graph, call, a.cells, b.cells.swapaxes(-1, -2))
    if not outer:  # heads only
        if not (_repeated_over_heads(a, b) or _repeated_over_heads(b, a)):
            graph.unify(left, right, f"{call.layer} multiplies it with a tensor of fixed size")
        cells = a.cells if a.cells.size >= b.cells.size else b.cells
        return Signal(shape=call.shape, cells=blanked(zeros_alone(cells), unit=True))
    rows = _rows(b.cells["channel"])
    heads = np.broadcast_to(_rows(left), (len(rows), 1))
    if a.tracked:
        graph.demands.append(Product(left=heads, used=np.ones(heads.shape, bool), right=rows, layer=call.layer))
        graph.heads.append(np.concatenate([heads, rows], axis=1))
    elif len(rows) > 1 and not _repeated_over_heads(a, b):
        graph.hold(b.cells["channel"], f"{call.layer} multiplies it with a tensor of fixed size")
    return Signal(shape=call.shape, cells=blanked(zeros_alone(b.cells), unit=True))


def _repeated_over_heads(x: Signal, other: Signal) -> bool:
    """Whether x is one matrix for all the heads of the other operand, so that it does not count them."""
    return not x.tracked and all(x.shape[axis] == 1 for axis, n in enumerate(other.cells.shape[:-2]) if n > 1)


def _contract(graph: ChannelGraph, call: OperatorCall, a: Cells, b: Cells) -> Signal:
    """Scores: q and k meet along k; one fresh channel per head."""
    left, right = np.broadcast_arrays(a["channel"], b["channel"])
    graph.unify(left, right, f"{call.layer} multiplies it with a tensor of fixed size")
    zero = (a["known"] & (a["value"] == 0)) | (b["known"] & (b["value"] == 0))
    queries = _rows(left)
    cells = np.zeros((*left.shape[:-1], 1), a.dtype)
    cells["unit"] = -1
    cells["channel"] = graph.new_channels(*cells.shape) if len(queries) > 1 else -1
    if len(queries) > 1:
        graph.heads.append(np.concatenate([queries, _rows(right), _rows(cells["channel"])], axis=1))
    used = ~np.broadcast_to(zero, left.shape).reshape(queries.shape)
    graph.demands.append(Product(left=queries, used=used, right=_rows(cells["channel"]), layer=call.layer))
    return Signal(shape=call.shape, cells=cells)


def _keep_masked_heads(graph: ChannelGraph, call: OperatorCall, operands: tuple[Signal, ...], mask: Signal) -> None:
    """A mask of its own for each head counts the heads, so they stay; so do the mask's channels."""
    graph.pin(mask.channel, f"{call.layer} reads it as a mask")
    for x in operands:
        lead = len(mask.shape) - len(x.shape)
        if any(x.cells.shape[axis] > 1 and axis + lead >= 0 and mask.shape[axis + lead] > 1 for axis in range(len(x.shape) - 2)):
            graph.hold(x.channel, f"{call.layer} has a mask for each head")


def _rows(ids: Ids) -> Ids:
    """(heads, channels): the axes before the last two, and the last two."""
    return ids.reshape(int(np.prod(ids.shape[:-2])), -1)


RULES: Mapping[str, Rule] = {
    "scaled_dot_product_attention": attention,
    "bmm": matmul,
}
