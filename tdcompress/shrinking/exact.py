"""Exact shrinking: find dead channels in the weights, remove them everywhere at once, and prove that nothing changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdcompress.errors import VerificationError
from tdcompress.shrinking import rebuild
from tdcompress.shrinking.align import check_align
from tdcompress.shrinking.attention import NarrowAttention, replace, replaceable
from tdcompress.shrinking.cells import Ids
from tdcompress.shrinking.certificate import Certificate, certify, differs_at
from tdcompress.shrinking.channels import ChannelGraph
from tdcompress.shrinking.count import parameters_and_macs
from tdcompress.shrinking.decide import Decision, decide
from tdcompress.shrinking.demands import matrix_readers
from tdcompress.shrinking.duplicate import duplicate
from tdcompress.shrinking.elsewhere import computes_otherwise
from tdcompress.shrinking.kept import Kept, to_json
from tdcompress.shrinking.literals import depends_on_sizes, first_misfit
from tdcompress.shrinking.propagate import network_graph
from tdcompress.shrinking.remembered import recall
from tdcompress.shrinking.report import ShrinkReport, layer_reports
from tdcompress.shrinking.surgery import Cut, can_add_bias, cuts, fold, folded, narrowed
from tdcompress.shrinking.trace import ExampleInputs, Program, as_tuple, first_names
from tdcompress.sparsity.units import require_layers, require_module, require_values

CONSTANT = (
    "the network returns the same whatever its input is, so that the certificate proves little: its last layer is 0, or too many"
    " units are dead"
)


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """A shrunk network.

    Attributes:
        model: an ordinary module of the same class, to train, compile, export or save; in the mode (train or eval) of the
            full one.
        kept: JSON values from which ``rebuild.narrow`` builds the same module from the plain one.
        report: what was removed, what stayed and why, and the certificate.
    """

    model: nn.Module
    kept: dict[str, Any]
    report: ShrinkReport


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A decision that surgery can carry out, with the network that it makes: in its own precision, and exactly in float64."""

    decision: Decision
    kept: Kept
    narrow: nn.Module
    exact: nn.Module
    folded_biases: tuple[str, ...]


@torch.inference_mode(mode=False)
def shrink(model: nn.Module, example_inputs: ExampleInputs, *, align: int = 1) -> Shrunk:
    """Remove every channel that is constant, or that nobody reads, as far as that is exact.

    Dead channels are found in the weights. A filter of zeros makes a constant, and constants pass through bias, BatchNorm and
    activations. A channel whose value is constant at all its readers goes. A constant 0 costs nothing; another one moves into the
    readers' biases where that is exact. Everything is computed, and certified, in float64; the biases that took constants
    are then rounded to the network's own precision.

    Args:
        model: any module that torch.export accepts; not modified.
        example_inputs: tensor or tuple of tensors, any batch size.
        align: of the channels that could go, keep so many that what each layer makes is a multiple of this wide, or as wide as it
            was. So is what it reads, if that was a multiple. onnxruntime computes convolutions in blocks of 16 channels.

    Raises:
        ValueError: ``align`` no whole number, or below 1.
        ModelError: ``model`` is no module or has no values, or ``example_inputs`` no tensors.
        UnsupportedError: a TorchScript program, or torch.export does not accept the network.
        VerificationError: the certificate failed; nothing is returned.
    """
    check_align(align)
    require_module(model)
    require_layers(model)
    require_values(model)
    # nn.MultiheadAttention cannot be narrowed; the stand-in can, and where nothing of it goes, the original comes back.
    attention = replaceable(model)
    flexible = replace(duplicate(model), attention)
    elsewhere = computes_otherwise(flexible, as_tuple(example_inputs))
    found = _certified_by_what_pruning_traced(model, flexible, example_inputs, elsewhere, align)
    graph, plan, certificate = found or _certified_at_all_sizes(model, flexible, example_inputs, elsewhere, align)
    narrow = rebuild.narrow(model, to_json(plan.kept))
    exact = dict(plan.exact.named_parameters())
    with torch.no_grad():
        for name, parameter in narrow.named_parameters():
            if name in plan.folded_biases:
                parameter.copy_(exact[name])
    parameters_before, macs_before = parameters_and_macs(model, example_inputs)
    parameters_after, macs_after = parameters_and_macs(narrow, example_inputs)
    report = ShrinkReport(
        layers=layer_reports(graph, plan.decision),
        parameters_before=parameters_before,
        parameters_after=parameters_after,
        macs_before=macs_before,
        macs_after=macs_after,
        folded_biases=plan.folded_biases,
        max_error=certificate.max_error,
        max_output=certificate.max_output,
        notes=(CONSTANT,) if certificate.constant else (),
    )
    return Shrunk(model=narrow, kept=to_json(plan.kept), report=report)


_Certified = tuple[ChannelGraph, _Plan, Certificate]
_Elsewhere = Sequence[tuple[Tensor, ...]]  # inputs of other sizes


def _certified_by_what_pruning_traced(
    model: nn.Module, flexible: nn.Module, example_inputs: ExampleInputs, elsewhere: _Elsewhere, align: int
) -> _Certified | None:
    """None where nothing is remembered, or anything does not come out as predicted: it may be out of date."""
    program = recall(model, flexible, as_tuple(example_inputs))
    if program is None:
        return None
    _, graph = network_graph(flexible, example_inputs, elsewhere, program)
    plan = _plan(flexible, graph, [], align)
    if depends_on_sizes(graph, plan.decision) and first_misfit(
        plan.narrow, example_inputs, program, graph, plan.decision, constants=False
    ):
        return None
    try:
        certificate = certify(model, plan.exact, example_inputs)
    except (VerificationError, RuntimeError):
        return None
    return (graph, plan, certificate) if differs_at(model, plan.exact, example_inputs) is None else None


def _certified_at_all_sizes(
    model: nn.Module, flexible: nn.Module, example_inputs: ExampleInputs, elsewhere: _Elsewhere, align: int
) -> _Certified:
    """Plan with what constants turn out to depend on, until the certificate holds at other sizes of the inputs too."""
    program = None
    while True:
        program, graph = network_graph(flexible, example_inputs, elsewhere, program)
        plan, certificate = _certified_plan(model, flexible, example_inputs, program, graph, align)
        clash = differs_at(model, plan.exact, example_inputs)
        if clash is None:
            return graph, plan, certificate
        # A constant that holds for the examples' size only. Tracing at the other size finds the numbers that made it.
        shapes = [tuple(item.shape) for item in clash.inputs]
        if any(shapes == [tuple(item.shape) for item in known] for known in elsewhere):
            raise VerificationError(f"with inputs of shape {', '.join(map(str, shapes))}: {clash.reason}")
        elsewhere = (*elsewhere, clash.inputs)


def _certified_plan(
    model: nn.Module, flexible: nn.Module, example_inputs: ExampleInputs, program: Program, graph: ChannelGraph, align: int
) -> tuple[_Plan, Certificate]:
    """Plan, try, and keep what the forward code turns out to need, until the certificate holds.

    A network whose forward code spells sizes out is traced again after narrowing; the first operator that does not come out as
    predicted keeps its channels. Each turn keeps at least one channel more, so this ends.
    """
    keep: list[tuple[Ids, str]] = []
    while True:
        plan = _plan(flexible, graph, keep, align)
        misfit = None
        if depends_on_sizes(graph, plan.decision):
            misfit = first_misfit(plan.narrow, example_inputs, program, graph, plan.decision, constants=False)
        if misfit is None:
            try:
                return plan, certify(model, plan.exact, example_inputs)
            except (VerificationError, RuntimeError) as error:
                misfit = first_misfit(plan.narrow, example_inputs, program, graph, plan.decision)
                if misfit is None:
                    raise VerificationError(f"shrinking {type(model).__name__} failed: {error}") from error
        keep.append(misfit)


def _plan(model: nn.Module, graph: ChannelGraph, keep: list[tuple[Ids, str]], align: int) -> _Plan:
    """Decide, and make the narrow network in float64."""
    readers = matrix_readers(graph)
    while True:
        decision = decide(graph, keep, align=align)
        shifted = [reader for reader in readers if folded(reader, graph, decision) is not None]
        stuck = [r for r in shifted if r.bias is None and not can_add_bias(model, r)]
        if not stuck:
            break
        for reader in stuck:
            constants = reader.matrix.inputs[reader.vector["known"] & (reader.vector["value"] != 0)]
            keep.append((constants, f"{reader.layer} has no bias that could take its constant"))
    new_biases = {r.matrix.parameter: f"{r.layer}.bias" for r in shifted if r.bias is None}
    found = cuts(graph, decision, _owned(model))
    attention = _narrow_attention(model, found)
    kept = Kept(cuts=found, new_biases=tuple(new_biases.values()), narrow_attention=attention)
    narrow = narrowed(duplicate(model), kept.cuts, kept.new_biases)
    exact = duplicate(narrow).double()
    fold(exact, graph, decision, new_biases)
    biases: Mapping[str, None] = dict.fromkeys(r.bias or new_biases[r.matrix.parameter] for r in shifted)
    return _Plan(decision=decision, kept=kept, narrow=narrow, exact=exact, folded_biases=tuple(biases))


def _owned(model: nn.Module) -> frozenset[str]:
    return frozenset(dict(model.named_parameters())) | frozenset(dict(model.named_buffers()))


def _narrow_attention(model: nn.Module, found: Mapping[str, Cut]) -> tuple[str, ...]:
    """The stand-ins that are needed: a weight of theirs gets narrower, be it cut under another layer's name."""
    first = first_names(model)
    return tuple(
        path
        for path, module in model.named_modules()
        if isinstance(module, NarrowAttention) and any(first[name] in found for name, _ in module.named_parameters(path))
    )
