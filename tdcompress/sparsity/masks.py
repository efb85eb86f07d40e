"""Masks (True = kept): made from scores by the selection rule, widened from units to parameters, applied in place."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tdcompress.errors import ArgumentError, ModelError
from tdcompress.sparsity.patterns import (
    Pattern,
    check_fraction,
    check_pattern,
    lowest_in_pattern,
    pattern_extents,
    selected_entries,
)
from tdcompress.sparsity.scores import unit_extents, unit_scores, weight_extents
from tdcompress.sparsity.select import lowest_units, lowest_weights
from tdcompress.sparsity.shares import Counts, PerFilter, Shares, pruned_count, selected_counts, unit_counts
from tdcompress.sparsity.units import Slot, UnitGroup

Masks = dict[str, Tensor]
"""By parameter name, bool of the parameter's shape: True = kept."""


def lay_along(values: Tensor, slot: Slot, shape: torch.Size, *, absent: float) -> Tensor:
    """Lay one value per unit along a parameter; differentiable.

    Args:
        values: (O,), one per unit.
        slot: where the units lie in the parameter.
        shape: of the parameter.
        absent: for entries that belong to none of these units.

    Returns:
        A tensor that broadcasts to ``shape``: its size along the slot's axis, 1 along the others.
    """
    if slot.positions is not None:
        units, indices = slot.owners(len(values))
        line = values.new_full((shape[slot.axis],), absent)
        values = line.index_put((torch.tensor(indices, dtype=torch.int64, device=values.device),), values[units])
    along = [1] * len(shape)
    along[slot.axis] = -1
    return values.view(along)


def widen(group: UnitGroup, selected: Tensor, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From selected units to selected parameter entries.

    Args:
        group: the units.
        selected: bool (O,).
        params: gives the shapes.

    Returns:
        By parameter name a bool mask that broadcasts to the parameter: its size along the slot's axis, 1 along the others.
    """
    widened: dict[str, Tensor] = {}
    for slot in (*group.filters, *group.tied):
        merge_selected(widened, slot.parameter, lay_along(selected, slot, params[slot.parameter].shape, absent=False))
    return widened


def widen_all(groups: Sequence[UnitGroup], selected: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`widen` for several groups, by name; a parameter may hold units of more than one.

    Args:
        groups: of units.
        selected: by group, bool (units,).
        params: by name, each as the network has it: (O, fan_in...) or (O,).
    """
    widened: dict[str, Tensor] = {}
    for group in groups:
        for name, entries in widen(group, selected[group.name], params).items():
            merge_selected(widened, name, entries)
    return widened


def merge_selected(into: dict[str, Tensor], name: str, selected: Tensor) -> None:
    """Add a selection to those already made for the same parameter.

    Args:
        into: selections by parameter, bool, of its shape or broadcasting to it; changed.
        name: of the parameter.
        selected: bool, of its shape or broadcasting to it.
    """
    into[name] = into[name] | selected if name in into else selected


def weight_masks(
    params: Mapping[str, Tensor],
    weights: Sequence[Slot],
    *,
    scores: Mapping[str, Tensor] | None = None,
    fraction: float | None = None,
    keep_per_filter: int | None = None,
    shares: Shares = "filter",
    pattern: Pattern | None = None,
) -> Masks:
    """Masks that prune the lowest |w| first unless ``scores`` says otherwise (section 2.2).

    Args:
        params: by name, each as the network has it: (O, fan_in...) or (O,).
        weights: whose masks.
        scores: by parameter, of its shape, where |w| does not rank it.
        fraction: pruned share, 0..1; or
        keep_per_filter: how many weights of each filter stay.
        shares: how the fraction is split; the papers prune the same share of every filter.
        pattern: prune the lowest of each group of four, or the lowest blocks, instead of single weights.

    Raises:
        ArgumentError: both or neither of fraction and keep_per_filter, one out of range, or a count without shares = "filter".
        ModelError: NaN or infinity among the scores, or a layer that the pattern does not fit.
    """
    if pattern is not None:
        check_pattern(params, weights, pattern)
        check_fraction(fraction or 0, pattern)
        if pattern == "2:4" and (keep_per_filter is not None or shares != "filter"):
            raise ArgumentError('"2:4" keeps two of every four: give fraction = 0.5 and nothing else')
    extents = weight_extents(params, weights) if pattern is None else pattern_extents(params, weights, pattern)
    counts: Counts
    if fraction is None or keep_per_filter is not None:
        if shares != "filter":
            raise ArgumentError(
                f"shares: {shares!r} splits a fraction; keep_per_filter says how many weights of each filter stay"
            )
        kept = {each.name: pruned_count(each.length, fraction=fraction, keep_per_filter=keep_per_filter) for each in extents}
        counts = PerFilter(counts=kept)
    else:
        counts = selected_counts(extents, fraction, shares)
    given = scores or {}
    names = [slot.parameter for slot in weights]
    ranked = {name: _finite(given.get(name, params[name].detach().abs()), name) for name in names}
    if pattern is None:
        return {name: ~selected for name, selected in lowest_weights(ranked, weights, counts).items()}
    chosen = lowest_in_pattern(ranked, weights, counts, pattern)
    return {
        s.parameter: ~selected_entries(chosen[s.parameter], params[s.parameter].shape, s, pattern).contiguous() for s in weights
    }


def unit_masks(
    params: Mapping[str, Tensor],
    groups: Sequence[UnitGroup],
    *,
    scores: Mapping[str, Tensor] | None = None,
    fraction: float,
    align: int = 1,
    shares: Shares = "layer",
) -> Masks:
    """Masks that prune units, the lowest L2 norm first unless ``scores`` says otherwise, with all that is tied to them.

    Args:
        params: by name, each as the network has it: (O, fan_in...) or (O,).
        groups: the units.
        scores: by group, (O,), where the norm does not rank it.
        fraction: pruned share of the units, 0..1.
        align: kept counts are rounded up to a multiple of this.
        shares: how the fraction is split; the papers prune the same share of every layer.

    Raises:
        ArgumentError: the fraction is out of range, or shares = "filter", which are of weights.
        ModelError: NaN or infinity among the scores.
    """
    given = scores or {}
    ranked = {}
    for group in groups:
        score = given.get(group.name)
        ranked[group.name] = _finite(unit_scores(params, group) if score is None else score, group.name)
    chosen = lowest_units(ranked, unit_counts(unit_extents(params, groups), fraction, shares), align=align)
    return {name: (~entries).expand_as(params[name]).contiguous() for name, entries in widen_all(groups, chosen, params).items()}


def count_pruned_units(masks: Mapping[str, Tensor], groups: Sequence[UnitGroup]) -> int:
    """How many units of these groups are pruned.

    Args:
        masks: what `unit_masks` gave for the groups: bool by parameter name, of its shape.
        groups: of units.
    """
    count = 0
    for group in groups:
        gone = torch.zeros(group.size, dtype=torch.bool)
        for slot in group.filters:
            lines = (~masks[slot.parameter]).movedim(slot.axis, 0).flatten(1).all(1).cpu()
            units, indices = slot.owners(group.size)
            gone[units] |= lines[indices]
        count += int(gone.sum())
    return count


def _finite(scores: Tensor, name: str) -> Tensor:
    """The scores, if they can be ranked.

    Raises:
        ModelError: NaN or infinity.
    """
    if not bool(scores.isfinite().all()):
        raise ModelError(f"{name} has weights that are NaN or infinite, which have no rank; train it again")
    return scores


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every pruned entry to exactly zero, in place.

    Args:
        model: has the parameters.
        masks: by parameter name, bool, broadcasting to its shape; True = kept.
    """
    params = dict(model.named_parameters())
    for name, mask in masks.items():
        parameter = params[name]
        with torch.inference_mode() if parameter.is_inference() else contextlib.nullcontext():  # which can be written there alone
            parameter.masked_fill_(~mask.to(parameter.device), 0.0)


def count_zeros(tensors: Iterable[Tensor]) -> tuple[int, int]:
    """(zeros, all entries) of some tensors."""
    pairs = [(int((tensor == 0).sum()), tensor.numel()) for tensor in tensors]
    return sum(zeros for zeros, _ in pairs), sum(total for _, total in pairs)
