"""What is known while ONNX nodes are translated one after another; the translators beside it read and extend it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from tdcompress.engine.provenance import DERIVED, IS_BATCH, Marks
from tdcompress.engine.read import MAX_CONSTANT_BYTES, MAX_ELEMENTS, Array, Graph, Node
from tdcompress.engine.steps import ConstantTensor, Floats, Shape, Step
from tdcompress.engine.translate.follow import Followed
from tdcompress.errors import ModelError, UnsupportedError

_FLOAT32 = np.dtype(np.float32)
UNKNOWN_BATCH = 1_000_003
"""Stands for an unknown batch size: a prime, so that a reshape that mixes the batch with another axis is noticed."""


@dataclass(frozen=True, kw_only=True)
class BatchPlace:
    """Where the batch lies among the axes of an ONNX tensor: it is `axis`, or, joined, the slow part of it.

    Attention joins the batch with the heads, and a product with a constant on the left has the batch behind it. An image is the
    same numbers in either case; only what ONNX calls its axes differs.
    """

    axis: int = 0
    joined: bool = False

    def full(self, shape: Sequence[int], batch: int) -> Shape:
        """The ONNX shape of images of `shape`."""
        before, here, after = shape[: self.axis], shape[self.axis : self.axis + 1], shape[self.axis + 1 :]
        return (*before, batch * here[0], *after) if self.joined else (*before, batch, *here, *after)

    def per_image(self, full: Sequence[int], batch: int) -> Shape:
        """The inverse of `full`."""
        joined = (full[self.axis] // batch,) if self.joined else ()
        return (*full[: self.axis], *joined, *full[self.axis + 1 :])

    def marks(self, rank: int) -> Marks:
        """Which numbers of the ONNX shape, (rank,), come from the batch size."""
        found = np.zeros(rank, np.int8)
        found[self.axis] = DERIVED if self.joined else IS_BATCH
        return found


FIRST = BatchPlace()


class Translation:
    """What is known while nodes are translated one after another: constants, shapes (without the batch), and the steps so far.

    Args:
        graph: the model.
        batch: images of a call; None = any number.
        followed: what is known of axes that grow; None = there are none.
    """

    def __init__(self, graph: Graph, batch: int | None, followed: Followed | None = None) -> None:
        self.opset = graph.opset
        self.followed = followed
        self._graph = graph
        self.batch_known = batch is not None
        self.batch = UNKNOWN_BATCH if batch is None else batch
        self.constants: dict[str, Array] = dict(graph.constants)
        self.marks: dict[str, Marks] = {}
        self.shapes: dict[str, Shape] = {}
        self.steps: list[Step] = []
        self.kinds: dict[str, np.dtype[Any]] = {}  # of computed tensors that the model does not hold in float32
        self.places: dict[str, BatchPlace] = {}  # of computed tensors whose batch is not the first axis
        self.empty: set[str] = set()  # constants without elements that an input gave, whose first axis is the batch
        self._bytes = sum(array.nbytes for array in self.constants.values())
        self._taken = {value.name for value in graph.inputs} | set(graph.constants)
        self._taken.update(name for node in graph.nodes for name in node.outputs)

    def own_name(self, node: Node, purpose: str) -> str:
        """A name for a tensor between the steps of one node, which no tensor of the model has."""
        name = base = f"{node.outputs[0]}/{purpose}"
        for number in itertools.count(2):
            if name not in self._taken:
                break
            name = f"{base}/{number}"
        self._taken.add(name)
        return name

    def keep(self, name: str, array: Array, marks: Marks | None = None) -> None:
        """A constant that was folded.

        Args:
            name: of the tensor.
            array: its value, of the tensor's shape.
            marks: of its shape, what of it comes from the batch size (`provenance.Marks`); None = nothing.

        Raises:
            UnsupportedError: all constants together are too large.
        """
        self._bytes += array.nbytes
        if self._bytes > MAX_CONSTANT_BYTES:
            raise UnsupportedError(
                f"the model's constants need more than {MAX_CONSTANT_BYTES} bytes (at {name!r}); use the onnxruntime backend"
            )
        self.constants[name] = array
        if marks is not None and marks.any():
            self.marks[name] = marks

    def shape(self, node: Node, index: int) -> Shape:
        """The shape, without the batch, of a computed input.

        Raises:
            ModelError: no earlier node computes it.
            UnsupportedError: it is a constant.
        """
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name in self.constants:
            raise UnsupportedError(
                f"{node.label}: input {index} is a constant where the engine needs a computed tensor; use the onnxruntime backend"
            )
        if name not in self.shapes:
            raise ModelError(f"{node.label}: input {name!r} is not computed by any earlier node")
        return self.shapes[name]

    def place(self, name: str) -> BatchPlace:
        """Where the batch lies in a computed tensor."""
        return self.places.get(name, FIRST)

    def full_shape(self, node: Node, index: int) -> Shape:
        """The shape with the batch, wherever that lies, of a computed input.

        Raises:
            ModelError, UnsupportedError: as `shape`.
        """
        return self.place(node.inputs[index]).full(self.shape(node, index), self.batch)

    def constant(self, node: Node, index: int) -> Array | None:
        """The constant at an input, None if the input is absent.

        Raises:
            UnsupportedError: the input is computed at run time, or from the batch size.
        """
        array, marks = self.marked_constant(node, index)
        if marks is not None:
            self.refuse_batch(node, index)
        return array

    def marked_constant(self, node: Node, index: int) -> tuple[Array | None, Marks | None]:
        """The same with the marks that say what of it comes from the batch size, for who can tell what that means.

        Raises:
            UnsupportedError: the input is computed at run time.
        """
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None, None
        if name not in self.constants:
            raise UnsupportedError(f"{node.label}: input {index} ({name!r}) must be a constant; use the onnxruntime backend")
        if self.followed is not None:
            self.followed.require_sum_of_lengths(name)
        return self.constants[name], self.marks.get(name)

    def refuse_batch(self, node: Node, index: int) -> NoReturn:
        """What is said of a number that depends on the batch size where it cannot.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"{node.label}: input {index} ({node.inputs[index]!r}) is computed from the batch size, which one program for every "
            "batch does not have; export the model with a fixed batch size, or use the onnxruntime backend"
        )

    def floats(self, node: Node, index: int) -> Floats:
        """A required constant as float32.

        Raises:
            ModelError: the input is missing.
            UnsupportedError: as `constant`.
        """
        array = self.constant(node, index)
        if array is None:
            raise ModelError(f"{node.label}: input {index} is missing")
        if self.followed is not None:
            self.followed.require_fixed(node.inputs[index])
        return np.ascontiguousarray(array, np.float32)

    def transposed(self, node: Node, index: int) -> Floats:
        """A constant matrix as float32, turned; of a model that is planned several times it is made once.

        Raises:
            ModelError, UnsupportedError: as `floats`.
        """
        name, kept = node.inputs[index], self._graph.derived
        if kept is not None and name in kept:
            return kept[name]
        turned = np.ascontiguousarray(self.floats(node, index).T)
        if kept is not None and name in self._graph.constants:
            kept[name] = turned
        return turned

    def varying(self, node: Node, index: int, rank: int) -> str | None:
        """The name of a constant that depends on lengths, as a tensor; None where it depends on none.

        Args:
            node: that reads it.
            index: of the input.
            rank: the tensor's; axes of size 1 are put before the constant's own.
        """
        name = node.inputs[index]
        if self.followed is None or name not in self.followed.varying:
            return None
        if name in self.marks:
            self.refuse_batch(node, index)
        array = self.constants[name]
        value = np.ascontiguousarray(array, np.float32).reshape((1,) * (rank - array.ndim) + array.shape)
        tensor = self.own_name(node, "constant")
        self.add(ConstantTensor(name=node.name, output=tensor, value=value, source=name), value.shape)
        return tensor

    def tensor(self, node: Node, index: int, shape: Shape | None = None) -> str:
        """The name of an input as a computed tensor; a constant becomes one that is the same for every image.

        Args:
            node: the node.
            index: of its input.
            shape: without the batch, what a constant is broadcast to (a batch axis of 1 goes); None: its own, whose first axis
                is then the batch.

        Raises:
            UnsupportedError: a constant without `shape` that is not the same for every image.
        """
        if not self.is_constant(node, index):
            return node.inputs[index]
        array = self.floats(node, index)
        if shape is None:
            if array.ndim == 0 or array.shape[0] != self.batch or (array != array[:1]).any():
                raise UnsupportedError(
                    f"{node.label}: input {index} is a constant of shape {list(array.shape)}, which is not the same for every "
                    "image of any batch; use the onnxruntime backend"
                )
            value = array[0]
        else:
            value = np.broadcast_to(array[0] if array.ndim > len(shape) else array, shape)
        name = self.own_name(node, "constant")
        self.add(ConstantTensor(name=node.name, output=name, value=np.ascontiguousarray(value, np.float32)), value.shape)
        return name

    def kind(self, node: Node, index: int) -> np.dtype[Any]:
        """The element type that the model has an input in, constant or computed; while it runs every number is float32."""
        name = node.inputs[index]
        return self.constants[name].dtype if name in self.constants else self.kinds.get(name, _FLOAT32)

    def is_constant(self, node: Node, index: int) -> bool:
        """Whether an input is there and constant."""
        return index < len(node.inputs) and node.inputs[index] in self.constants

    def add(self, step: Step, shape: Sequence[int]) -> None:
        """Append a step; `shape` is its output's, without the batch.

        Raises:
            UnsupportedError: the output has an axis of size 0, or too many elements.
        """
        sizes = tuple(int(size) for size in shape)
        if any(size < 1 for size in sizes):
            raise UnsupportedError(
                f"{step.name!r}: its output has the shape {list(sizes)} per image, and the engine has no axis of size 0; use the "
                "onnxruntime backend"
            )
        if math.prod(sizes) > MAX_ELEMENTS:
            raise UnsupportedError(
                f"{step.name!r}: its output has {math.prod(sizes)} elements per image; at most {MAX_ELEMENTS} are handled"
            )
        self.steps.append(step)
        self.shapes[step.output] = sizes

    def axis(self, node: Node, axis: int, rank: int) -> int:
        """An axis of the ONNX tensor (batch included) as an axis of one image.

        Args:
            node: for messages.
            axis: as ONNX counts; negative = from the end.
            rank: of the ONNX tensor.

        Raises:
            ModelError: the tensor has no such axis.
            UnsupportedError: it is the batch axis.
        """
        if not -rank <= axis < rank:
            raise ModelError(f"{node.label}: axis {axis} of a tensor of rank {rank}")
        if axis % rank == 0:
            raise UnsupportedError(
                f"{node.label} works across the batch axis; the engine runs images one by one: use the onnxruntime backend"
            )
        return axis % rank - 1


NodeTranslator: TypeAlias = Callable[[Translation, Node], None]
