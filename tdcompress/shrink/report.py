"""What shrinking did, layer by layer."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from tdcompress.shrink.channels import ChannelGraph, Flags
from tdcompress.shrink.decide import Decision


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """Units of one weight matrix.

    Attributes:
        name: of the layer.
        units_before: in the full network.
        units_after: in the shrunk one.
        dead_kept: units that stay although they do not depend on the input, or although nothing reads them, to align widths.
        reasons: why those stay: (reason, number of units).
    """

    name: str
    units_before: int
    units_after: int
    dead_kept: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class ShrinkReport:
    """One shrinking.

    Attributes:
        layers: in the order of the program.
        parameters_before: of the full network.
        parameters_after: of the shrunk one.
        macs_before: multiply-accumulates for one example, of the full network.
        macs_after: the same of the shrunk one.
        folded_biases: layers whose bias took constants of removed channels.
        max_error: certificate: max |masked - shrunk| in float64.
        max_output: certificate: max |masked|.
        notes: what a person should know about this shrinking.
    """

    layers: tuple[LayerReport, ...]
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    folded_biases: tuple[str, ...]
    max_error: float
    max_output: float
    notes: tuple[str, ...] = ()


def layer_reports(graph: ChannelGraph, decision: Decision) -> tuple[LayerReport, ...]:
    """Units before and after, and the dead ones that stay, of every weight matrix."""
    writers = _living_writers(graph, decision)
    reports = []
    for name, matrix in graph.matrices.items():
        live = decision.now.of(matrix.outputs).ravel()
        spare = decision.aligned[decision.now.roots[matrix.outputs.ravel()]]
        stays = matrix.outputs.ravel()[spare | (live & _constant(graph, name))]
        reasons = Counter(_reason(decision, int(channel), writers, _layer(name)) for channel in stays)
        reports.append(
            LayerReport(
                name=_layer(name),
                units_before=live.size,
                units_after=int(live.sum()),
                dead_kept=stays.size,
                reasons=tuple(reasons.most_common()),
            )
        )
    return tuple(reports)


def _living_writers(graph: ChannelGraph, decision: Decision) -> dict[int, str]:
    """Class -> the first layer with a unit in it that depends on the input."""
    writers: dict[int, str] = {}
    for name, matrix in graph.matrices.items():
        for root in decision.now.roots[matrix.outputs.ravel()[~_constant(graph, name)]].tolist():
            writers.setdefault(root, _layer(name))
    return writers


def _reason(decision: Decision, channel: int, writers: dict[int, str], layer: str) -> str:
    """Why a dead unit stays: what holds its channel, and who else writes into it."""
    other = writers.get(int(decision.now.roots[channel]))
    if decision.aligned[decision.now.roots[channel]]:
        return decision.reason(channel)
    shared = f"{other} writes into the same channel; " if other is not None and other != layer else ""
    return shared + decision.reason(channel)


def _constant(graph: ChannelGraph, name: str) -> Flags:
    return graph.constant_units.get(name, np.zeros(graph.matrices[name].outputs.size, bool))


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter
