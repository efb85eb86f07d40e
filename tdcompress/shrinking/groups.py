"""What is dropped, pruned and removed together: the units of a network, found through its channel graph."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from tdcompress.errors import ModelError
from tdcompress.shrinking.attention import replace, replaceable
from tdcompress.shrinking.cells import Ids
from tdcompress.shrinking.channels import ChannelGraph, layer_name
from tdcompress.shrinking.demands import matrix_readers
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.propagate import RETURNED, network_graph
from tdcompress.shrinking.remembered import remember
from tdcompress.shrinking.streams import Part, Stream, claimed, stuck
from tdcompress.shrinking.trace import ExampleInputs, as_tuple
from tdcompress.sparsity.units import Slot, UnitGroup, is_below

Scope = Literal["layer", "group"]
Unit = Literal["whole", "filter"]
SlotPositions = list[tuple[int, ...]]

_ONE_UNIT = "its channels go all together, or not at all"
_TABLE = "an embedding, or another layer that reads it the other way round, shares its weight"


@dataclass(frozen=True, kw_only=True)
class Units:
    """What may be pruned of a network, unit by unit, and what is left out.

    Attributes:
        groups: units that are ranked together.
        fixed: layers of which no unit could ever leave, with the reason: zeros there would cost accuracy and save nothing.
    """

    groups: tuple[UnitGroup, ...]
    fixed: Mapping[str, str]

    def __str__(self) -> str:
        """What is fixed, in one line; empty where nothing is."""
        if not self.fixed:
            return ""
        count = len(self.fixed)
        listed = [f"{name} ({reason})" for name, reason in list(self.fixed.items())[:4]]
        more = ", ..." if count > len(listed) else ""
        return (
            f"{count} layer{'s' if count > 1 else ''} left whole, since no unit could ever leave: {', '.join(listed)}{more}; "
            "name them in include to prune them all the same"
        )


def unit_groups(
    model: nn.Module,
    example_inputs: ExampleInputs,
    weights: Sequence[Slot],
    *,
    scope: Scope = "layer",
    unit: Unit = "whole",
    include: Sequence[str] = (),
) -> tuple[UnitGroup, ...]:
    """The groups of ``find_units``.

    Args:
        model: on any device; not changed.
        example_inputs: a batch as it takes it.
        weights: what is prunable.
        scope: see ``find_units``.
        unit: see ``find_units``.
        include: see ``find_units``.
    """
    return find_units(model, example_inputs, weights, scope=scope, unit=unit, include=include).groups


@torch.inference_mode(mode=False)
def find_units(
    model: nn.Module,
    example_inputs: ExampleInputs,
    weights: Sequence[Slot],
    *,
    scope: Scope = "layer",
    unit: Unit = "whole",
    include: Sequence[str] = (),
) -> Units:
    """The groups of units of a network's prunable weights.

    Scope "layer": one group per weight, whose unit u is row u. Tied to it are its bias and the affine of every BatchNorm that
    sees these units alone, also behind activations, pooling or a concatenation. So a unit that is zero stays zero.

    Scope "group": weights that write into the same channels are one group, whose unit is a channel. A residual sum, a product
    or a depthwise convolution couples them so. Channels that only go together are one unit (those of one group of a grouped
    convolution). Parts that must stay equally wide (the halves of a chunk, or of slices) are ranked apart, so that each loses
    as many. Tied is every parameter that belongs to such a channel: biases, BatchNorms of the stream, layer scales. A stream
    is claimed only if all its writers are prunable and nothing holds its channels; else its weights are grouped as in scope
    "layer". The heads of an nn.MultiheadAttention whose ``out_proj`` is prunable are units too.

    Units that can never leave are not offered, in either scope. These are the units that the network returns, and those that a
    LayerNorm or an operator without a rule reads together. The forward code may also have their number written out (a literal
    number of heads).

    Args:
        model: any module that torch.export accepts; not modified.
        example_inputs: tensor or tuple of tensors, any batch size.
        weights: the prunable weights, as from ``sparsity.units.prunable_weights``.
        scope: see above.
        unit: "whole" as above; "filter": nothing is tied (the papers' "biases are not removed").
        include: names of layers whose units are offered although they can never leave.

    Raises:
        ModelError: a weight that the network does not use, a name in ``include`` that is no prunable layer, or no unit that
            could leave.
        UnsupportedError: torch.export does not accept the network.
    """
    if scope not in ("layer", "group") or unit not in ("whole", "filter"):
        raise ModelError(f"scope is 'layer' or 'group' and unit 'whole' or 'filter', not {scope!r} and {unit!r}")
    _check_include(model, weights, include)
    attention: list[Slot] = []
    given = model
    if scope == "group":
        names = replaceable(model)
        model = replace(duplicate(model), names)  # in whose place heads can be told apart
        attention = list(_projections(names, weights))
    program, graph = network_graph(model, example_inputs)
    remember(given, model, as_tuple(example_inputs), program)
    weights = [slot for slot in weights if slot.parameter not in graph.auxiliary]
    for slot in weights:
        if not any(slot.parameter in used for used in (graph.matrices, graph.raw, graph.frozen)):
            raise ModelError(f"{slot.parameter} is not used by {type(model).__name__}.forward, so that it cannot be pruned")
    slots = {slot.parameter: slot for slot in (*weights, *attention)}
    stays = stuck(graph, model, example_inputs, program, list(slots))
    makers = [name for name, slot in slots.items() if not _other_way_round(graph, slot)]
    streams = claimed(graph, makers, stays) if scope == "group" else {}
    whole = _of_one_unit(graph, streams)
    roots = graph.roots()
    stays = {**stays, **{root: _ONE_UNIT for name in whole for root in roots[graph.matrices[name].outputs].ravel().tolist()}}
    groups: list[UnitGroup] = []
    fixed: dict[str, str] = {}
    done: set[str] = set()
    tie = unit == "whole"
    for parameter, slot in slots.items():
        if parameter in streams and parameter not in whole:
            if parameter not in done:
                groups += [_stream_group(graph, part, slots, tie=tie) for part in streams[parameter].parts]
                done.update(streams[parameter].weights)
        elif slot not in attention:
            asked = any(is_below(layer_name(parameter), name) for name in include)
            group, reason = _layer_group(graph, slot, roots, {} if asked else stays, tie=tie)
            groups += [] if group is None else [group]
            if reason not in ("", RETURNED):
                fixed[layer_name(parameter)] = reason
    if not groups:
        raise ModelError(
            f"{type(model).__name__} has no unit that could leave: "
            + "; ".join(f"{name}: {reason}" for name, reason in (fixed or {"what is prunable": RETURNED}).items())
        )
    return Units(groups=_uniquely_named(groups), fixed=fixed)


def _check_include(model: nn.Module, weights: Sequence[Slot], include: Sequence[str]) -> None:
    layers = [layer_name(slot.parameter) for slot in weights]
    for name in include:
        if not any(is_below(layer, name) for layer in layers):
            raise ModelError(
                f"include = {name!r} names no prunable layer of {type(model).__name__}; it has {', '.join(layers[:8])}"
            )


def _other_way_round(graph: ChannelGraph, slot: Slot) -> bool:
    """Whether what makes channels of a weight is another layer, along the other axis: an embedding of the head's table."""
    matrix = graph.matrices.get(slot.parameter)
    return matrix is not None and matrix.out_axis != slot.axis


def _uniquely_named(groups: Sequence[UnitGroup]) -> tuple[UnitGroup, ...]:
    """The parts of one layer are told apart: "cv1", "cv1:2"."""
    seen: Counter[str] = Counter()
    named = []
    for group in groups:
        seen[group.name] += 1
        count = seen[group.name]
        named.append(group if count == 1 else dataclasses.replace(group, name=f"{group.name}:{count}"))
    return tuple(named)


def _projections(attention: Sequence[str], weights: Sequence[Slot]) -> Iterator[Slot]:
    """The joint projections of those attention layers whose output projection is prunable."""
    prunable = {slot.parameter for slot in weights}
    for name in attention:
        prefix = f"{name}." if name else ""
        if f"{prefix}out_proj.weight" in prunable:
            yield Slot(parameter=f"{prefix}in_proj_weight")


def _of_one_unit(graph: ChannelGraph, streams: Mapping[str, Stream]) -> set[str]:
    """Weights of streams whose parts are one unit each, although a layer has several outputs: the last unit always stays."""
    return {
        name
        for name, stream in streams.items()
        if all(part.classes.size == 1 for part in stream.parts)
        and any(graph.matrices[each].outputs.size > len(stream.parts) for each in stream.weights)
    }


def _layer_group(
    graph: ChannelGraph, slot: Slot, roots: Ids, stays: Mapping[int, str], *, tie: bool
) -> tuple[UnitGroup | None, str]:
    """One weight: unit u is index u of its output axis; of a grouped transposed convolution, all outputs of group u.

    Returns:
        The units that could leave, None where there are none; and the reason of the first that cannot.
    """
    size = int(graph.state[slot.parameter].shape[slot.axis])
    matrix = graph.matrices.get(slot.parameter)
    if matrix is None or _other_way_round(graph, slot):  # or read element by element, or by an operator without a rule
        if slot.groups > 1:
            size, slot = slot.groups, _of_groups(graph, slot, slot.groups)
        reason = _TABLE if matrix else graph.frozen.get(slot.parameter, "")
        reason = reason if stays else ""
        return (None, reason) if reason else (UnitGroup(name=layer_name(slot.parameter), size=size, filters=(slot,)), "")
    width, rows = 1, matrix.outputs.reshape(-1, 1)  # outputs of a unit
    if matrix.out_axis == 1 and matrix.groups > 1:
        rows = matrix.outputs
        (size, width), slot = rows.shape, _of_groups(graph, slot, matrix.groups)
    reasons = [next((stays[root] for root in roots[row].tolist() if root in stays), "") for row in rows]
    free = [unit for unit in range(size) if not reasons[unit]]
    reason = next(filter(None, reasons), "")
    if not free:
        return None, reason
    tied: list[Slot] = []
    if tie:
        tied = [
            *(Slot(parameter=bias, positions=_consecutive(size, width)) for bias in _biases(graph, slot.parameter)),
            *_alone(graph, matrix.first_unit, size, width),
        ]
    group = UnitGroup(name=layer_name(slot.parameter), size=size, filters=(slot,), tied=tuple(tied))
    return (group if len(free) == size else _only(group, free)), ""


def _of_groups(graph: ChannelGraph, slot: Slot, groups: int) -> Slot:
    """The groups of a transposed convolution as units: they lie along axis 0, as its inputs do, and its filters along none."""
    width = int(graph.state[slot.parameter].shape[0]) // groups
    return Slot(parameter=slot.parameter, axis=0, positions=_consecutive(groups, width), groups=groups)


def _only(group: UnitGroup, units: Sequence[int]) -> UnitGroup:
    """Some units of a group."""

    def part(slot: Slot) -> Slot:
        all_of_them = slot.positions or tuple((unit,) for unit in range(group.size))
        return dataclasses.replace(slot, positions=tuple(all_of_them[unit] for unit in units))

    return UnitGroup(name=group.name, size=len(units), filters=tuple(map(part, group.filters)), tied=tuple(map(part, group.tied)))


def _biases(graph: ChannelGraph, weight: str) -> Iterator[str]:
    """Biases added to a weight's outputs and to nothing else's."""
    users: dict[str, set[str]] = {}
    for reader in matrix_readers(graph):
        if reader.bias:
            users.setdefault(reader.bias, set()).add(reader.matrix.parameter)
    return (bias for bias, owners in users.items() if owners == {weight})


def _alone(graph: ChannelGraph, first_unit: int, size: int, width: int) -> Iterator[Slot]:
    """The affine of each BatchNorm at the channels that see one unit (``width`` outputs) of a weight alone."""
    for affine in graph.affines:
        index = (affine.units - first_unit) // width
        seen = (affine.units >= 0) & (index >= 0) & (index < size)
        if not seen.any():
            continue
        positions = _positions(np.where(seen, index, -1), size)
        for name in (affine.weight, affine.bias):
            yield Slot(parameter=name, positions=_simple(positions, affine.units.size))


def _stream_group(graph: ChannelGraph, stream: Part, slots: Mapping[str, Slot], *, tie: bool) -> UnitGroup:
    """One unit per class of the stream; a parameter takes part where its elements belong to it."""
    roots = graph.roots(coupled=True)
    size = stream.classes.size
    number = np.full(int(roots.max()) + 2, -1)  # class -> unit; the last entry serves elements without channel
    number[stream.classes] = np.arange(size)
    filters = tuple(_written(graph, slots[name], number[roots]) for name in stream.weights)
    tied: list[Slot] = []
    for name, signal in graph.raw.items() if tie else ():
        if not signal.tracked or not isinstance(graph.state[name], nn.Parameter):
            continue
        units = number[np.where(signal.channel >= 0, roots[signal.channel], -1)]
        axis = _unit_axis(units)
        if (units >= 0).any() and axis is not None:
            line = np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)[:, 0]
            tied.append(Slot(parameter=name, axis=axis, positions=_simple(_positions(line, size), line.size)))
    return UnitGroup(name=layer_name(stream.weights[0]), size=size, filters=filters, tied=tuple(tied))


def _written(graph: ChannelGraph, slot: Slot, unit: Ids) -> Slot:
    """Where the entries of a stream's units lie in one weight; ``unit`` is the unit of each channel."""
    matrix = graph.matrices[slot.parameter]
    axis, lines = slot.axis, matrix.outputs
    if matrix.out_axis == 1 and matrix.groups > 1:
        axis, lines = 0, matrix.inputs  # groups go as a whole, and lie along axis 0
    size = int(unit.max()) + 1
    positions = _simple(_positions(unit[lines].ravel(), size), lines.size)
    return Slot(parameter=slot.parameter, axis=axis, positions=positions, groups=slot.groups)


def _unit_axis(units: Ids) -> int | None:
    """The axis along which units are counted, the others repeating them; None where there is no such axis."""
    for axis in range(units.ndim):
        lines = np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)
        if (lines == lines[:, :1]).all():
            return axis
    return None


def _consecutive(size: int, width: int) -> tuple[tuple[int, ...], ...] | None:
    """Unit u has ``width`` indices, after those of the units before it; None for one index each."""
    return None if width == 1 else tuple(tuple(range(u * width, (u + 1) * width)) for u in range(size))


def _positions(units: Ids, size: int) -> SlotPositions:
    """For each unit the indices that are its own."""
    positions: list[list[int]] = [[] for _ in range(size)]
    for index, number in enumerate(units.tolist()):
        if number >= 0:
            positions[number].append(index)
    return [tuple(own) for own in positions]


def _simple(positions: SlotPositions, length: int) -> tuple[tuple[int, ...], ...] | None:
    """None where unit u has index u alone, and the axis no other indices."""
    return None if length == len(positions) and all(own == (index,) for index, own in enumerate(positions)) else tuple(positions)
