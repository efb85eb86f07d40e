"""Reductions over axes, and operators that go along one: pixels are read together per channel; channels read together stay."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Literal

import numpy as np

from tdcompress.shrinking.calls import OperatorCall, Result, Rule, read_together, untracked
from tdcompress.shrinking.cells import NO_CHANNEL, Cells, Signal, blanked, merged, signals_of
from tdcompress.shrinking.channels import ChannelGraph, constant, zeros_alone
from tdcompress.shrinking.elementwise import Operand, constants_made, kinds
from tdcompress.shrinking.rules_pointwise import pointwise

Keeps = Literal["all", "zero", "none"]  # the constants that come out as they went in


def reduce(graph: ChannelGraph, call: OperatorCall, *, keeps: Keeps) -> Result:
    """Mean, sum, maximum, norm, ... over axes: pixels become one per channel; over channels, they all stay.

    Over one of several axes of channels (those of a head, the branches of a stack) what is reduced to one goes together.

    Args:
        graph: what is known so far.
        call: the operator.
        keeps: the constants that come out as they went in.
    """
    x = graph.signal(call.tensors()[0])
    ndim = len(x.shape)
    dims = call.arguments.get("dim")
    listed: Sequence[int] = range(ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    axes = sorted(axis % ndim for axis in listed) if ndim else []
    cells = _kept(x.cells, keeps)
    told_apart = [axis for axis in axes if cells.shape[axis] > 1]
    if told_apart:
        heads = read_together(graph, call, cells["channel"], told_apart, f"{call.layer} reduces over channels")
        cells = merged(cells, told_apart)
        if not heads:
            cells = blanked(cells, value=True)
            cells["channel"] = NO_CHANNEL
    if not call.arguments.get("keepdim"):
        cells = cells.reshape([n for axis, n in enumerate(cells.shape) if axis not in axes])
    return _results(call, cells)


def deviation(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Standard deviation and variance, with or without the mean: 0 for what is constant, unless there is only one of it."""
    first, *mean = signals_of(reduce(graph, call, keeps="all"))
    correction = call.arguments.get("correction")
    subtracted = int(call.arguments.get("unbiased", True)) if correction is None else correction
    many = prod(graph.signal(call["self"]).shape) > subtracted * prod(first.shape)
    found = Signal(shape=first.shape, cells=constant(first.cells, np.zeros(()), first.cells["known"] & many))
    return (found, *(Signal(shape=item.shape, cells=first.cells) for item in mean)) if mean else found


def any_or_all(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Any and all of a constant: whether it is not 0."""
    x = graph.signal(call["self"])
    operand = Operand(cells=x.cells, kind=kinds(call)["self"])
    known, value = constants_made(call, lambda given: given != 0, {"given": operand}, x.cells["known"])
    cells = constant(x.cells, value, known)
    return reduce(graph, replace(call, arguments={**call.arguments, "self": Signal(shape=x.shape, cells=cells)}), keeps="all")


def along_axis(graph: ChannelGraph, call: OperatorCall, *, keeps: Keeps) -> Result:
    """sort, topk, cumsum, ...: one axis is read together and stays an axis; if channels lie along it, they stay.

    Args:
        graph: what is known so far.
        call: the operator.
        keeps: the constants that come out as they went in.
    """
    x = graph.signal(call.tensors()[0])
    axis = call.arguments.get("dim", -1)
    if x.cells.ndim and x.cells.shape[axis] > 1:
        return untracked(graph, call, "it reads all channels together")
    return _results(call, _kept(x.cells, keeps))


def extremum(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Max and min: of two tensors, or over axes."""
    return pointwise(graph, call) if "other" in call.arguments else reduce(graph, call, keeps="all")


def softmax(graph: ChannelGraph, call: OperatorCall) -> Result:
    """Softmax over an axis reads all of it together."""
    x = graph.signal(call.tensors()[0])
    if x.cells.ndim:
        read_together(graph, call, x.channel, (call["dim"],), f"the softmax in {call.layer} reads all channels together")
    return Signal(shape=x.shape, cells=blanked(x.cells, value=True, unit=True))


def _kept(cells: Cells, keeps: Keeps) -> Cells:
    """Cells of several elements at once: no single source, and the constants that survive."""
    cells = blanked(cells, value=keeps == "none", unit=True)
    return zeros_alone(cells) if keeps == "zero" else cells


def _results(call: OperatorCall, cells: Cells) -> Result:
    """The values, and the indices or other numbers that come with them, which are no constants."""
    values = call.node.meta["val"]
    signals = tuple(
        Signal(shape=tuple(value.shape), cells=cells if first else blanked(cells, value=True))
        for first, value in ((index == 0, value) for index, value in enumerate(_listed(values)))
    )
    return signals if isinstance(values, list | tuple) else signals[0]


def _listed(values: object) -> Sequence:  # type: ignore[type-arg]
    return values if isinstance(values, list | tuple) else [values]


def _named(names: str, rule: Rule) -> Mapping[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **_named("mean nanmean amax amin median nanmedian mode kthvalue quantile nanquantile", partial(reduce, keeps="all")),
    **_named("max min", extremum),
    **_named("sum nansum prod count_nonzero norm linalg_vector_norm frobenius_norm", partial(reduce, keeps="zero")),
    **_named("std var std_mean var_mean", deviation),
    **_named("any all", any_or_all),
    **_named("logsumexp argmax argmin", partial(reduce, keeps="none")),
    **_named("sort topk cummax cummin", partial(along_axis, keeps="all")),
    **_named("cumsum cumprod", partial(along_axis, keeps="zero")),
    **_named("logcumsumexp argsort", partial(along_axis, keeps="none")),
    **_named("softmax _softmax log_softmax _log_softmax", softmax),
}
