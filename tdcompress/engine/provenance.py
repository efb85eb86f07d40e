"""Which numbers of a folded constant come from the batch size, while that size is not known.

A dynamic batch is a large prime while shapes are inferred, so whatever is computed from it is a number that no call
has. Such a number may only say where the batch axis goes, as the first size of a reshape. As data, as another size or as a bound
it is refused, with the node's name. A mark per element says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tdcompress.engine.read import Array, Node

FREE, IS_BATCH, DERIVED = 0, 1, 2
"""A mark: independent of the batch size; the batch size itself; computed from it in another way."""

Marks = NDArray[np.int8]
"""A mark for each element, of the shape of the constant."""

Evaluate = Callable[[Node, Sequence[Array | None]], tuple[Array, ...]]

_MOVES = frozenset(
    {
        "Cast", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity",
        "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_COUNTS = frozenset({"NonZero", "Range"})
"""What its inputs hold says how many numbers there are."""
_MIXES = frozenset({"CumSum", "MatMul", "ScatterElements", "Softmax"})
"""A number that they give comes from several, or from another place, though what they give may have the shape of an input."""
_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_KEEPING = frozenset({"Add", "Div", "Mul", "Sub"})


def trace_marks(
    node: Node,
    inputs: Sequence[Array | None],
    marks: Sequence[Marks | None],
    outputs: Sequence[Array],
    *,
    batch: int,
    evaluate: Evaluate,
) -> tuple[Marks, ...]:
    """The marks of the outputs of a node that was folded.

    Args:
        node: the node.
        inputs: its constants, each of its own shape; None where one is absent.
        marks: per input, of its shape; None where every element is FREE.
        outputs: what it gave, each of its own shape.
        batch: the number that stands for the batch size.
        evaluate: folds a node; data that is moved has its marks moved by the same operator.
    """
    if node.op in _MOVES:
        found = _moved(node, inputs, marks, evaluate)
    elif node.op == "Where" and marks[0] is None:
        condition, a, b = inputs[0], *(_or_free(inputs[i], marks[i]) for i in (1, 2))
        found = (np.where(np.asarray(condition), a, b).astype(np.int8),)
    else:
        found = tuple(_combined(node, inputs, marks, output, batch) for output in outputs)
    # A cast, or the like, that changes the number leaves something that is not the batch size any more.
    return tuple(
        np.where((mark == IS_BATCH) & (output != batch), DERIVED, np.broadcast_to(mark, output.shape)).astype(np.int8)
        for mark, output in zip(found, outputs, strict=True)
    )


def _or_free(array: Array | None, marks: Marks | None) -> Marks:
    return np.zeros(np.shape(np.asarray(array)), np.int8) if marks is None else marks


def deciding_input(node: Node, marks: Sequence[Marks | None]) -> int | None:
    """By which input the batch size decides what numbers an operator takes, or how many it gives; None: by none."""
    if node.op not in _MOVES | _COUNTS:
        return None
    first = 0 if node.op in _COUNTS else _data_inputs(node)
    return next((index for index in range(first, len(marks)) if marks[index] is not None), None)


def _data_inputs(node: Node) -> int:
    return len(node.inputs) if node.op == "Concat" else 1


def _moved(node: Node, inputs: Sequence[Array | None], marks: Sequence[Marks | None], evaluate: Evaluate) -> tuple[Marks, ...]:
    if node.op in ("Cast", "Identity"):
        return (_or_free(inputs[0], marks[0]),)
    data = _data_inputs(node)
    replaced = [_or_free(array, mark) for array, mark in zip(inputs[:data], marks[:data], strict=True)]
    return tuple(array.astype(np.int8) for array in evaluate(node, [*replaced, *inputs[data:]]))


def _combined(node: Node, inputs: Sequence[Array | None], marks: Sequence[Marks | None], output: Array, batch: int) -> Marks:
    if node.op in _MIXES:
        return np.full(output.shape, DERIVED, np.int8)
    touched = [_or_free(array, mark) for array, mark in zip(inputs, marks, strict=True) if array is not None]
    try:
        worst = np.broadcast_to(np.maximum.reduce(np.broadcast_arrays(*touched)), output.shape)
    except ValueError:  # no elementwise operator
        return np.full(output.shape, DERIVED, np.int8)
    result = np.where(worst == FREE, FREE, DERIVED).astype(np.int8)
    if node.op not in _COMPARISONS | _KEEPING:
        return result
    (a, b), (mark_a, mark_b) = (np.broadcast_arrays(*(np.asarray(array) for array in inputs))), np.broadcast_arrays(*touched)
    one_sided = ((mark_a == IS_BATCH) & (mark_b == FREE)) | ((mark_a == FREE) & (mark_b == IS_BATCH))
    if node.op in _COMPARISONS:  # every batch size is larger than such a number
        result[one_sided & (np.where(mark_a == IS_BATCH, b, a) <= 0)] = FREE
    elif node.op in _KEEPING and np.issubdtype(output.dtype, np.integer):  # times 1, plus 0
        result[one_sided & (mark_a == IS_BATCH) & (output == batch)] = IS_BATCH
        if node.op in ("Add", "Mul"):
            result[one_sided & (output == batch)] = IS_BATCH
    return result
