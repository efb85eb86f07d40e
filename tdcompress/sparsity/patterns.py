"""Patterns of single weights that hardware and kernels can use: what is ranked and selected instead of each weight alone.

"2:4": of every four neighbouring input channels of a filter, at one place of its kernel, two weights go (Mishra et al. 2021,
"Accelerating Sparse Deep Neural Networks"). "1x4": four neighbouring filters lose the same weights: a block is one weight of each
of them, and its score is their L2 norm.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from tdcompress.errors import ArgumentError, ModelError
from tdcompress.sparsity.scores import as_stored, by_filter, filter_rows, filter_shape, from_rows, squares
from tdcompress.sparsity.select import lowest_rows
from tdcompress.sparsity.shares import Counts, Extent
from tdcompress.sparsity.units import Slot

Pattern = Literal["2:4", "1x4"]
PATTERNS: tuple[Pattern, ...] = ("2:4", "1x4")
GROUP = 4


def check_pattern(params: Mapping[str, Tensor], weights: Sequence[Slot], pattern: Pattern) -> None:
    """Refuse matrices that the pattern does not fit.

    Args:
        params: by name, (O, I, ...); of transposed convolutions (I, O / groups, ...).
        weights: what the pattern is for.
        pattern: "2:4" or "1x4".

    Raises:
        ModelError: four does not divide the input channels of a layer's filters ("2:4") or their number ("1x4"); names the layer.
    """
    for slot in weights:
        filters, inputs, *_ = filter_shape(params[slot.parameter].shape, slot)
        counted, size = ("input channels", inputs) if pattern == "2:4" else ("filters", filters)
        if size % GROUP:
            layer = slot.parameter.removesuffix(".weight")
            raise ModelError(f'"{pattern}": {layer} has {size} {counted}, which {GROUP} does not divide; exclude = ["{layer}"]')


def check_fraction(fraction: float, pattern: Pattern) -> None:
    """Refuse a share that the pattern cannot give.

    Raises:
        ArgumentError: with "2:4", neither 0 nor 0.5.
    """
    if pattern == "2:4" and fraction not in (0, 0.5):
        raise ArgumentError(f'{fraction:g} is no share that "2:4" can give: two of four are 0.5, or 0 = nothing')


def pattern_extents(params: Mapping[str, Tensor], weights: Sequence[Slot], pattern: Pattern) -> tuple[Extent, ...]:
    """The sizes of what is ranked: groups of four weights, or rows of blocks.

    Args:
        params: by name, (O, I, ...); of transposed convolutions (I, O / groups, ...).
        weights: what is ranked.
        pattern: "2:4" or "1x4".

    Returns:
        One per weight of O filters with fan_in entries each: O * fan_in / 4 rows of length 4 for "2:4", O / 4 rows of length
        fan_in for "1x4".
    """
    extents = []
    for slot in weights:
        shape = filter_shape(params[slot.parameter].shape, slot)
        length = GROUP if pattern == "2:4" else math.prod(shape[1:])
        rows = math.prod(shape) // GROUP if pattern == "2:4" else shape[0] // GROUP
        extents.append(Extent(name=slot.parameter, rows=rows, length=length, erk=sum(shape)))
    return tuple(extents)


def lowest_in_pattern(
    scores: Mapping[str, Tensor], weights: Sequence[Slot], counts: Counts, pattern: Pattern
) -> dict[str, Tensor]:
    """Select the lowest-scored weights of each group of four, or the lowest blocks.

    Args:
        scores: by parameter, of its shape, 0 or above.
        weights: whose.
        counts: how many, of `pattern_extents`.
        pattern: what is selected.

    Returns:
        By parameter, bool: (groups, 4) for "2:4"; a block each, (O / 4, fan_in), for "1x4". See `selected_entries`.
    """
    rows = {slot.parameter: _rows(scores[slot.parameter], slot, pattern) for slot in weights}
    return lowest_rows(rows, counts)


def selected_entries(selected: Tensor, shape: torch.Size, slot: Slot, pattern: Pattern) -> Tensor:
    """From selected rows to the selected entries of a weight of this shape.

    Args:
        selected: bool rows as they were ranked: (O * fan_in / 4, 4) for "2:4", (O / 4, fan_in) for "1x4".
        shape: of the weight.
        slot: where its O filters lie.
        pattern: "2:4" or "1x4".

    Returns:
        Bool, of ``shape``; True = selected.
    """
    if pattern == "1x4":
        return from_rows(selected.repeat_interleave(GROUP, 0), shape, slot)
    filters, inputs, *kernel = filter_shape(shape, slot)
    return as_stored(selected.reshape(filters, *kernel, inputs).movedim(-1, 1), slot)


def _rows(scores: Tensor, slot: Slot, pattern: Pattern) -> Tensor:
    """What is ranked, a row each: (G, 4) weights, or (O / 4, fan_in) blocks."""
    if pattern == "2:4":
        return by_filter(scores, slot).movedim(1, -1).reshape(-1, GROUP)
    blocks = filter_rows(scores, slot)
    return squares(blocks.reshape(-1, GROUP, blocks.shape[1])).sum(1).sqrt()
