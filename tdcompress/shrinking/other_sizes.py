"""Inputs of other sizes than the examples'."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def other_batches(inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Inputs of other batch sizes, (B, ...) each.

    Args:
        inputs: (B, ...): the batch is the first axis of the first one, and of all that are as long there.
    """
    batch = inputs[0].shape[0] if inputs[0].ndim else 0
    for other in (2, 3, 1):
        if batch and other != batch:
            yield tuple(_resized(item, 0, other) if item.ndim and item.shape[0] == batch else item for item in inputs)


def other_lengths(inputs: Sequence[Tensor]) -> Iterator[list[tuple[Tensor, ...]]]:
    """For each length of an axis (height, width, tokens): inputs where the axes of this length have another one.

    Half of it is quick to compute. Twice is taken by every network that asks for multiples; one more is odd where the length is
    even. A quarter is small. Where several axes of an input have the length, as those of square images, or several inputs, each
    of them is twice as long alone after that.
    """
    for length in dict.fromkeys(n for item in inputs for n in item.shape[1:]):
        if length > 1:
            axes = [[axis for axis in range(1, item.ndim) if item.shape[axis] == length] for item in inputs]
            others = dict.fromkeys((length // 2, 2 * length, length + 1, max(1, length // 4)))
            yield [
                *(_with_length(inputs, axes, other) for other in others),
                *(_with_length(inputs, alone, 2 * length) for alone in _apart(axes)),
            ]


def _apart(axes: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Of the axes of all inputs the first of each, the second, ...; then those of one input after the other."""
    most = max(map(len, axes))
    if most > 1:
        yield from ([each[index : index + 1] for each in axes] for index in range(most))
    if sum(map(bool, axes)) > 1:
        yield from (
            [each if place == index else () for place, each in enumerate(axes)] for index in range(len(axes)) if axes[index]
        )


def _with_length(inputs: Sequence[Tensor], axes: Sequence[Sequence[int]], other: int) -> tuple[Tensor, ...]:
    """The inputs with these axes, a list for each input, of another length."""
    found = []
    for item, own in zip(inputs, axes, strict=True):
        for axis in own:
            item = _resized(item, axis, other)
        found.append(item)
    return tuple(found)


def _resized(item: Tensor, axis: int, length: int) -> Tensor:
    """The tensor with an axis cut or repeated, so that token numbers stay valid."""
    return item.index_select(axis, torch.arange(length, device=item.device) % item.shape[axis])
