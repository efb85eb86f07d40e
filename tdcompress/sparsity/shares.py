"""The distribution: how many entries are selected, in each filter, in each layer, or in all layers together.

Pure arithmetic on whole numbers, without torch: cheap enough to be asked before every optimizer step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from tdcompress.errors import ArgumentError

Shares = Literal["filter", "layer", "erk", "global"]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The size of what is ranked: of a weight matrix, or of a group of units, which is one row of them.

    Attributes:
        name: the parameter, or the group.
        rows: filters of a matrix; 1 for a group. None of them is ever emptied.
        length: entries of a row: weights of a filter (fan-in), or units of a group.
        erk: what Erdos-Renyi-kernel keeps is proportional to this: density * entries, so for a matrix the sum of its dimensions.
    """

    name: str
    rows: int
    length: int
    erk: Fraction | int = 1

    @property
    def entries(self) -> int:
        """Of all rows."""
        return self.rows * self.length

    @property
    def most_of_row(self) -> int:
        """How many entries of a row can be selected when one stays."""
        return max(0, self.length - 1)

    @property
    def most(self) -> int:
        """Of all rows."""
        return self.rows * self.most_of_row


@dataclass(frozen=True, kw_only=True)
class PerFilter:
    """So many of every filter, by parameter."""

    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class PerLayer:
    """So many of a layer (or of a group's units), by name; its entries are ranked together, one of each filter is protected."""

    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Overall:
    """So many of all layers, whose entries are ranked together; one of each filter (or group) is protected."""

    count: int


Counts = PerFilter | PerLayer | Overall

USUAL: Mapping[str, Shares] = {"weight": "filter", "unit": "layer", "2:4": "filter", "1x4": "filter"}  # by granularity


def pruned_count(size: int, *, fraction: float | None = None, keep_per_filter: int | None = None) -> int:
    """How many of ``size`` elements are selected: floor(fraction * size), or all but ``keep_per_filter``.

    The fraction counts as the decimal it is written as: 0.29 of 100 is 29, though ``floor(0.29 * 100)`` is 28 in floats.

    Args:
        size: number of elements that are ranked together.
        fraction: selected share, in [0, 1].
        keep_per_filter: elements that stay (Xtreme, section 5.6), at least 1.

    Raises:
        ArgumentError: not exactly one of the two is given, or it is out of range.
    """
    if fraction is None and keep_per_filter is None:
        raise ArgumentError("give fraction, the share that is pruned, or keep_per_filter, the weights of each filter that stay")
    if fraction is not None and keep_per_filter is not None:
        raise ArgumentError(
            f"fraction = {fraction} and keep_per_filter = {keep_per_filter} each say how much is pruned: "
            "drop keep_per_filter to prune a share, or drop fraction to keep so many weights of each filter"
        )
    if keep_per_filter is not None:
        if keep_per_filter < 1:
            raise ArgumentError(f"keep_per_filter = {keep_per_filter}: at least 1 has to stay")
        return max(0, size - keep_per_filter)
    assert fraction is not None
    if not 0 <= fraction <= 1:
        raise ArgumentError(f"fraction = {fraction}: it has to lie in 0..1")
    return int(Decimal(repr(float(fraction))) * size)


def selected_counts(extents: Sequence[Extent], fraction: float, shares: Shares) -> Counts:
    """Split a fraction over filters or layers.

    - "filter": floor(fraction * fan-in) of each filter, as the papers have it (section 2.2).
    - "layer": floor(fraction * n) of each layer, wherever in it.
    - "erk": floor(fraction * all) in total, and of each layer a density (kept / all) proportional to (O + I + kH + kW) /
      (O * I * kH * kW), Erdos-Renyi-kernel (Evci et al. 2020, "Rigging the Lottery"). A layer that would keep more than it has,
      or fewer than one weight per filter, stops there and the others share what remains. Of the kept entries that whole numbers
      leave over, each goes to the layer with the largest remainder, of equal ones to the first.
    - "global": floor(fraction * all) in total, wherever.

    One entry of each row stays at least, and so the count falls short where the fraction leaves fewer: of "filter" at 1.0 alone,
    where the papers' floor(fraction * fan-in) is the whole filter.

    Args:
        extents: of the layers (or groups), in the order of their slots.
        fraction: selected share, in [0, 1].
        shares: how it is split.

    Raises:
        ArgumentError: the fraction is out of range, or the shares are none of these.
    """
    if shares == "filter":
        counts = {each.name: min(pruned_count(each.length, fraction=fraction), each.most_of_row) for each in extents}
        return PerFilter(counts=counts)
    if shares == "layer":
        counts = {each.name: min(pruned_count(each.entries, fraction=fraction), each.most) for each in extents}
        return PerLayer(counts=counts)
    total = min(pruned_count(sum(each.entries for each in extents), fraction=fraction), sum(each.most for each in extents))
    if shares == "erk":
        return PerLayer(counts=_erdos_renyi_kernel(extents, total))
    if shares == "global":
        return Overall(count=total)
    raise ArgumentError(f"shares = {shares!r}: one of filter, layer, erk, global")


def unit_counts(extents: Sequence[Extent], fraction: float, shares: Shares) -> PerLayer | Overall:
    """`selected_counts` of groups of units, each of which is one row.

    Args:
        extents: the sizes of the groups.
        fraction: 0..1.
        shares: "layer", "erk" or "global".

    Raises:
        ArgumentError: likewise, or shares = "filter", which are of weights.
    """
    counts = selected_counts(extents, fraction, shares)
    if isinstance(counts, PerFilter):
        raise ArgumentError('shares: "filter" is a share of the weights of each filter; units have "layer", "erk" or "global"')
    return counts


def _erdos_renyi_kernel(extents: Sequence[Extent], total: int) -> dict[str, int]:
    """Entries selected of each layer, ``total`` in all; exact, in whole numbers.

    Layers that reach a bound are fixed step by step, always those on the side where more is missing. (CSS lays out flexible boxes
    in this way, section 9.7.) So none is fixed that would have come off its bound again.
    """
    scale = math.lcm(*(each.erk.denominator for each in extents))
    wanted = {each.name: int(each.erk * scale) for each in extents}
    kept: dict[str, int] = {}
    free, left = list(extents), sum(each.entries for each in extents) - total
    remainders: dict[str, int] = {}
    while free:
        weight = sum(wanted[each.name] for each in free)
        low = [each for each in free if wanted[each.name] * left < each.rows * weight]
        high = [each for each in free if wanted[each.name] * left > each.entries * weight]
        if not low and not high:
            for each in free:
                kept[each.name], remainders[each.name] = divmod(wanted[each.name] * left, weight)
            break
        missing = sum(each.rows * weight - wanted[each.name] * left for each in low)
        over = sum(wanted[each.name] * left - each.entries * weight for each in high)
        fixed = {each.name: each.rows for each in low} if missing >= over else {}
        fixed |= {each.name: each.entries for each in high} if over >= missing else {}
        kept |= fixed
        left -= sum(fixed.values())
        free = [each for each in free if each.name not in fixed]
    spare = sum(each.entries for each in extents) - total - sum(kept.values())
    for name in sorted(remainders, key=lambda name: -remainders[name])[:spare]:  # stable: of equal ones the first
        kept[name] += 1
    return {each.name: each.entries - kept[each.name] for each in extents}
