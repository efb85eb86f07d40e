"""Build the channel graph of a program: apply each operator's rule in order."""

import contextlib
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, fx, nn

from tdcompress.errors import UnsupportedError
from tdcompress.shrinking import (
    rules_attention,
    rules_layout,
    rules_matrix,
    rules_norm,
    rules_pointwise,
    rules_pool,
    rules_reduce,
    rules_shuffle,
)
from tdcompress.shrinking.calls import MADE, OperatorCall, Result, Rule, base_name, bind, untracked
from tdcompress.shrinking.cells import Signal, blanked, plain, signals_of
from tdcompress.shrinking.channels import ChannelGraph
from tdcompress.shrinking.demands import MatrixReader, matrix_readers
from tdcompress.shrinking.numbers import picks
from tdcompress.shrinking.sizes import agreed, varying
from tdcompress.shrinking.trace import ExampleInputs, Program, code_place, trace, unused

RULES: Mapping[str, Rule] = {
    **rules_pointwise.RULES,
    **rules_matrix.RULES,
    **rules_attention.RULES,
    **rules_norm.RULES,
    **rules_pool.RULES,
    **rules_reduce.RULES,
    **rules_shuffle.RULES,
    **rules_layout.RULES,
}

RETURNED = "the network returns it"


def network_graph(
    model: nn.Module,
    example_inputs: ExampleInputs,
    elsewhere: Sequence[tuple[Tensor, ...]] = (),
    program: Program | None = None,
) -> tuple[Program, ChannelGraph]:
    """Trace a network and build its channel graph.

    Where evaluation leaves parameters out (auxiliary heads), training is followed as well, so that these layers go on
    fitting what they read. If training cannot be traced, such layers may not fit after shrinking; evaluation is exact in any
    case.

    Args:
        model: the network.
        example_inputs: tensor or tuple of tensors.
        elsewhere: inputs of other shapes: it is traced with them too, to find the numbers that follow from the size.
        program: its trace, where there is one already.

    Raises:
        UnsupportedError: torch.export does not accept the network.
    """
    program = program or trace(model, example_inputs)
    training = None
    if unused(model, program):
        with contextlib.suppress(UnsupportedError):
            training = trace(model, example_inputs, training=True)
    others = [trace(model, inputs) for inputs in elsewhere]
    graph = channel_graph(program, training, sized=varying(program, others))
    if others:
        agreeing = iter(agreed(matrix_readers(graph), [matrix_readers(channel_graph(other)) for other in others]))
        graph.demands = [next(agreeing) if isinstance(demand, MatrixReader) else demand for demand in graph.demands]
    return program, graph


def channel_graph(program: Program, training: Program | None = None, *, sized: frozenset[str] = frozenset()) -> ChannelGraph:
    """Follow channels, constants and sources from the inputs to the outputs of a program.

    The channels of what the network returns stay, as do those that reach an operator without a rule.

    Args:
        program: the forward pass in eval mode.
        training: the one in train mode, for the layers that ``program`` leaves out.
        sized: operators and literal tensors whose numbers hold for the examples' size only.
    """
    graph = ChannelGraph(state={**(training.state if training else {}), **program.state}, sized=sized)
    _follow_all(graph, program)
    if training is not None:
        _add_layers(graph, training)
    graph.pin_frozen()
    _finish_readers(graph)
    return graph


def _add_layers(graph: ChannelGraph, training: Program) -> None:
    """Follow training too; of what it demands, keep what concerns layers that evaluation does not have."""
    evaluated, demands, affines = set(graph.matrices), graph.demands, graph.affines
    signals, literal_nodes, unread = graph.signals, graph.literal_nodes, graph.unread
    graph.signals, graph.literal_nodes, graph.demands, graph.affines, graph.unread = {}, [], [], [], []
    _follow_all(graph, training)
    returned = [s.channel.ravel() for node in training.outputs for s in signals_of(graph.signals.get(node.name))]
    graph.auxiliary = {
        name
        for name in graph.matrices.keys() - evaluated
        if np.isin(graph.matrices[name].outputs, np.concatenate(returned)).any()
    }
    graph.demands = demands + [
        demand for demand in graph.demands if not isinstance(demand, MatrixReader) or demand.matrix.parameter not in evaluated
    ]
    seen = {affine.weight for affine in affines}
    graph.affines = affines + [affine for affine in graph.affines if affine.weight not in seen]
    graph.signals, graph.literal_nodes, graph.unread = signals, literal_nodes, unread


def _follow_all(graph: ChannelGraph, program: Program) -> None:
    """Apply the rules of one program."""
    for node in program.nodes:
        if node.op == "placeholder" and node.name not in program.tensors:
            value = node.meta.get("val")
            graph.signals[node.name] = plain(value.shape if isinstance(value, Tensor) else ())
        elif node.op == "call_function" and node.name not in program.tensors:
            _follow(graph, node, program)
    for node in program.outputs:
        for signal in signals_of(graph.signals.get(node.name)):
            graph.pin(signal.channel, RETURNED)
    for name in program.state.keys() - program.narrowable:
        graph.frozen[name] = f"{name} is a literal tensor of the forward code"


def _follow(graph: ChannelGraph, node: fx.Node, program: Program) -> None:
    """Apply the rule of one node and remember its result."""
    if node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        results, index = graph.signals[source.name], node.args[1]
        assert isinstance(results, tuple)
        assert isinstance(index, int)
        graph.signals[node.name] = results[index]
        return
    if not isinstance(node.target, torch._ops.OpOverload):
        graph.signals[node.name] = _foreign(graph, node, program)
        return
    call = bind(graph, node, program.tensors)
    rule = RULES.get(base_name(node.target))
    if rule is None and torch.Tag.pointwise in node.target.tags:
        rule = rules_pointwise.pointwise
    if not (call.tensors() or base_name(node.target) in MADE):
        rule = None
    result = _apply(graph, call, rule) if rule else untracked(graph, call, "this operator is not handled")
    if node.name in graph.sized and picks(node.target):
        (picked,) = signals_of(result)
        result = Signal(shape=picked.shape, cells=blanked(picked.cells, value=True))  # another place of the table elsewhere
    graph.signals[node.name] = result
    _note_lost(graph, call, result)
    if node.target._schema.is_mutable and isinstance(node.args[0], fx.Node):
        graph.signals[node.args[0].name] = result  # in-place: later readers see the new value


def _apply(graph: ChannelGraph, call: OperatorCall, rule: Rule) -> Result:
    """The result of a rule; of operands that it was not written for (a scalar, an axis that is missing), all channels stay.

    What it has noted until then only keeps more.
    """
    try:
        return rule(graph, call)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, AssertionError, AttributeError):
        return untracked(graph, call, "this form of it is not handled")


def _note_lost(graph: ChannelGraph, call: OperatorCall, result: Result) -> None:
    """Remember the constants that an operator makes vary."""
    varying = [signal.channel[~signal.cells["known"]] for signal in signals_of(result)]
    for operand in call.tensors():
        if isinstance(operand, Signal) and operand.cells["known"].any() and varying:
            lost = np.intersect1d(operand.channel[operand.cells["known"]], np.concatenate(varying))
            graph.lost.append((lost, f"{base_name(call.node.target)} in {call.layer}"))


def _foreign(graph: ChannelGraph, node: fx.Node, program: Program) -> Result:
    """A call that is no aten operator (a higher-order or a custom one): everything that reaches it stays."""
    reason = f"{node.target} in {code_place(node)}: this operator is not handled"
    for source in node.all_input_nodes:
        if source.name in program.tensors:
            graph.frozen[program.tensors[source.name]] = reason
        for signal in signals_of(graph.signals.get(source.name)):
            graph.pin(signal.channel, reason)
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        return tuple(plain(item.shape if isinstance(item, Tensor) else ()) for item in value)
    return plain(value.shape if isinstance(value, Tensor) else ())


def _finish_readers(graph: ChannelGraph) -> None:
    """Know what only the whole program tells: weights used more than once take no constants, unread units need no inputs."""
    readers = matrix_readers(graph)
    uses = Counter(name for reader in readers for name in (reader.matrix.parameter, reader.bias) if name)
    unread = np.concatenate([np.zeros(0, np.int64), *graph.unread])

    def finished(reader: MatrixReader) -> MatrixReader:
        matrix = reader.matrix
        if max(uses[matrix.parameter], uses[reader.bias or ""]) > 1:
            return replace(reader, no_fold="its weights are shared")
        idle = np.isin(np.arange(matrix.first_unit, matrix.first_unit + matrix.outputs.size), unread)
        if matrix.parameter in graph.constant_units:
            graph.constant_units[matrix.parameter] = graph.constant_units[matrix.parameter] | idle
        return replace(reader, used=reader.used & ~idle.reshape(*matrix.outputs.shape, 1))

    graph.demands = [finished(demand) if isinstance(demand, MatrixReader) else demand for demand in graph.demands]
