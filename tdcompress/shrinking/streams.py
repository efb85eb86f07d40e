"""Streams: weights that write into the same channels; which of those can never leave, and which are ranked apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from tdcompress.shrinking.cells import Ids
from tdcompress.shrinking.channels import ChannelGraph
from tdcompress.shrinking.demands import EqualCounts
from tdcompress.shrinking.fixed_sizes import spelled_out
from tdcompress.shrinking.trace import ExampleInputs, Program

Reasons = Mapping[int, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Channels that are ranked together, and the weights that write them.

    classes: (n,), those of the channels, in the order of their first writer.
    """

    weights: tuple[str, ...]
    classes: Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Weights that write into the same channels; the parts, of one chunk say, have to lose as many each.

    classes: (n,), those of the channels, in the order of their first writer.
    """

    weights: tuple[str, ...]
    classes: Ids
    parts: tuple[Part, ...]


def stuck(
    graph: ChannelGraph, model: nn.Module, example_inputs: ExampleInputs, program: Program, prunable: Sequence[str]
) -> Reasons:
    """Class (of ``graph.roots()``) -> why it can never leave: what pins or holds it, or a size that is written as a number.

    Args:
        graph: of the network.
        model: the network that ``program`` was traced from; not modified.
        example_inputs: of the network.
        program: its operators.
        prunable: the weights that are asked about; streams of others are not tried.
    """
    roots = graph.roots()
    reasons: dict[int, str] = {}
    for ids, reason in (*graph.pins, *graph.holds):
        for root in np.unique(roots[ids]).tolist():
            reasons.setdefault(root, reason)
    _hold_heads(graph, roots, reasons)
    coupled = graph.roots(coupled=True)
    free = coupled[~np.isin(coupled, coupled[np.isin(roots, list(reasons))])]  # what goes together with what stays, stays
    tried = []
    for stream in _streams(graph, coupled):
        candidates = [part.classes[np.isin(part.classes, free)] for part in stream.parts]
        if max(found.size for found in candidates) > 1 and not set(stream.weights).isdisjoint(prunable):
            # one of each part: halves that must stay equally wide lose one each, or neither
            tried.append((stream, np.flatnonzero(np.isin(coupled, [found[-1] for found in candidates if found.size]))))
    units, names = [unit for _, unit in tried], [stream.weights[0] for stream, _ in tried]
    held = spelled_out(model, example_inputs, program, graph, units, names)
    for (stream, _), reason in zip(tried, held, strict=True):
        for root in np.unique(roots[np.isin(coupled, stream.classes)]).tolist() if reason else ():
            reasons.setdefault(root, reason)
    return reasons


def _hold_heads(graph: ChannelGraph, roots: Ids, reasons: dict[int, str]) -> None:
    """What a head has beside channels that stay, stays with them: no values leave where queries are normalised over all heads."""
    rows = [row for lot in graph.heads if len(lot) > 1 for row in lot if (row >= 0).all()]
    known = -1
    while known != len(reasons):
        known = len(reasons)
        for row in rows:
            found = roots[row].tolist()
            why = next((reasons[root] for root in found if root in reasons), None)
            if why is not None:
                for root in found:
                    reasons.setdefault(root, why)


def claimed(graph: ChannelGraph, prunable: Sequence[str], stays: Reasons) -> dict[str, Stream]:
    """Weight name -> its stream, for the streams that can be removed: all writers are prunable, and no channel stays.

    Args:
        graph: the network's.
        prunable: names of prunable weights.
        stays: class -> why it stays.
    """
    coupled = graph.roots(coupled=True)
    held = np.unique(coupled[np.isin(graph.roots(), list(stays))])
    return {
        name: stream
        for stream in _streams(graph, coupled)
        if set(stream.weights) <= set(prunable) and not np.isin(stream.classes, held).any()
        for name in stream.weights
    }


def _streams(graph: ChannelGraph, roots: Ids) -> Iterator[Stream]:
    """All streams of a network; writers are connected through the classes they share."""
    names = list(graph.matrices)
    if not names:
        return
    classes = [np.unique(roots[matrix.outputs]) for matrix in graph.matrices.values()]
    rows = np.concatenate([np.full(found.size, index) for index, found in enumerate(classes)])
    columns = np.concatenate(classes) + len(names)
    size = len(names) + int(roots.max()) + 1
    label = connected_components(coo_array((np.ones(rows.size, np.int8), (rows, columns)), shape=(size, size)), directed=False)[1]
    for component in dict.fromkeys(label[: len(names)].tolist()):
        weights = tuple(name for index, name in enumerate(names) if label[index] == component)
        ordered = list(dict.fromkeys(np.concatenate([roots[graph.matrices[name].outputs].ravel() for name in weights]).tolist()))
        yield Stream(weights=weights, classes=np.array(ordered, np.int64), parts=tuple(_parts(graph, roots, weights, ordered)))


def _parts(graph: ChannelGraph, roots: Ids, weights: Sequence[str], classes: Sequence[int]) -> Iterator[Part]:
    """The classes by the rows they lie in, of everything that must stay equally wide."""
    rows: list[frozenset[int]] = []
    for demand in graph.demands:
        if isinstance(demand, EqualCounts):
            parts = [frozenset(roots[ids[ids >= 0]].tolist()) for ids in demand.rows.swapaxes(0, 1)]
            rows += parts if len(set(parts)) > 1 else []  # halves of a head go together
    lots: dict[tuple[int, ...], list[int]] = {}
    for root in classes:
        lots.setdefault(tuple(index for index, row in enumerate(rows) if root in row), []).append(root)
    for lot in lots.values():
        writers = tuple(name for name in weights if np.isin(roots[graph.matrices[name].outputs], lot).any())
        yield Part(weights=writers, classes=np.array(lot, np.int64))
