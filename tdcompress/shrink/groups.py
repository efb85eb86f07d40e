"""What is dropped, pruned and removed together: the units of a network, found through its channel graph."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from tdcompress.errors import ModelError
from tdcompress.shrink.attention import replace, replaceable
from tdcompress.shrink.cells import Ids
from tdcompress.shrink.channels import ChannelGraph, layer_name
from tdcompress.shrink.demands import matrix_readers
from tdcompress.shrink.propagate import network_graph
from tdcompress.shrink.trace import ExampleInputs, Program, duplicate
from tdcompress.shrink.trial import spelled_out
from tdcompress.sparsity.units import Slot, UnitGroup

Scope = Literal["layer", "group"]
Unit = Literal["whole", "filter"]
Positions = list[tuple[int, ...]]


@torch.inference_mode(mode=False)
def unit_groups(
    model: nn.Module,
    example_inputs: ExampleInputs,
    weights: Sequence[Slot],
    *,
    scope: Scope = "layer",
    unit: Unit = "whole",
) -> tuple[UnitGroup, ...]:
    """The groups of units of a network's prunable weights.

    Scope "layer": one group per weight, whose unit u is row u. Tied to it are its bias and the affine of every BatchNorm
    that sees these units alone (also behind activations, pooling or a concatenation), so that a unit that is zero stays zero.

    Scope "group": weights that write into the same channels (coupled by a residual sum, a product, a depthwise convolution)
    are one group, whose unit is a channel, and so are channels that only go together (the channels of one group of a grouped
    convolution). Tied is every parameter that belongs to such a channel: biases, BatchNorms of the stream, layer scales. A
    stream can be removed only if all its writers are prunable and nothing else holds its channels (a LayerNorm, the
    network's result); else its weights are grouped as in scope "layer" and make no claim on the stream. Units that a size
    written as a number would keep (a literal number of heads) are left out. The heads of an
    nn.MultiheadAttention whose ``out_proj`` is prunable are units too.

    Args:
        model: any module that torch.export accepts; not modified.
        example_inputs: tensor or tuple of tensors, any batch size.
        weights: the prunable weights, as from ``sparsity.units.prunable_weights``.
        scope: see above.
        unit: "whole" as above; "filter": nothing is tied (the papers' "biases are not removed").

    Raises:
        ModelError: a weight that the network does not use, or no unit that could leave.
        UnsupportedError: torch.export does not accept the network.
    """
    if scope not in ("layer", "group") or unit not in ("whole", "filter"):
        raise ModelError(f"scope is 'layer' or 'group' and unit 'whole' or 'filter', not {scope!r} and {unit!r}")
    attention: list[Slot] = []
    if scope == "group":
        names = replaceable(model)
        model = replace(duplicate(model), names)  # in whose place heads can be told apart
        attention = list(_projections(names, weights))
    program, graph = network_graph(model, example_inputs)
    weights = [slot for slot in weights if slot.parameter not in graph.auxiliary]
    for slot in weights:
        if not any(slot.parameter in used for used in (graph.matrices, graph.raw, graph.frozen)):
            raise ModelError(f"{slot.parameter} is not used by {type(model).__name__}.forward, so that it cannot be pruned")
    layers = {slot.parameter: _layer_group(graph, slot, tie=unit == "whole") for slot in weights}
    if scope == "layer":
        return tuple(layers.values())
    slots = {slot.parameter: slot for slot in (*weights, *attention)}
    streams = _streams(graph, list(slots))
    fixed = _fixed(streams, model, example_inputs, program, graph)
    groups: list[UnitGroup] = []
    done: set[str] = set()
    for parameter in slots:
        if parameter in done or parameter in fixed:
            continue
        stream = streams.get(parameter)
        if stream is not None:
            groups.append(_stream_group(graph, stream, slots, tie=unit == "whole"))
            done.update(stream.weights)
        elif parameter in layers:
            groups.append(layers[parameter])
    if fixed and not groups:
        raise ModelError(f"{type(model).__name__}.forward has its sizes as numbers: no unit could leave; use scope 'layer'")
    return tuple(groups)


def _projections(attention: Sequence[str], weights: Sequence[Slot]) -> Iterator[Slot]:
    """The joint projections of those attention layers whose output projection is prunable."""
    prunable = {slot.parameter for slot in weights}
    for name in attention:
        prefix = f"{name}." if name else ""
        if f"{prefix}out_proj.weight" in prunable:
            yield Slot(parameter=f"{prefix}in_proj_weight")


def _layer_group(graph: ChannelGraph, slot: Slot, *, tie: bool) -> UnitGroup:
    """One weight: unit u is index u of its output axis; of a grouped transposed convolution, all outputs of group u."""
    size = int(graph.state[slot.parameter].shape[slot.axis])
    matrix = graph.matrices.get(slot.parameter)
    width = 1  # outputs of a unit
    if matrix is not None and matrix.out_axis == 1 and matrix.groups > 1:
        # Its filters do not lie along one axis; its groups do, along axis 0, whose rows are the inputs group by group.
        size, width = matrix.outputs.shape
        slot = Slot(parameter=slot.parameter, axis=0, positions=_consecutive(size, matrix.inputs.shape[1]))
    tied: list[Slot] = []
    if tie and matrix is not None:
        tied = [
            *(Slot(parameter=bias, positions=_consecutive(size, width)) for bias in _biases(graph, slot.parameter)),
            *_alone(graph, matrix.first_unit, size, width),
        ]
    return UnitGroup(name=layer_name(slot.parameter), size=size, filters=(slot,), tied=tuple(tied))


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stream:
    """Weights that write into the same channels, and those channels' classes in the order of their first writer."""

    weights: tuple[str, ...]
    classes: Ids


def _streams(graph: ChannelGraph, prunable: Sequence[str]) -> dict[str, _Stream]:
    """Weight name -> its stream, for the streams that can be removed."""
    roots = graph.roots(coupled=True)
    names = list(graph.matrices)
    classes = [np.unique(roots[matrix.outputs]) for matrix in graph.matrices.values()]
    # Writers are connected through the classes they share.
    rows = np.concatenate([np.full(found.size, index) for index, found in enumerate(classes)])
    columns = np.concatenate(classes) + len(names)
    size = len(names) + int(roots.max()) + 1
    label = connected_components(coo_array((np.ones(rows.size, np.int8), (rows, columns)), shape=(size, size)), directed=False)[1]
    stay = [roots[ids] for ids, _ in (*graph.pins, *graph.holds)]
    held = np.unique(np.concatenate(stay)) if stay else np.zeros(0, np.int64)
    streams = {}
    for component in dict.fromkeys(label[: len(names)].tolist()):
        members = [index for index in range(len(names)) if label[index] == component]
        weights = tuple(names[index] for index in members)
        ordered = list(dict.fromkeys(np.concatenate([roots[graph.matrices[name].outputs].ravel() for name in weights]).tolist()))
        if set(weights) <= set(prunable) and not np.isin(ordered, held).any():
            stream = _Stream(weights=weights, classes=np.array(ordered, np.int64))
            streams.update(dict.fromkeys(weights, stream))
    return streams


def _fixed(
    streams: Mapping[str, _Stream], model: nn.Module, example_inputs: ExampleInputs, program: Program, graph: ChannelGraph
) -> set[str]:
    """The weights whose streams cannot lose a unit, because the forward code has their size as a number."""
    distinct = [stream for stream in dict.fromkeys(streams.values()) if stream.classes.size > 1]
    roots = graph.roots(coupled=True)
    units = [np.flatnonzero(roots == stream.classes[-1]) for stream in distinct]
    held = spelled_out(model, example_inputs, program, graph, units)
    return {name for stream, stuck in zip(distinct, held, strict=True) if stuck for name in stream.weights}


def _stream_group(graph: ChannelGraph, stream: _Stream, slots: Mapping[str, Slot], *, tie: bool) -> UnitGroup:
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
    positions = _positions(unit[lines].ravel(), size)
    return Slot(parameter=slot.parameter, axis=axis, positions=_simple(positions, lines.size))


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


def _positions(units: Ids, size: int) -> Positions:
    """For each unit the indices that are its own."""
    positions: list[list[int]] = [[] for _ in range(size)]
    for index, number in enumerate(units.tolist()):
        if number >= 0:
            positions[number].append(index)
    return [tuple(own) for own in positions]


def _simple(positions: Positions, length: int) -> tuple[tuple[int, ...], ...] | None:
    """None where unit u has index u alone, and the axis no other indices."""
    return None if length == len(positions) and all(own == (index,) for index, own in enumerate(positions)) else tuple(positions)
