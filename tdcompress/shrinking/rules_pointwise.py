"""Elementwise operators: channels that meet become one; f(constant) is a constant."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tdcompress.shrinking.calls import FRESH, LIKE, MADE, OperatorCall, Rule, base_name, hold_axes
from tdcompress.shrinking.cells import MIXED, NO_CHANNEL, Cells, Ids, Signal, blank, blanked, merged, with_leading_axes
from tdcompress.shrinking.channels import ChannelGraph, Parameter, constant
from tdcompress.shrinking.demands import Repeated
from tdcompress.shrinking.elementwise import Operand, constants_made, kinds


def pointwise(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """Any elementwise operator, with torch's broadcasting."""
    names = [name for name, value in call.arguments.items() if isinstance(value, Signal | Parameter)]
    operands = [with_leading_axes(graph.signal(call[name]), len(call.shape)) for name in names]
    cells = blank(np.broadcast_shapes(*(operand.cells.shape for operand in operands)))
    cells["channel"], alike = _joined(graph, operands, call)
    if len(operands) == 1 or all(bool((o.cells["unit"] == operands[0].cells["unit"]).all()) for o in operands[1:]):
        cells["unit"] = operands[0].cells["unit"]
    else:
        cells["unit"] = MIXED
    known = np.logical_and.reduce(np.broadcast_arrays(*(operand.cells["known"] for operand in operands)))
    by_name = dict(zip(names, operands, strict=True))
    if call.node.name not in graph.sized:
        cells["known"], cells["value"] = constants_made(call, partial(_run, call), _typed(call, by_name), known)
        _decided(call, by_name, cells)
    _keep_zeros(call, by_name, cells)
    return Signal(shape=call.shape, cells=merged(cells, alike))


def identity(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """Operators that pass their first tensor on: dropout in eval mode, contiguous, detach."""
    return graph.signal(call.tensors()[0])


def literal(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """``torch.tensor(0.5)``. As float64 would hold another 0.1 than float32 does, only what both hold is a constant."""
    source = call.tensors()[0]
    x = graph.signal(source)
    if isinstance(source, Signal) or source.name in graph.sized:
        return x
    held = graph.state[source.name].detach().cpu()
    known, value = x.cells["known"], x.cells["value"]
    if held.dtype == torch.float32:
        known = known & (value.astype(np.float32).astype(str).astype(np.float64) == value)
    elif held.numel() == 1 and not held.is_floating_point():
        known, value = constants_made(call, lambda: held, {}, np.full(x.cells.shape, True))
    return Signal(shape=x.shape, cells=constant(x.cells, value, known))


def cast(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """A change of type, also to that of a second tensor: constants pass, as integers where no rounding decides which."""
    x = graph.signal(call.tensors()[0])
    result = call.node.meta["val"].dtype
    if result.is_floating_point:
        return x
    fits = x.cells["known"]
    if not result.is_complex and result != torch.bool:
        limits = torch.iinfo(result)
        fits = fits & (x.cells["value"] >= limits.min) & (x.cells["value"] <= limits.max)
    name = next(iter(call.arguments))
    operands = {name: Operand(cells=x.cells, kind=kinds(call)[name])}
    known, value = constants_made(call, lambda **given: given[name].to(result), operands, fits)
    return Signal(shape=x.shape, cells=constant(x.cells, value, known))


def prelu(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """PReLU: one slope per channel of axis 1, or one for all."""
    x, slope = graph.signal(call["self"]), graph.signal(call["weight"])
    cells = x.cells
    if cells.ndim > 1 and slope.cells.size > 1:  # also where what comes in does not tell its channels apart
        cells = np.broadcast_to(cells, [x.shape[1] if axis == 1 else n for axis, n in enumerate(cells.shape)])
    slopes = slope.cells.reshape([-1 if axis == 1 else 1 for axis in range(cells.ndim)]) if cells.ndim > 1 else slope.cells
    if slopes.size > 1:
        graph.unify(cells["channel"], slopes["channel"], f"{call.layer} has one slope per channel")
    else:
        graph.hold(slopes["channel"], f"{call.layer} has one slope for all channels")
    value = np.where(cells["value"] > 0, cells["value"], cells["value"] * slopes["value"])
    return Signal(shape=x.shape, cells=constant(cells, value, cells["known"] & slopes["known"]))


def like(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """A new tensor of the shape of another: it goes with its channels, and holds nothing of its values."""
    x = graph.signal(call.tensors()[0])
    return Signal(shape=x.shape, cells=_filled(graph, call, blanked(x.cells, value=True, unit=True)))


def fresh(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """A new tensor of a shape of its own (``torch.zeros``, ``x.new_full``); another one gives at most type and device."""
    return Signal(shape=call.shape, cells=_filled(graph, call, blank((1,) * len(call.shape))))


def _filled(graph: ChannelGraph, call: OperatorCall, cells: Cells) -> Cells:
    value = _FILL.get(base_name(call.node.target), call.arguments.get("fill_value"))
    if not isinstance(value, float | int) or call.node.name in graph.sized:
        return cells
    kind = call.node.meta["val"].dtype
    kind = torch.float64 if kind.is_floating_point else kind
    known, values = constants_made(call, lambda: torch.full((), value, dtype=kind), {}, np.full(cells.shape, True))
    return constant(cells, values, known)


def glu(graph: ChannelGraph, call: OperatorCall) -> Signal:
    """Gated linear unit, a * sigmoid(b) of the two halves of an axis: channels of both go together."""
    x = graph.signal(call["self"])
    axis = call["dim"]
    if x.cells.shape[axis] == 1:
        return Signal(shape=call.shape, cells=blanked(x.cells, value=True))
    a, b = np.split(x.cells, 2, axis)
    graph.unify(a["channel"], b["channel"], call.layer)
    known = a["known"] & (b["known"] | (a["value"] == 0))
    cells = constant(a, a["value"] / (1 + np.exp(-b["value"])), known)
    cells["unit"] = np.where(a["unit"] == b["unit"], a["unit"], MIXED)
    return Signal(shape=call.shape, cells=cells)


def _joined(graph: ChannelGraph, operands: Sequence[Signal], call: OperatorCall) -> tuple[Ids, list[int]]:
    """Channels of the result, and axes along which they are alike; what meets is unified.

    Look at the axes on which the result tells channels apart. An operand of real length 1 along all of these is repeated over the
    channels, such as a spatial gate (B, 1, H, W) or one number for all. It has no part in them, and its own channels just stay.
    An operand without channels but of full length on such an axis (the network's input, a literal tensor) keeps what it meets:
    all of it, or the indices of that axis, as angles of positions do with the channels of a head. A factor that is a table, and
    is repeated along some of these axes, is as wide as the widest of what it multiplies: heads share it, and one may go.

    Args:
        graph: takes the unions and pins.
        operands: aligned to the result's axes; what is computed comes first.
        call: the operator.
    """
    tables = [graph.of_tables(operand.channel) for operand in operands]
    shape = np.broadcast_shapes(*(operand.cells.shape for operand in operands))
    result = np.full(shape, NO_CHANNEL, np.int64)
    told_apart: set[int] = set()
    places: set[int] = set()  # of a table: those of a token, of all heads alike
    for index in sorted(range(len(operands)), key=lambda i: (tables[i], -operands[i].cells.size)):
        operand = operands[index]
        if not operand.tracked:
            continue
        repeated = [axis for axis in told_apart if operand.shape[axis] == 1]
        if told_apart and len(repeated) == len(told_apart):
            graph.pin(operand.channel, f"{call.layer} repeats it over other channels")
            continue
        theirs = np.broadcast_to(operand.channel, shape)
        if repeated and tables[index] and base_name(call.node.target) in _PRODUCTS and (result >= 0).all():
            heads = range(len(repeated))
            rows, table = (np.moveaxis(ids, repeated, heads) for ids in (result, theirs))
            count = int(np.prod(rows.shape[: len(repeated)]))
            graph.demands.append(Repeated(heads=rows.reshape(count, -1), table=table.reshape(count, -1)[0], layer=call.layer))
            places |= {axis for axis, length in enumerate(operand.cells.shape) if length > 1}
            continue
        both = (result >= 0) & (theirs >= 0)
        graph.unify(result[both], theirs[both], call.layer)
        result = np.where(result < 0, theirs, result)
        told_apart |= {axis for axis, length in enumerate(operand.cells.shape) if length > 1}
    for operand in operands:
        met = [axis for axis in told_apart if operand.shape[axis] > 1]
        if met and not operand.tracked:
            hold_axes(graph, call, result, met, "combines it with a tensor of fixed size")
        elif met:
            bare = np.broadcast_to(operand.channel, shape) < 0
            graph.hold(result[bare], f"{call.layer} combines it with a tensor of fixed size")
    return result, sorted(places - told_apart)


def _typed(call: OperatorCall, operands: Mapping[str, Signal]) -> dict[str, Operand]:
    kind = kinds(call)
    return {name: Operand(cells=operand.cells, kind=kind[name]) for name, operand in operands.items()}


def _run(call: OperatorCall, **operands: Tensor) -> Tensor:
    """The operator itself, on constants of its operands."""
    arguments = {name: value for name, value in call.arguments.items() if name not in ("memory_format", "dtype", "device")}
    result: Tensor = functional(call)(**{**arguments, **operands})
    return result


def _decided(call: OperatorCall, operands: Mapping[str, Signal], cells: Cells) -> None:
    """A choice between two constants needs no constant beside the chosen one, and no condition where they are equal."""
    if base_name(call.node.target) not in ("where", "masked_fill"):
        return
    choose, yes, no = ("condition", "self", "other") if "condition" in call.arguments else ("mask", "value", "self")
    condition, chosen, other = (_constants_of(call.arguments[name], operands.get(name)) for name in (choose, yes, no))
    takes = np.where(condition["value"] != 0, chosen, other)
    known = np.where(condition["known"], takes["known"], chosen["known"] & other["known"] & (chosen["value"] == other["value"]))
    known &= ~cells["known"] & call.node.meta["val"].is_floating_point()
    cells["known"] |= known
    cells["value"] = np.where(known, takes["value"], cells["value"])


def _constants_of(argument: object, operand: Signal | None) -> Cells:
    """An operand's cells; those of a number."""
    if operand is not None:
        return operand.cells
    assert isinstance(argument, bool | int | float)
    return constant(blank(()), np.full((), float(argument)), np.full((), bool(np.isfinite(argument))))


def _keep_zeros(call: OperatorCall, operands: Mapping[str, Signal], cells: Cells) -> None:
    """0 times anything finite is 0, and so is 0 divided by a number; False and anything is False."""
    op = base_name(call.node.target)
    if op in _PRODUCTS or (op in ("div", "divide", "true_divide") and len(operands) == 1):
        for operand in operands.values():
            cells["known"] |= operand.cells["known"] & (operand.cells["value"] == 0)


def functional(call: OperatorCall) -> torch._ops.OpOverload:
    """The operator without its in-place effect."""
    target = call.node.target
    assert isinstance(target, torch._ops.OpOverload)
    if not target._schema.is_mutable:
        return target
    packet = getattr(torch.ops.aten, base_name(target))
    overload: torch._ops.OpOverload = getattr(packet, target._overloadname)
    return overload


# Elementwise, though torch does not tag them so.
_POINTWISE = """
    relu6 hardtanh hardswish hardsigmoid silu mish gelu elu selu celu leaky_relu softplus softsign hardshrink softshrink
    tanhshrink logsigmoid log_sigmoid sigmoid tanh square threshold clip multiply divide subtract true_divide rsub
    where masked_fill eq ne gt lt ge le not_equal greater greater_equal less less_equal __and__ __or__ __xor__ __iand__ __ior__
    __ixor__ isfinite isnan isinf isreal isclose absolute negative fix floor_divide
"""
_PRODUCTS = ("mul", "multiply", "logical_and", "bitwise_and", "__and__", "__iand__")
_FILL = {"zeros_like": 0.0, "new_zeros": 0.0, "zeros": 0.0, "ones_like": 1.0, "new_ones": 1.0, "ones": 1.0}
_IDENTITY = "dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous clone detach alias"
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **dict.fromkeys(_IDENTITY.split(), identity),
    **dict.fromkeys(("lift_fresh_copy", "lift_fresh"), literal),
    **dict.fromkeys(("to", "_to_copy", "type_as"), cast),
    **dict.fromkeys(LIKE, like),
    **dict.fromkeys((*FRESH, *MADE), fresh),
    "glu": glu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
}
