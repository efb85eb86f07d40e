"""Widths in whole blocks: channels that could go and stay, so that what is left is a multiple of a block wide."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tdcompress.errors import ArgumentError
from tdcompress.shrinking.cells import Ids
from tdcompress.shrinking.channels import ALIGN, ChannelGraph, Flags, Liveness, Needs

Costs = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """The width of a tensor is a multiple of ``align``, or what it was.

    Attributes:
        ids: channels of the tensor, (groups, channels per group).
        cost: (channels,): entry c counts the weights that write or read class c. The cheapest channels come back, the lowest
            index first.
        align: the block.
    """

    ids: Ids
    cost: Costs
    align: int
    tier: ClassVar[int] = ALIGN

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        live = now.of(self.ids)
        width = int(live.sum())
        if width % self.align == 0 or live.all():
            return
        groups, per_group = live.shape
        back = self._each_group(live) if groups > 1 and per_group > 1 else self._cheapest(now, live)
        yield self.ids[back], f"a multiple of {self.align}"

    def _cheapest(self, now: Liveness, live: Flags) -> Flags:
        """Whole classes, until the width fits; a class may count several times (the two halves of a gate)."""
        roots = now.roots[self.ids]
        classes, first, counts = np.unique(roots[~live], return_index=True, return_counts=True)
        order = np.lexsort((first, self.cost[classes]))
        widths = int(live.sum()) + np.cumsum(counts[order])
        fits = np.flatnonzero(widths % self.align == 0)
        chosen = order[: fits[0] + 1] if fits.size else order
        return np.asarray(~live & np.isin(roots, classes[chosen]))

    def _each_group(self, live: Flags) -> Flags:
        """Equal numbers in each group that stays: the fewest channels in all, then the fewest groups."""
        groups, per_group = live.shape
        stays, most = int(live.any(1).sum()), int(live.sum(1).max())
        sizes = [(g * n, g, n) for g in range(stays, groups + 1) for n in range(max(most, 1), per_group + 1)]
        _, want_groups, want = min((s for s in sizes if s[0] % self.align == 0), default=(live.size, groups, per_group))
        rows = np.array(live.any(1))
        rows[np.flatnonzero(~rows)[: want_groups - stays]] = True
        missing = want - live.sum(1, keepdims=True)
        return np.asarray(~live & rows[:, None] & (np.cumsum(~live, axis=1) <= missing))


def check_align(align: int) -> None:
    """Refuse what is no block.

    Raises:
        ArgumentError: no whole number, or below 1.
    """
    if type(align) is not int or align < 1:
        raise ArgumentError(f"align = {align!r}: a whole number, at least 1")


def aligned(graph: ChannelGraph, roots: Ids, align: int) -> list[Aligned]:
    """The demands of an alignment, narrow tensors first, so that what is concatenated of them fits already.

    They concern what every weight makes, and what it reads where the full width is a multiple of ``align``: what is
    concatenated of tensors that never fit does not either.

    Args:
        graph: the network's.
        roots: class of each channel, (channels,).
        align: what widths have to be a multiple of.
    """
    if align == 1:
        return []
    cost = _costs(graph, roots)
    found: dict[tuple[int, bytes], Ids] = {}
    for ids in _tensors(graph, align):
        found.setdefault((len(ids), np.sort(roots[ids.ravel()]).tobytes()), ids)  # a stream has many writers and readers
    return [Aligned(ids=ids, cost=cost, align=align) for ids in sorted(found.values(), key=np.size)]


def _tensors(graph: ChannelGraph, align: int) -> Iterator[Ids]:
    for matrix in graph.matrices.values():
        yield matrix.outputs
        if matrix.inputs.size % align == 0:
            yield matrix.inputs


def _costs(graph: ChannelGraph, roots: Ids) -> Costs:
    """Weights that each class takes part in, by the full sizes."""
    cost = np.zeros(graph.channels, np.int64)
    for name, matrix in graph.matrices.items():
        weights = graph.state[name].numel()
        for ids in (matrix.outputs, matrix.inputs):
            np.add.at(cost, roots[ids.ravel()], weights // ids.size)
    return cost
