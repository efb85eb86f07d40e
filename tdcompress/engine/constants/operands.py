"""What an evaluated node gets: its inputs, and how large its result may be."""

import math
from collections.abc import Callable, Sequence

from tdcompress.engine.read import MAX_ELEMENTS, Array, Node

Operands = Sequence[Array | None]
"""The constant inputs of a node, each of its own shape; None where one is absent."""

Evaluator = Callable[[Operands, Node, int], Array | tuple[Array, ...]]
"""Computes a node's outputs from its inputs, the node and the model's opset. What does not fit is an error of Python or numpy."""


def need(inputs: Operands, index: int) -> Array:
    """An input that has to be there.

    Raises:
        ValueError: it is not.
    """
    array = inputs[index] if index < len(inputs) else None
    if array is None:
        raise ValueError(f"input {index} is missing")
    return array


def optional(inputs: Operands, index: int) -> Array | None:
    """An input, or None where it is left out."""
    return inputs[index] if index < len(inputs) else None


def require_memory(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as whole numbers, before memory is taken for an array of it.

    Raises:
        ValueError: a length below 0, or more than ``MAX_ELEMENTS`` elements.
    """
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"a shape of {list(sizes)}")
    return sizes


def axes_of(inputs: Operands, node: Node, index: int) -> list[int] | None:
    """The `axes` of a node, which older opsets give as an attribute and newer ones as an input.

    Args:
        inputs: of the node.
        node: has them as an attribute, or
        index: the input that holds them.
    """
    given = optional(inputs, index)
    if given is not None:
        return [int(axis) for axis in given.reshape(-1)]
    return [int(axis) for axis in node.attributes["axes"]] if "axes" in node.attributes else None
