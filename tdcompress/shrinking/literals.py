"""Sizes that the forward code spells out: found by tracing the narrow network and comparing it with what was predicted."""

import traceback

import numpy as np
import torch
from torch import fx, nn

from tdcompress.errors import UnsupportedError, VerificationError
from tdcompress.shrinking.calls import base_name, indices_taken, value_operands, written_groups
from tdcompress.shrinking.cells import Ids, Signal, signals_of
from tdcompress.shrinking.channels import ChannelGraph
from tdcompress.shrinking.decide import Decision
from tdcompress.shrinking.numbers import written_sizes
from tdcompress.shrinking.trace import ExampleInputs, Program, code_place, source_line, trace


def depends_on_sizes(graph: ChannelGraph, decision: Decision) -> bool:
    """Whether a channel that goes reaches an operator whose sizes may be numbers in the forward code."""
    return any(_loses(graph.signals[name], decision) for name in graph.literal_nodes)


def first_misfit(
    narrow: nn.Module,
    example_inputs: ExampleInputs,
    program: Program,
    graph: ChannelGraph,
    decision: Decision,
    *,
    constants: bool = True,
) -> tuple[Ids, str] | None:
    """The channels at the first operator of the narrow network that does not come out as predicted, with the reason.

    Both traces are compared operator by operator. Each has to be the same operator, with the predicted shape and the same numbers
    as arguments, but for sizes. What is returned beside tensors has to be the same too. Say a number was 32 and is now 24: it is
    taken for the width of every tensor that went from 32 to 24. If there is none, it is taken for a function of all widths. A
    forward pass that raises is blamed on the sized operator of the same source line, else on the last one before it.

    Forward code may keep what it made for a shape (the anchors of a detector), and make it anew for a narrower one. Such
    operators take no values from inputs and weights, so where the traces differ in their operators, they can be left out.

    Args:
        narrow: the network after surgery.
        example_inputs: a batch as it takes it.
        program: the trace of the full network.
        graph: its channels.
        decision: what stays of them.
        constants: whether operators count that compute constants, where the operators differ.

    Returns:
        None when everything fits.

    Raises:
        VerificationError: the narrow network does not run, and no removed channel can be blamed for it.
    """
    try:
        traced = trace(narrow, example_inputs)
    except UnsupportedError as error:
        return _blame_exception(error, program, graph, decision)
    nodes, narrow_nodes = list(program.calls()), list(traced.calls())
    if not constants and [node.target for node in nodes] != [node.target for node in narrow_nodes]:
        nodes, narrow_nodes = of_data(program), of_data(traced)
    for full, actual in zip(nodes, narrow_nodes, strict=False):
        if full.target != actual.target or not _fits(full, actual, graph, decision):
            return _blame(full, nodes, graph, decision, _changed(full, actual))
    if len(nodes) != len(narrow_nodes):
        return _blame(nodes[-1], nodes, graph, decision)
    returned = _changed(program.nodes[-1], traced.nodes[-1])
    return _blame(program.nodes[-1], nodes, graph, decision, returned) if returned else None


def of_data(program: Program) -> list[fx.Node]:
    """The operators that read values of the inputs or of tensors of the modules; the others compute constants."""
    moving: set[fx.Node] = set()
    for node in program.nodes:
        if node.op == "placeholder":
            constant = node.name in program.tensors and program.tensors[node.name] not in program.narrowable
        else:
            constant = moving.isdisjoint(value_operands(node))
        if not constant:
            moving.add(node)
    return [node for node in program.calls() if node in moving]


def _fits(full: fx.Node, actual: fx.Node, graph: ChannelGraph, decision: Decision) -> bool:
    signals = signals_of(graph.signals[full.name])
    values = actual.meta["val"]
    values = (values,) if isinstance(values, torch.Tensor) else values
    if isinstance(values, list | tuple) and [predicted_shape(s, decision) for s in signals] != [tuple(v.shape) for v in values]:
        return False
    if (written_groups(actual) or 1) != (_predicted_groups(full, graph, decision) or 1):  # one group is no group
        return False
    taken = indices_taken(actual)
    if taken and full.name in graph.literal_nodes:
        return list(taken[1]) == _predicted_indices(full, graph, decision)
    return written_sizes(full) == written_sizes(actual)


def _predicted_groups(node: fx.Node, graph: ChannelGraph, decision: Decision) -> int | None:
    """Groups of a normalisation or a convolution that keep a channel of the result."""
    groups = written_groups(node)
    if groups is None:
        return None
    (signal,) = signals_of(graph.signals[node.name])
    live = decision.final.of(signal.channel).ravel()
    return groups if live.size == 1 else int(live.reshape(groups, -1).any(1).sum())


def _predicted_indices(node: fx.Node, graph: ChannelGraph, decision: Decision) -> list[int]:
    """Where the channels that a slice takes, and that stay, are in the narrow network."""
    taken = indices_taken(node)
    assert taken is not None
    (source,) = signals_of(graph.signals[node.all_input_nodes[0].name])
    live = decision.final.of(source.channel).ravel()
    places = np.cumsum(live) - 1
    return [int(places[index]) for index in taken[1] if live[index]]


def predicted_shape(signal: Signal, decision: Decision) -> tuple[int, ...]:
    """Shape of a tensor in the narrow network."""
    live = decision.final.of(signal.channel)
    shape = []
    for axis, length in enumerate(signal.shape):
        if live.shape[axis] == 1:
            shape.append(length)
        else:
            shape.append(int(live.any(tuple(a for a in range(live.ndim) if a != axis)).sum()))
    return tuple(shape)


def _changed(full: fx.Node, actual: fx.Node) -> frozenset[tuple[object, object]]:
    """The numbers of an operator, or of what is returned, that came out otherwise."""
    if full.target != actual.target:
        return frozenset()
    return frozenset((a, b) for a, b in zip(written_sizes(full), written_sizes(actual), strict=False) if a != b)


def _blame_exception(error: UnsupportedError, program: Program, graph: ChannelGraph, decision: Decision) -> tuple[Ids, str]:
    frames = traceback.extract_tb(error.__cause__.__traceback__) if error.__cause__ else []
    lines = {(frame.filename, frame.lineno) for frame in frames}
    nodes = list(program.calls())
    at_line = [node for node in nodes if source_line(node) in lines]
    last = (at_line or nodes)[-1]
    # a transposed convolution makes its old width of fewer inputs, and what reads that raises
    grouped = [node for node in reversed(nodes[: nodes.index(last)]) if written_groups(node) is not None]
    for node in (*(at_line or nodes[-1:]), *grouped):
        found = _channels(node, graph, decision)
        if found.size and node.name in graph.literal_nodes:
            return _same_line(node, nodes, graph, decision), _reason(node)
    return _blame(last, nodes, graph, decision)


def _blame(
    node: fx.Node,
    nodes: list[fx.Node],
    graph: ChannelGraph,
    decision: Decision,
    changed: frozenset[tuple[object, object]] = frozenset(),
) -> tuple[Ids, str]:
    """Channels of tensors with a width that changed as a number did; else at the operator, or at the last sized one before it."""
    of_width = [
        _gone(signal.channel, decision)
        for name in (n.name for n in nodes)
        for signal in signals_of(graph.signals.get(name))
        if changed & set(zip(signal.shape, predicted_shape(signal, decision), strict=True))
    ]
    if of_width:
        return np.unique(np.concatenate(of_width)), f"{_taker(node)} a width as a number"
    before = nodes[: nodes.index(node)] if node in nodes else []
    earlier = [n for n in reversed(before) if n.name in graph.literal_nodes]
    for candidate in (node, *earlier):
        found = _channels(candidate, graph, decision)
        if found.size:
            return _same_line(candidate, nodes, graph, decision), _reason(candidate)
    everything = _gone(np.arange(graph.channels), decision)
    if changed and everything.size:
        return everything, f"{_taker(node)} a number that follows from a width"
    raise VerificationError(
        f"the narrow network does not run as predicted at {code_place(node)}, and nothing removed explains it"
    )


def _taker(node: fx.Node) -> str:
    return "the network returns" if node.op == "output" else f"{base_name(node.target)} in {code_place(node)} takes"


def _gone(channels: Ids, decision: Decision) -> Ids:
    return channels[~decision.final.of(channels)]


def _same_line(node: fx.Node, nodes: list[fx.Node], graph: ChannelGraph, decision: Decision) -> Ids:
    """Removed channels at every operator of the same source line: other layers of the same class have the same number."""
    line = source_line(node)
    alike = [
        other for other in nodes if other is node or (other.target == node.target and line[0] and source_line(other) == line)
    ]
    return np.concatenate([_channels(other, graph, decision) for other in alike])


def _reason(node: fx.Node) -> str:
    number = "a size" if written_groups(node) is None else "its number of groups"
    return f"{base_name(node.target)} in {code_place(node)} has {number} written as a number"


def _channels(node: fx.Node, graph: ChannelGraph, decision: Decision) -> Ids:
    """Removed channels of an operator's operands and results."""
    found = []
    for source in (node, *node.all_input_nodes):
        for signal in signals_of(graph.signals.get(source.name)):
            found.append(_gone(signal.channel, decision))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _loses(results: Signal | tuple[Signal, ...], decision: Decision) -> bool:
    return any(not decision.final.of(s.channel).all() for s in signals_of(results))
