"""On which inputs a file and its module are compared: real samples, repeated (`cycled`) or cut to each size."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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


def compared_sizes(inputs: Sequence[Tensor], batches: Sequence[int], axes: Sequence[Mapping[int, str]]) -> Iterator[Size]:
    """Every batch size; then one sample, with other lengths of the other free axes.

    The network has to take twice the length of them all, as networks do that want multiples of something. Where it takes these,
    also twice the length of all but the last, and lengths that are odd and unequal.

    Args:
        inputs: samples (B, ...).
        batches: the batch sizes.
        axes: of each input its free axes, with their names; one name is one length. The first axis is the batch.
    """
    own = [0 in named for named in axes]
    for batch in batches:
        rows = [cycled(item, 0, batch) if first else item for item, first in zip(inputs, own, strict=True)]
        yield Size(said=f"batch {batch}" if any(own) else shapes_of(rows), rows=rows)
    one = [item[:1] if first else item for item, first in zip(inputs, own, strict=True)]
    lengths: dict[str, tuple[int, int]] = {}
    for item, named in zip(inputs, axes, strict=True):
        for axis in sorted(set(named) - {0}):
            lengths.setdefault(named[axis], (axis, item.shape[axis]))
    doubled = {name: 2 * length for name, (_, length) in lengths.items()}
    for changed in (doubled, dict(list(doubled.items())[:-1]), _uneven(lengths)):
        rows = []
        for item, named in zip(one, axes, strict=True):
            for axis, name in named.items():
                item = cycled(item, axis, changed[name]) if name in changed else item
            rows.append(item)
        if changed:
            yield Size(said=shapes_of(rows), rows=rows, required=changed is doubled)


def _uneven(lengths: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """An odd length for each name, whose axis and own length are given: of each axis about another multiple of its own."""
    places = {axis: place for place, axis in enumerate(sorted({axis for axis, _ in lengths.values()}), start=1)}
    taken: Counter[int] = Counter()  # of inputs whose lengths are their own, each next one is longer by 2
    found = {}
    for name, (axis, length) in lengths.items():
        found[name] = ((places[axis] * length + 1) | 1) + 2 * taken[axis]
        taken[axis] += 1
    return found


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
