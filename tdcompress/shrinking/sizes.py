"""Inputs of other sizes than the examples', and the numbers of the forward code that follow from the size."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tdcompress.shrinking.calls import FRESH, SIZED, base_name, value_operands
from tdcompress.shrinking.demands import MatrixReader
from tdcompress.shrinking.trace import Program, module_of

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


def varying(program: Program, others: Sequence[Program]) -> frozenset[str]:
    """Names of the operators that take, and of the literal tensors that hold, other numbers at other sizes.

    An operator that is not there at another size counts as well. They are told by the module that they stand in. Of operators
    that pick places those count that pick from a table, be it a weight or a literal tensor.
    """
    found: set[str] = set()
    nodes, moving = _by_place(program), _of_inputs(program)
    for other in others:
        theirs = _by_place(other)
        for key, node in nodes.items():
            if picks(node.target) and node.all_input_nodes[0] in moving:
                continue  # the same constant wherever it is taken from
            if key not in theirs or _numbers_of(node) != _numbers_of(theirs[key]):
                found.add(node.name)
        literals = program.state.keys() - program.narrowable
        found.update(name for name in literals if not same_tensor(program.state[name], other.state.get(name)))
    return frozenset(found)


def agreed(readers: Sequence[MatrixReader], others: Sequence[Sequence[MatrixReader]]) -> list[MatrixReader]:
    """What layers read, with as constants only those that are the same wherever the layer is used at other sizes.

    Args:
        readers: of the examples' size.
        others: of each other size.
    """
    found = []
    for index, reader in enumerate(readers):
        name = reader.matrix.parameter
        turn = sum(before.matrix.parameter == name for before in readers[:index])
        vector = reader.vector.copy()
        no_fold = reader.no_fold
        for elsewhere in others:
            uses = [other for other in elsewhere if other.matrix.parameter == name]
            if uses:
                there = uses[min(turn, len(uses) - 1)]
                vector["known"] &= there.vector["known"] & (there.vector["value"] == vector["value"])
                no_fold = no_fold or there.no_fold
        found.append(replace(reader, vector=vector, no_fold=no_fold))
    return found


def _by_place(program: Program) -> dict[tuple[str, object, int], fx.Node]:
    """Operators by their module, what they are, and how often that stood there before."""
    found: dict[tuple[str, object, int], fx.Node] = {}
    counts: Counter[tuple[str, object]] = Counter()
    for node in program.calls():
        key = module_of(node), node.target
        found[*key, counts[key]] = node
        counts[key] += 1
    return found


def _of_inputs(program: Program) -> set[fx.Node]:
    """The nodes that are, or are computed from, inputs."""
    moving: set[fx.Node] = set()
    for node in program.nodes:
        given = node.op == "placeholder" and node.name not in program.tensors
        if given or not moving.isdisjoint(value_operands(node)):
            moving.add(node)
    return moving


def _numbers_of(node: fx.Node) -> list[object]:
    return computing_numbers(node.target, node.args, node.kwargs, places=picks(node.target))


def same_tensor(a: Tensor, b: Tensor | None) -> bool:
    """Whether two literal tensors are of one type and shape, with the same numbers."""
    return b is not None and a.dtype is b.dtype and a.device == b.device and torch.equal(a, b)


def written_sizes(node: fx.Node) -> list[object]:
    """Arguments that are numbers but no sizes: scales, epsilons, strides, bounds of slices."""
    name = base_name(node.target)
    if name in SIZED or name in ("group_norm", "layer_norm") or "conv" in name:
        return []
    return _numbers((node.args, node.kwargs))


def computing_numbers(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, places: bool = False) -> list[object]:
    """The numbers that values are computed with: not shapes, places, windows and widths of borders, which make no constant.

    Args:
        target: an operator.
        args: its arguments; tensors, or nodes in their place.
        kwargs: likewise.
        places: take places for such numbers all the same.
    """
    name = base_name(target)
    if not places and (name in _PLACED or name.lstrip("_").startswith(_WINDOWS) or "conv" in name):
        return []
    shape = 0 if name in _CREATING else 1 if name in FRESH | _BORDERED else None  # or widths of borders
    kept = [item for index, item in enumerate(args) if index != shape]
    return _numbers((kept, {key: value for key, value in kwargs.items() if key not in ("size", "pad")}))


def zeros_taken(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[bool]:
    """Which whole numbers among an operator's arguments are 0: where one is, there may be no border, or nothing that is added."""
    return [item == 0 for item in _numbers((args, kwargs)) if isinstance(item, int)]


def picks(target: Any) -> bool:
    """Whether an operator takes the elements at some places of a tensor."""
    return base_name(target) in _PICKING


# Operators whose numbers say which elements are taken, or in which shape.
_NORMS = frozenset(["group_norm", "layer_norm", "native_group_norm", "native_layer_norm"])
_PLACED = SIZED | _NORMS | frozenset(["as_strided", "slice", "select", "narrow", "roll", "repeat", "arange"])
_PICKING = frozenset(["slice", "select", "narrow"])
_WINDOWS = ("upsample", "adaptive", "avg_pool", "max_pool")
_BORDERED = frozenset(("pad", "constant_pad_nd"))
_CREATING = frozenset(("full", "zeros", "ones", "empty", "rand", "randn"))


def _numbers(arguments: object) -> list[object]:
    return [item for item in pytree.tree_leaves(arguments) if not isinstance(item, Tensor | fx.Node)]
