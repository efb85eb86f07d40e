"""What is known about a tensor: per element, up to broadcasting, its channel, its constant value, and its source.

A channel is a symbolic number shared by everything that must be removed together. The numbers of one tensor are an array with as
many axes as the tensor. Each axis has its full length, or length 1 where all indices are alike. So the output of a convolution
has cells of shape (1, C, 1, 1); flattened it has (1, C*H*W), and split into heads (1, 1, h, d). So the layout operators of torch
are the same operators of numpy, applied to the cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

NO_CHANNEL = -1  # an element that nothing can remove: the batch, pixels, the network's input
MIXED = -1  # an element that more than one unit (or none) contributes to

CELL = np.dtype([("channel", np.int64), ("known", np.bool_), ("value", np.float64), ("unit", np.int64)])
Cells = NDArray[np.void]
"""Of the tensor's shape; an axis along which cells repeat themselves has length 1."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A tensor of the program.

    Attributes:
        shape: of the tensor.
        cells: per element: ``channel`` (or NO_CHANNEL), ``known`` and ``value`` (a constant whatever the input),
            ``unit`` (number of the only unit that the element is computed from, or MIXED). Each axis has length 1 or that of
            ``shape``.
    """

    shape: tuple[int, ...]
    cells: Cells

    @property
    def channel(self) -> Ids:
        """Channels, of the shape of ``cells``."""
        return self.cells["channel"]

    @property
    def tracked(self) -> bool:
        """Whether any element belongs to a channel."""
        return bool((self.channel >= 0).any())


def blank(shape: Sequence[int]) -> Cells:
    """Cells without channel, value or source."""
    cells = np.zeros(tuple(shape), CELL)
    cells["channel"], cells["unit"] = NO_CHANNEL, MIXED
    return cells


def plain(shape: Sequence[int]) -> Signal:
    """A tensor that nothing is known about."""
    return Signal(shape=tuple(shape), cells=blank((1,) * len(shape)))


def blanked(cells: Cells, *, value: bool = False, unit: bool = False) -> Cells:
    """A copy without the constants (``value``) or the sources (``unit``).

    Args:
        cells: of a tensor; an axis along which they repeat themselves has length 1.
        value: whether constants go.
        unit: whether sources go.

    Returns:
        Cells of the same shape, in memory of their own.
    """
    cells = cells.copy()
    if value:
        cells["known"], cells["value"] = False, 0.0
    if unit:
        cells["unit"] = MIXED
    return cells


def expand(cells: Cells, shape: Sequence[int], axes: Sequence[int]) -> Cells:
    """Give ``axes`` their full length.

    Args:
        cells: of a tensor; an axis along which they repeat themselves has length 1.
        shape: of the tensor, as long as ``cells.shape``.
        axes: numbers of axes, from 0.

    Returns:
        A read-only view, of length ``shape[a]`` along each of ``axes`` and as before along the others.
    """
    return np.broadcast_to(cells, [shape[a] if a in axes else n for a, n in enumerate(cells.shape)])


def reshape(cells: Cells, old: Sequence[int], new: Sequence[int]) -> Cells:
    """Cells of a reshaped tensor.

    Axes are matched in runs of equal product, (B, C, H, W) -> (B, C*H*W) as B | C*H*W. A run that the cells do not tell apart
    stays of length 1. Else its axes are expanded and merged. Then the new axes that repeat themselves are collapsed.

    Args:
        cells: of the tensor before.
        old: its shape, which has as many axes as the cells.
        new: the shape after.

    Returns:
        Cells with as many axes as ``new``, each as long as there, or 1.

    Raises:
        ValueError: the two shapes do not hold equally many entries, or none.
    """
    if 0 in old or prod(old) != prod(new):
        raise ValueError(f"cannot reshape {tuple(old)} to {tuple(new)}")
    full: list[int] = []
    result: list[int] = []
    merged: list[int] = []
    for old_axes, new_axes in _runs(old, new):
        lengths = [cells.shape[a] for a in old_axes]
        if prod(lengths) == 1:
            result += [1] * len(new_axes)
        elif len(old_axes) == len(new_axes) == 1:
            result += lengths
        else:
            full += old_axes
            merged += new_axes
            result += [new[a] for a in new_axes]
    cells = expand(cells, old, full).reshape(result)
    return collapse(cells, merged)


def collapse(cells: Cells, axes: Sequence[int]) -> Cells:
    """Shorten to 1 the axes along which the cells repeat themselves."""
    for axis in axes:
        first = cells.take([0], axis)
        if cells.shape[axis] > 1 and bool((cells == first).all()):
            cells = first
    return cells


def merged(cells: Cells, axes: Sequence[int]) -> Cells:
    """The first cell along some axes, with the constants that all cells there have."""
    for axis in axes:
        first = cells.take([0], axis)
        alike = cells["known"].all(axis, keepdims=True) & (cells["value"] == first["value"]).all(axis, keepdims=True)
        first["known"], first["value"] = alike, np.where(alike, first["value"], 0.0)
        cells = first
    return cells


def _runs(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Consecutive axes of both shapes with equal products, each run as short as possible."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        size_left = size_right = 1
        while True:
            if size_left <= size_right and i < len(old) and (not left or size_left < size_right):
                left.append(i)
                size_left *= old[i]
                i += 1
            elif j < len(new) and (not right or size_right < size_left):
                right.append(j)
                size_right *= new[j]
                j += 1
            else:
                break
            if size_left == size_right and left and right:
                break
        if not left and not right:
            break
        runs.append((left, right))
    return runs


def channel_vector(cells: Cells, axis: int) -> tuple[Ids, Cells]:
    """Cells along one axis when the others are read together, as a convolution reads its pixels.

    Returns:
        The channels as (other elements, n), to be unified along the first axis; and one cell per index of ``axis``, (n,). Its
        value is known, and its source kept, only where it is the same for all other elements.
    """
    rows = np.moveaxis(cells, axis, -1).reshape(-1, cells.shape[axis])
    vector = rows[0].copy()
    if len(rows) > 1:
        same = rows["known"].all(0) & (rows["value"] == rows["value"][0]).all(0)
        vector["known"], vector["value"] = same, np.where(same, vector["value"], 0.0)
        vector["unit"] = np.where((rows["unit"] == rows["unit"][0]).all(0), vector["unit"], MIXED)
    return rows["channel"], vector


def along(vector: Cells, axis: int, ndim: int) -> Cells:
    """One cell per index, laid along ``axis`` of a tensor with ``ndim`` axes.

    Args:
        vector: (n,).
        axis: where they lie.
        ndim: axes of the result; the others have length 1.
    """
    return vector.reshape([-1 if a == axis % ndim else 1 for a in range(ndim)])


def with_leading_axes(signal: Signal, ndim: int) -> Signal:
    """The operand with leading axes of length 1, as broadcasting adds them.

    Args:
        signal: of at most ``ndim`` axes.
        ndim: axes of the result.
    """
    missing = ndim - len(signal.shape)
    return Signal(shape=(1,) * missing + signal.shape, cells=signal.cells.reshape((1,) * missing + signal.cells.shape))


def signals_of(results: Signal | tuple[Signal, ...] | None) -> tuple[Signal, ...]:
    """The results of an operator as a tuple; empty where nothing is known of it."""
    return (results,) if isinstance(results, Signal) else results or ()
