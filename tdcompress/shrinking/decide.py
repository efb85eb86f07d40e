"""Which channels live: the least set that holds the pins and satisfies every reader and constraint."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tdcompress.shrinking.align import aligned
from tdcompress.shrinking.cells import Ids
from tdcompress.shrinking.channels import EVEN, LAST, READ, SHAPE, ChannelGraph, Demand, Flags, Liveness


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The outcome for one network.

    Attributes:
        final: liveness of every channel.
        reasons: class -> why it lives: what fixes it, or else the first reader found.
        read: class -> whether anything uses its values; the others live for the sake of shapes.
    """

    final: Liveness
    reasons: Mapping[int, str]
    read: Flags

    def reason(self, channel: int) -> str:
        """Why a channel stays."""
        return self.reasons[int(self.final.roots[channel])]


def decide(graph: ChannelGraph, keep: Iterable[tuple[Ids, str]] = (), *, align: int = 1) -> Decision:
    """Mark what must live, from the network's results back to its inputs; the rest can be removed.

    Args:
        graph: of the network.
        keep: further channels that stay, in arrays of any shape, each with the reason.
        align: widths are rounded up to a multiple of this.
    """
    roots = graph.roots()
    now = Liveness(live=np.zeros(graph.channels, bool), roots=roots)
    reasons: dict[int, str] = {}

    def mark(ids: Ids, reason: str) -> bool:
        classes = np.unique(roots[ids[ids >= 0]])
        fresh = classes[~now.live[classes]]
        now.live[fresh] = True
        explain(fresh, reason)
        return bool(fresh.size)

    def explain(classes: Ids, reason: str) -> None:
        for root in classes.tolist():
            reasons.setdefault(root, reason)

    tiers: list[list[Demand]] = [
        [d for d in reversed(graph.demands) if d.tier == tier] for tier in (READ, SHAPE, EVEN, LAST)
    ]  # results before inputs: few rounds
    fixed = (*graph.holds, *keep)
    for ids, reason in graph.pins:
        mark(ids, reason)
    for ids, reason in fixed:
        explain(roots[ids], reason)
    _satisfy(tiers[:1], now, mark)
    read = now.live.copy()
    for ids, reason in fixed:
        mark(ids, reason)
    _satisfy(tiers, now, mark)
    because = f"kept to align to {align}"  # also what channels need that are kept for it
    _satisfy([*tiers, list(aligned(graph, roots, align))], now, lambda ids, _: mark(ids, because))
    return Decision(final=now, reasons=reasons, read=read)


def _satisfy(tiers: Sequence[Sequence[Demand]], now: Liveness, mark: Callable[[Ids, str], bool]) -> None:
    """Ask every demand until none needs more; the lower tiers first, and again whenever a higher one chose something."""
    tier = 0
    while tier < len(tiers):
        changed = False
        for demand in tiers[tier]:
            for ids, reason in demand.needs(now):
                changed |= mark(ids, reason)
            if changed and tier > SHAPE:
                break  # what was chosen may need more; that comes first
        tier = 0 if changed else tier + 1
