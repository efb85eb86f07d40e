"""The score: what entries are ranked by. Magnitude of weights, norms of units, and what is protected whatever its score."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from tdcompress.sparsity.shares import Extent
from tdcompress.sparsity.units import Slot, UnitGroup


def filter_rows(weight: Tensor, axis: int) -> Tensor:
    """A weight matrix as (O, fan_in) rows, one filter each; a view where the memory allows it."""
    return weight.movedim(axis, 0).reshape(weight.shape[axis], -1)


def from_rows(rows: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    """The inverse of `filter_rows`: (O, fan_in) rows as a matrix of this shape.

    Args:
        rows: (O, fan_in).
        shape: that of the weight.
        axis: its axis of filters, 0 or 1.

    Returns:
        A tensor of ``shape``.
    """
    moved = [shape[axis], *(size for index, size in enumerate(shape) if index != axis)]
    return rows.reshape(moved).movedim(0, axis)


def protect_largest(scores: Tensor, axis: int = 0) -> Tensor:
    """Rank the largest score of each filter above everything, so that no filter is ever emptied.

    Of equal scores it is the one with the highest logical index, which `bottom_k` selects last.

    Args:
        scores: of a weight's shape.
        axis: the output axis.

    Returns:
        A new tensor of this shape; infinite where protected.
    """
    rows = filter_rows(scores, axis)
    last = rows.shape[1] - 1 - rows.flip(1).argmax(1, keepdim=True)  # argmax finds the first of equal ones
    return from_rows(rows.scatter(1, last, math.inf), scores.shape, axis)


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


def weight_extents(params: Mapping[str, Tensor], weights: Sequence[Slot]) -> tuple[Extent, ...]:
    """The sizes of weight matrices, from the shapes of ``params``, in the order of their slots.

    A matrix has a row per filter, as long as the filter has weights.
    """
    shapes = [(slot, params[slot.parameter].shape) for slot in weights]
    return tuple(
        Extent(name=slot.parameter, rows=shape[slot.axis], length=shape.numel() // shape[slot.axis], erk=sum(shape))
        for slot, shape in shapes
    )


def unit_extents(params: Mapping[str, Tensor], groups: Sequence[UnitGroup]) -> tuple[Extent, ...]:
    """The sizes of groups of units, from the shapes of ``params``.

    Their Erdos-Renyi-kernel density is that of their filters' weights, taken together.
    """
    extents = []
    for group in groups:
        dimensions = entries = 0
        for slot in group.filters:
            shape = list(params[slot.parameter].shape)
            if slot.positions is not None:  # only these rows are the group's
                shape[slot.axis] = len(slot.owners()[0])
            dimensions, entries = dimensions + sum(shape), entries + math.prod(shape)
        extents.append(Extent(name=group.name, rows=1, length=group.size, erk=Fraction(dimensions * group.size, entries)))
    return tuple(extents)
