"""The score: what entries are ranked by. Magnitude of weights, norms of units, and what is protected whatever its score."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from tdcompress.sparsity.shares import Extent
from tdcompress.sparsity.units import Slot, UnitGroup


def by_filter(weight: Tensor, slot: Slot) -> Tensor:
    """A weight with a filter at each index of its first axis: (O, I / groups, *kernel), as a convolution has its own.

    A transposed convolution's is (I, O / groups, *kernel): filter o of group g reads the inputs of that group alone.

    Args:
        weight: as the network has it; or something of its shape.
        slot: where its filters lie.

    Returns:
        A view where the memory allows it.
    """
    if slot.axis == 0:
        return weight
    return weight.reshape(slot.groups, -1, *weight.shape[1:]).movedim(2, 1).flatten(0, 1)


def as_stored(filters: Tensor, slot: Slot) -> Tensor:
    """The inverse of `by_filter`.

    Args:
        filters: (O, I / groups, *kernel).
        slot: where the filters lie in the weight.
    """
    if slot.axis == 0:
        return filters
    return filters.reshape(slot.groups, -1, *filters.shape[1:]).movedim(1, 2).flatten(0, 1)


def filter_shape(shape: Sequence[int], slot: Slot) -> tuple[int, ...]:
    """The shape of `by_filter` for a weight of this one."""
    if slot.axis == 0:
        return tuple(shape)
    inputs, outputs, *kernel = shape
    return (outputs * slot.groups, inputs // slot.groups, *kernel)


def filter_rows(weight: Tensor, slot: Slot) -> Tensor:
    """A weight matrix as (O, fan_in) rows, one filter each; a view where the memory allows it."""
    filters = by_filter(weight, slot)
    return filters.reshape(len(filters), -1)


def from_rows(rows: Tensor, shape: Sequence[int], slot: Slot) -> Tensor:
    """The inverse of `filter_rows`: (O, fan_in) rows as a matrix of this shape.

    Args:
        rows: (O, fan_in).
        shape: that of the weight.
        slot: where its filters lie.

    Returns:
        A tensor of ``shape``.
    """
    return as_stored(rows.reshape(filter_shape(shape, slot)), slot)


def protect_largest(rows: Tensor) -> Tensor:
    """Rank the largest score of each filter above everything, so that no filter is ever emptied.

    Of equal scores it is the one with the highest index, which `bottom_k` selects last.

    Args:
        rows: (O, fan_in).

    Returns:
        A new tensor of this shape; infinite where protected.
    """
    last = rows.shape[1] - 1 - rows.flip(1).argmax(1, keepdim=True)  # argmax finds the first of equal ones
    return rows.scatter(1, last, math.inf)


def squares(values: Tensor) -> Tensor:
    """Each value squared, of the same shape; differentiable.

    Of float16 and bfloat16 in float32: 3e-4 squared is 0 in float16, and 300 squared is infinite.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32)).square()


def unit_scores(params: Mapping[str, Tensor], group: UnitGroup) -> Tensor:
    """L2 norm of each unit over all its filters (Equation 1), (O,); of half types in float32."""
    return unit_squares({slot.parameter: params[slot.parameter].detach() for slot in group.filters}, group).sqrt()


def unit_squares(params: Mapping[str, Tensor], group: UnitGroup) -> Tensor:
    """Sum of w^2 over all filters of each unit, (O,); differentiable."""
    return torch.stack([_per_unit(params[slot.parameter], slot, group.size) for slot in group.filters]).sum(0)


def _per_unit(param: Tensor, slot: Slot, size: int) -> Tensor:
    """Sum of w^2 over the entries of each unit in one parameter, (O,)."""
    line = squares(filter_rows(param, slot)).sum(1)
    if slot.positions is None:
        return line
    units, indices = slot.owners(size)
    return line.new_zeros(size).index_add(0, torch.tensor(units, device=line.device), line[indices])


def weight_extents(params: Mapping[str, Tensor], weights: Sequence[Slot]) -> tuple[Extent, ...]:
    """The sizes of weight matrices, from the shapes of ``params``, in the order of their slots.

    A matrix has a row per filter, as long as the filter has weights.
    """
    extents = []
    for slot in weights:
        filters, *own = shape = filter_shape(params[slot.parameter].shape, slot)
        extents.append(Extent(name=slot.parameter, rows=filters, length=math.prod(own), erk=sum(shape)))
    return tuple(extents)


def unit_extents(params: Mapping[str, Tensor], groups: Sequence[UnitGroup]) -> tuple[Extent, ...]:
    """The sizes of groups of units, from the shapes of ``params``.

    Their Erdos-Renyi-kernel density is that of their filters' weights, taken together.
    """
    extents = []
    for group in groups:
        dimensions = entries = 0
        for slot in group.filters:
            shape = _own_shape(params[slot.parameter].shape, slot)
            dimensions, entries = dimensions + sum(shape), entries + math.prod(shape)
        extents.append(Extent(name=group.name, rows=1, length=group.size, erk=Fraction(dimensions * group.size, entries)))
    return tuple(extents)


def _own_shape(shape: Sequence[int], slot: Slot) -> tuple[int, ...]:
    """The shape, filters first, of the part of a weight that belongs to a group of units."""
    own = list(shape)
    if slot.positions is not None:  # only these lines are the group's
        own[slot.axis] = sum(map(len, slot.positions))
    if slot.groups == 1:
        return tuple(own)
    fan_in = shape[0] // slot.groups  # input channels of a filter; the units are whole groups of filters
    return (own[0] // fan_in * shape[1], fan_in, *shape[2:])
