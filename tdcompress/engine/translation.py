"""What is known while ONNX nodes are translated one after another; the translators of translate_*.py read and extend it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from tdcompress.engine.read import MAX_ELEMENTS, Array, Graph, Node
from tdcompress.engine.steps import Floats, Shape, Step
from tdcompress.errors import ModelError, UnsupportedError


class Translation:
    """What is known while nodes are translated one after another: constants, shapes (without the batch), and the steps so far."""

    def __init__(self, graph: Graph, batch: int) -> None:
        self.opset = graph.opset
        self.batch = batch
        self.constants: dict[str, Array] = dict(graph.constants)
        self.shapes: dict[str, Shape] = {}
        self.steps: list[Step] = []
        self.casts: set[str] = set()

    def shape(self, node: Node, index: int) -> Shape:
        """The shape, without the batch, of a computed input."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name in self.constants:
            raise UnsupportedError(
                f"{node.label}: input {index} is a constant where the engine needs a computed tensor; use the onnxruntime backend"
            )
        if name not in self.shapes:
            raise ModelError(f"{node.label}: input {name!r} is not computed by any earlier node")
        return self.shapes[name]

    def constant(self, node: Node, index: int) -> Array | None:
        """The constant at an input, None if the input is absent.

        Raises:
            UnsupportedError: the input is computed at run time.
        """
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            raise UnsupportedError(f"{node.label}: input {index} ({name!r}) must be a constant; use the onnxruntime backend")
        return self.constants[name]

    def floats(self, node: Node, index: int) -> Floats:
        """A required constant as float32."""
        array = self.constant(node, index)
        if array is None:
            raise ModelError(f"{node.label}: input {index} is missing")
        return np.ascontiguousarray(array, np.float32)

    def is_constant(self, node: Node, index: int) -> bool:
        """Whether an input is there and constant."""
        return index < len(node.inputs) and node.inputs[index] in self.constants

    def add(self, step: Step, shape: Sequence[int]) -> None:
        """Append a step; `shape` is its output's, without the batch."""
        sizes = tuple(int(size) for size in shape)
        if any(size < 1 for size in sizes):
            raise ModelError(f"{step.name!r}: its output has the shape {list(sizes)}; every dimension must be at least 1")
        if math.prod(sizes) > MAX_ELEMENTS:
            raise UnsupportedError(
                f"{step.name!r}: its output has {math.prod(sizes)} elements per image; at most {MAX_ELEMENTS} are handled"
            )
        self.steps.append(step)
        self.shapes[step.output] = sizes

    def axis(self, node: Node, axis: int, rank: int) -> int:
        """An axis of the ONNX tensor (batch included) as an axis of one image."""
        if not -rank <= axis < rank:
            raise ModelError(f"{node.label}: axis {axis} of a tensor of rank {rank}")
        if axis % rank == 0:
            raise UnsupportedError(
                f"{node.label} works across the batch axis; the engine runs images one by one: use the onnxruntime backend"
            )
        return axis % rank - 1


Translator: TypeAlias = Callable[[Translation, Node], None]
