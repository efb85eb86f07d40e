"""What shrinking did, layer by layer."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from tdcompress.shrinking.channels import ChannelGraph, Flags, layer_name
from tdcompress.shrinking.decide import Decision


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """Units of one weight matrix.

    Attributes:
        name: of the layer.
        units_before: in the full network.
        units_after: in the shrunk one.
        dead_kept: units that stay although they do not depend on the input, or although nothing uses what they compute.
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

    def __str__(self) -> str:
        """A table for people: the layers, the sums, the certificate."""
        head = ("layer", "units", "dead but kept")
        rows = [head, *(_line(layer) for layer in self.layers)]
        names, units = (max(len(row[column]) for row in rows) for column in (0, 1))
        return "\n".join(
            (
                *(f"{name:<{names}}  {width:<{units}}  {dead}".rstrip() for name, width, dead in rows),
                f"parameters {self.parameters_before:,} -> {self.parameters_after:,}, "
                f"multiply-accumulates {self.macs_before:,} -> {self.macs_after:,}",
                f"certificate: outputs up to {self.max_output:.3g} differ by at most {self.max_error:.1e} in float64",
                *self.notes,
            )
        )


def _line(layer: LayerReport) -> tuple[str, str, str]:
    reasons = "; ".join(f"{count}: {reason}" for reason, count in layer.reasons)
    return layer.name, f"{layer.units_before} -> {layer.units_after}", reasons


def layer_reports(graph: ChannelGraph, decision: Decision) -> tuple[LayerReport, ...]:
    """Units before and after, and the dead ones that stay, of every weight matrix."""
    writers = _living_writers(graph, decision)
    lost = {root: operator for ids, operator in graph.lost for root in decision.final.roots[ids].tolist()}
    reports = []
    for name, matrix in graph.matrices.items():
        outputs = matrix.outputs.ravel()
        live, unread = decision.final.of(outputs), ~decision.read[decision.final.roots[outputs]]
        stays = outputs[live & (unread | _constant(graph, name))]
        reasons = Counter(_reason(decision, int(channel), writers, lost, layer_name(name)) for channel in stays)
        reports.append(
            LayerReport(
                name=layer_name(name),
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
        for root in decision.final.roots[matrix.outputs.ravel()[~_constant(graph, name)]].tolist():
            writers.setdefault(root, layer_name(name))
    return writers


def _reason(decision: Decision, channel: int, writers: dict[int, str], lost: dict[int, str], layer: str) -> str:
    """Why a dead unit stays: what holds its channel; and what else makes it vary: another writer, or an operator."""
    root = int(decision.final.roots[channel])
    if not decision.read[root]:
        return decision.reason(channel)
    other = writers.get(root)
    if other is not None and other != layer:
        return f"{other} writes into the same channel; {decision.reason(channel)}"
    varies = f"{lost[root]} makes its constant vary; " if root in lost else ""
    return varies + decision.reason(channel)


def _constant(graph: ChannelGraph, name: str) -> Flags:
    return graph.constant_units.get(name, np.zeros(graph.matrices[name].outputs.size, bool))
