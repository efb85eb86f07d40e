"""How much of what is asked for can be selected: one entry of each filter, or of each group of units, has to stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from torch import Tensor

from tdcompress.sparsity.patterns import Pattern, pattern_extents
from tdcompress.sparsity.scores import unit_extents, weight_extents
from tdcompress.sparsity.shares import Extent, Shares, pruned_count
from tdcompress.sparsity.units import Slot, UnitGroup

_WHAT = {"weight": "weights", "2:4": "weights", "1x4": "1x4 blocks", "unit": "units"}
_STAYS = {"weights": "weight of each filter", "1x4 blocks": "block of each four filters", "units": "unit of each layer"}


class WeightShare(TypedDict):
    """What of the weights is pruned: arguments that `tdcompress.sparsity.masks.weight_masks` and `weight_reach` share."""

    fraction: float | None
    keep_per_filter: int | None
    shares: Shares
    pattern: Pattern | None


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Entries of all that is prunable, what is asked for of them, and what can go.

    Attributes:
        what: they are: "weights", "1x4 blocks" or "units".
        total: number of entries.
        fraction: that is asked for; None = so many of each filter stay.
        asked: by the fraction: its floor of each filter, of each layer, or of all, as the shares split it.
        reached: fewer where one of each row has to stay.
    """

    what: str
    total: int
    fraction: float | None
    asked: int
    reached: int

    def __str__(self) -> str:
        """`told` of what is pruned."""
        return self.told("pruned")

    def told(self, role: str) -> str:
        """What cannot go, in one line; empty where all can.

        Args:
            role: what the entries are to be: "pruned", or "candidates".
        """
        if self.reached < self.asked:
            return (
                f"{self.asked:,} of {self.total:,} {self.what} were to be {role}, and {self.reached:,} are "
                f"({self.reached / self.total:.2%}): one {_STAYS[self.what]} stays"
            )
        if self.reached or self.fraction == 0 or not self.total:
            return ""
        why = "no filter has more than stay" if self.fraction is None else "the share comes to less than one, and is rounded down"
        return f"none of {self.total:,} {self.what} are {role}: {why}"


def weight_reach(
    params: Mapping[str, Tensor],
    weights: Sequence[Slot],
    *,
    fraction: float | None,
    keep_per_filter: int | None = None,
    shares: Shares = "filter",
    pattern: Pattern | None = None,
) -> Reach:
    """What `tdcompress.sparsity.masks.weight_masks` prunes for the same arguments, from the shapes alone.

    Args:
        params: by name, each as the network has it: (O, fan_in...).
        weights: which of them.
        fraction: pruned share, 0..1; or
        keep_per_filter: how many weights of each filter stay.
        shares: how the fraction is split.
        pattern: what is selected instead of single weights.
    """
    extents = weight_extents(params, weights) if pattern is None else pattern_extents(params, weights, pattern)
    return reach_of(extents, pattern or "weight", fraction=fraction, keep_per_filter=keep_per_filter, shares=shares)


def unit_reach(params: Mapping[str, Tensor], groups: Sequence[UnitGroup], *, fraction: float, shares: Shares = "layer") -> Reach:
    """What `tdcompress.sparsity.masks.unit_masks` prunes for the same arguments, before kept units are aligned.

    Args:
        params: by name, each as the network has it: (O, fan_in...).
        groups: of units.
        fraction: pruned share of the units, 0..1.
        shares: how it is split.
    """
    return reach_of(unit_extents(params, groups), "unit", fraction=fraction, shares=shares)


def reach_of(
    extents: Sequence[Extent],
    granularity: Literal["weight", "unit", "2:4", "1x4"],
    *,
    fraction: float | None,
    keep_per_filter: int | None = None,
    shares: Shares,
) -> Reach:
    """As `weight_reach` and `unit_reach`, from the sizes of what is ranked.

    Args:
        extents: of weights, blocks or groups of units.
        granularity: which of them.
        fraction: selected share, 0..1; or
        keep_per_filter: how many of each row stay.
        shares: how the fraction is split.
    """
    total = sum(each.entries for each in extents)
    if fraction is None:
        parts = [(each.rows * pruned_count(each.length, keep_per_filter=keep_per_filter), each.most) for each in extents]
    elif shares == "filter":
        parts = [(each.rows * pruned_count(each.length, fraction=fraction), each.most) for each in extents]
    elif shares == "layer":
        parts = [(pruned_count(each.entries, fraction=fraction), each.most) for each in extents]
    else:
        parts = [(pruned_count(total, fraction=fraction), sum(each.most for each in extents))]
    return Reach(
        what=_WHAT[granularity],
        total=total,
        fraction=fraction,
        asked=sum(asked for asked, _ in parts),
        reached=sum(map(min, parts)),
    )
