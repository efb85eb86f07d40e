"""Masks (True = kept): made from scores by the selection rule, widened from units to parameters, applied in place."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tdcompress.errors import ModelError
from tdcompress.sparsity.select import bottom_k, pruned_count
from tdcompress.sparsity.units import Slot, UnitGroup

Masks = dict[str, Tensor]


def filter_rows(weight: Tensor, axis: int) -> Tensor:
    """A weight matrix as (O, fan_in) rows, one filter each; a view where the memory allows it."""
    return weight.movedim(axis, 0).reshape(weight.shape[axis], -1)


def lowest_weights(scores: Tensor, axis: int, *, fraction: float | None = None, keep_per_filter: int | None = None) -> Tensor:
    """Select the lowest-scored weights within each filter (Equation 2; the complement of argmax-k).

    Args:
        scores: of the weight's shape.
        axis: the output axis.
        fraction: share of each filter, or
        keep_per_filter: how many of each filter are not selected.

    Returns:
        bool, of the weight's shape: True = selected.
    """
    rows = filter_rows(scores, axis)
    selected = bottom_k(rows, pruned_count(rows.shape[1], fraction=fraction, keep_per_filter=keep_per_filter))
    return selected.reshape(scores.movedim(axis, 0).shape).movedim(0, axis)


def lowest_units(scores: Tensor, *, fraction: float, align: int = 1) -> Tensor:
    """Select the lowest-scored units of a group (Equation 1), but never all of them (our rule).

    Args:
        scores: (O,).
        fraction: share of the group's units.
        align: the number that stays is rounded up to a multiple of this (onnxruntime computes channels in blocks of 16).

    Returns:
        bool (O,): True = selected.
    """
    size = scores.shape[0]
    kept = max(1, size - pruned_count(size, fraction=fraction))
    kept = min(size, math.ceil(kept / align) * align)
    return bottom_k(scores, size - kept)


def unit_scores(params: Mapping[str, Tensor], group: UnitGroup) -> Tensor:
    """L2 norm of each unit over all its filters (Equation 1), (O,)."""
    return unit_squares({slot.parameter: params[slot.parameter].detach() for slot in group.filters}, group).sqrt()


def unit_squares(params: Mapping[str, Tensor], group: UnitGroup) -> Tensor:
    """Sum of w^2 over all filters of each unit, (O,); differentiable."""
    return torch.stack([_per_unit(params[slot.parameter], slot, group.size) for slot in group.filters]).sum(0)


def _per_unit(param: Tensor, slot: Slot, size: int) -> Tensor:
    """Sum of w^2 over the entries of each unit in one parameter, (O,)."""
    line = filter_rows(param, slot.axis).square().sum(1)
    if slot.positions is None:
        return line
    units, indices = slot.owners()
    return line.new_zeros(size).index_add(0, torch.tensor(units, device=line.device), line[indices])


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
        param = params[slot.parameter]
        line = selected
        if slot.positions is not None:
            line = torch.zeros(param.shape[slot.axis], dtype=torch.bool, device=selected.device)
            units, indices = slot.owners()
            line[indices] = selected[units]
        shape = [1] * param.ndim
        shape[slot.axis] = -1
        merge_selected(widened, slot.parameter, line.view(shape))
    return widened


def merge_selected(into: dict[str, Tensor], name: str, selected: Tensor) -> None:
    """Add a selection to those already made for the same parameter."""
    into[name] = into[name] | selected if name in into else selected


def weight_masks(
    params: Mapping[str, Tensor],
    weights: Sequence[Slot],
    *,
    scores: Mapping[str, Tensor] | None = None,
    fraction: float | None = None,
    keep_per_filter: int | None = None,
) -> Masks:
    """Masks that prune the same share of every filter, the lowest |w| first unless ``scores`` says otherwise (section 2.2)."""
    masks = {}
    for slot in weights:
        param = params[slot.parameter].detach()
        score = _finite((scores or {}).get(slot.parameter, param.abs()), slot.parameter)
        masks[slot.parameter] = ~lowest_weights(score, slot.axis, fraction=fraction, keep_per_filter=keep_per_filter)
    return masks


def unit_masks(
    params: Mapping[str, Tensor],
    groups: Sequence[UnitGroup],
    *,
    scores: Mapping[str, Tensor] | None = None,
    fraction: float,
    align: int = 1,
) -> Masks:
    """Masks that prune the same share of every group's units, with all that is tied to them."""
    selected: dict[str, Tensor] = {}
    for group in groups:
        score = (scores or {}).get(group.name)
        score = _finite(unit_scores(params, group) if score is None else score, group.name)
        units = lowest_units(score, fraction=fraction, align=align)
        for name, entries in widen(group, units, params).items():
            merge_selected(selected, name, entries)
    return {name: (~entries).expand_as(params[name]).contiguous() for name, entries in selected.items()}


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
    """Set every pruned entry to exactly zero, in place."""
    params = dict(model.named_parameters())
    for name, mask in masks.items():
        params[name].masked_fill_(~mask.to(params[name].device), 0.0)


def count_zeros(tensors: Iterable[Tensor]) -> tuple[int, int]:
    """(zeros, all entries) of some tensors."""
    pairs = [(int((tensor == 0).sum()), tensor.numel()) for tensor in tensors]
    return sum(zeros for zeros, _ in pairs), sum(total for _, total in pairs)
