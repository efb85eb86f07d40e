"""On which inputs a file and its module are compared: real samples, repeated (`cycled`) or cut to each size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLER = 1 / 16  # at most: near the sample, and by far more than rounding


@dataclass(frozen=True, kw_only=True)
class Size:
    """Inputs of one size.

    Attributes:
        said: what messages call it.
        rows: the inputs, (B, ...) or of any shape.
        required: whether the network has to take it; else it is left out where torch refuses it.
    """

    said: str
    rows: list[Tensor]
    required: bool = True


def compared_sizes(inputs: Sequence[Tensor], batches: Sequence[int], free_axes: Sequence[int]) -> Iterator[Size]:
    """Every batch size; then one sample, with other lengths of the other free axes.

    The network has to take twice the length of them all, as networks do that want multiples of something. Where it takes these,
    also twice the length of the first alone, and lengths that are odd and unequal.

    Args:
        inputs: samples (B, ...); an input whose first axis is not B keeps its shape.
        batches: the batch sizes.
        free_axes: the axes that may have any length.
    """
    own = batched(inputs)
    for batch in batches:
        rows = [cycled(item, 0, batch) if first else item for item, first in zip(inputs, own, strict=True)]
        yield Size(said=f"batch {batch}" if 0 in free_axes else shapes_of(rows), rows=rows)
    one = [item[:1] if first and 0 in free_axes else item for item, first in zip(inputs, own, strict=True)]
    lengths = {axis: item.shape[axis] for item, first in zip(inputs, own, strict=True) if first for axis in range(1, item.ndim)}
    others = [axis for axis in free_axes if axis in lengths]
    doubled = {axis: 2 * lengths[axis] for axis in others}
    uneven = {axis: (place * lengths[axis] + 1) | 1 for place, axis in enumerate(others, start=1)}
    for changed in (doubled, dict(list(doubled.items())[:-1]), uneven):
        rows = one
        for axis, length in changed.items():
            fits = [first and axis < item.ndim for item, first in zip(rows, own, strict=True)]
            rows = [cycled(item, axis, length) if fit else item for item, fit in zip(rows, fits, strict=True)]
        if changed:
            yield Size(said=shapes_of(rows), rows=rows, required=changed is doubled)


def batched(inputs: Sequence[Tensor]) -> list[bool]:
    """Which inputs are (B, ...): those whose first axis is as long as that of the first input."""
    return [item.ndim > 0 and len(item) == len(inputs[0]) for item in inputs]


def cycled(item: Tensor, axis: int, length: int) -> Tensor:
    """A tensor with another length of an axis: what it holds there over and over, or a part of it.

    Numbers with a fraction are repeated a little smaller, each by its own factor: where a sample stands twice, scores tie, and
    two correct runtimes may choose either. Whole numbers are repeated as they are, for they may be indices; and so is what holds
    two values alone, as a mask does: (1 - mask) * -1e9 of a mask of 0.97 would leave nothing of the scores to compare.

    Args:
        item: of any shape.
        axis: one of its axes.
        length: what that becomes.
    """
    own = item.shape[axis]
    repeated = item.index_select(axis, torch.arange(length, device=item.device) % own).contiguous()
    if length > own and item.is_floating_point() and not _is_mask(item):
        again = repeated.narrow(axis, own, length - own)
        generator = torch.Generator().manual_seed(axis)  # of its own for each axis, as two of them may be repeated in turn
        again *= (1 - _SMALLER * torch.rand(again.shape, generator=generator)).to(item)
    return repeated


def _is_mask(item: Tensor) -> bool:
    """Whether it holds at most two values."""
    if not item.numel():
        return True
    low, high = item.aminmax()
    return bool(((item == low) | (item == high)).all())


def shapes_of(rows: Sequence[Tensor]) -> str:
    """Shapes of inputs, for a message.

    Args:
        rows: of any shape.
    """
    return f"shape {', '.join(str(tuple(item.shape)) for item in rows)}"
