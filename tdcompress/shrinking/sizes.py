"""Inputs of other sizes than the examples', and the numbers of the forward code that follow from the size."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tdcompress.shrinking.calls import SIZED, base_name
from tdcompress.shrinking.trace import Program

Lengths = dict[int, int]  # of an axis in the examples -> in other inputs


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
    """For each length of an axis (height, width, tokens): inputs where the axes of this length are half as long, then twice.

    Twice the size is taken by every network that asks for multiples; half of it is quicker to compute.
    """
    for length in dict.fromkeys(n for item in inputs for n in item.shape[1:]):
        if length > 1:
            yield [_with_length(inputs, length, other) for other in (length // 2, 2 * length)]


def _with_length(inputs: Sequence[Tensor], length: int, other: int) -> tuple[Tensor, ...]:
    found = []
    for item in inputs:
        for axis in range(1, item.ndim):
            item = _resized(item, axis, other) if item.shape[axis] == length else item
        found.append(item)
    return tuple(found)


def _resized(item: Tensor, axis: int, length: int) -> Tensor:
    """The tensor with an axis cut or repeated, so that token numbers stay valid."""
    return item.index_select(axis, torch.arange(length, device=item.device) % item.shape[axis])


def varying(program: Program, others: Sequence[Program]) -> frozenset[str]:
    """Names of the operators that take, and of the literal tensors that hold, other numbers at other sizes.

    Where the operators themselves differ, all of them count.
    """
    found: set[str] = set()
    for other in others:
        nodes, theirs = list(program.calls()), list(other.calls())
        if [node.target for node in nodes] != [node.target for node in theirs]:
            return frozenset(node.name for node in nodes) | (program.state.keys() - program.narrowable)
        found.update(a.name for a, b in zip(nodes, theirs, strict=True) if written_sizes(a) != written_sizes(b))
        literals = program.state.keys() - program.narrowable
        found.update(name for name in literals if not _same(program.state[name], other.state.get(name)))
    return frozenset(found)


def _same(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and torch.equal(a, b)


def written_sizes(node: fx.Node) -> list[object]:
    """Arguments that are numbers but no sizes: scales, epsilons, strides, bounds of slices."""
    name = base_name(node.target)
    if name in SIZED or name in ("group_norm", "layer_norm") or "conv" in name:
        return []
    return [item for item in pytree.tree_leaves((node.args, node.kwargs)) if not isinstance(item, fx.Node)]
