"""What of a translation depends on the lengths that a model leaves open, so that one program can serve all of them.

Where every size is a sum of products of lengths, so is every number of a program (`tdcompress.engine.lengths`). Operators are
known that give such sizes from such sizes; what others do is looked at, and refused where it depends on a length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tdcompress.engine.read import Array, Node
from tdcompress.engine.steps import Shape
from tdcompress.errors import UnsupportedError

_SUMS = frozenset({"Add", "Cast", "Concat", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze"})
"""Of whole sums of products of lengths these make such sums; those that move take them where fixed numbers say."""
_ARITHMETIC = frozenset({"Add", "Concat", "Mul", "Sub"})

_KNOWN = frozenset(
    {
        "Concat", "Flatten", "Gemm", "LayerNormalization", "LogSoftmax", "MatMul", "Reshape", "Softmax", "Transpose", "Unsqueeze",
        "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare",
    }
)  # fmt: skip
"""Computed operators whose sizes are such sums, besides those that work on each number alone."""


class LengthError(UnsupportedError):
    """A model that needs a plan for each length."""


@dataclass(kw_only=True)
class Followed:
    """What was seen of lengths during one translation.

    Attributes:
        elementwise: operators that work on each number alone.
        varying: constants that are computed from lengths.
        sizes: those of them that are the shape of a tensor.
        recipes: the node that folds each of the others.
        others: the shapes that operators which are not known to follow lengths read and make.
    """

    elementwise: frozenset[str]
    varying: set[str] = field(default_factory=set)
    sizes: dict[str, Array] = field(default_factory=dict)
    recipes: dict[str, Node] = field(default_factory=dict)
    others: list[tuple[str, tuple[Shape, ...]]] = field(default_factory=list)
    _no_sums: set[str] = field(default_factory=set)

    def shape_of(self, name: str, value: Array) -> None:
        """A constant that is the shape of a computed tensor, or a part of one."""
        self.varying.add(name)
        self.sizes[name] = value

    def folded(self, node: Node, *, whole: bool) -> None:
        """A node whose inputs are constants; `whole`: whole numbers, none of which is rounded."""
        read = [name in self.varying for name in node.inputs]
        if not any(read):
            return
        moved = whole and node.op in _SUMS and (node.op in _ARITHMETIC or not any(read[1:]))
        for name in filter(None, node.outputs):
            self.varying.add(name)
            self.recipes[name] = node
            if not moved or not self._no_sums.isdisjoint(node.inputs):
                self._no_sums.add(name)

    def computed(self, node: Node, shapes: tuple[Shape, ...], *, looks_up: bool) -> None:
        """A node that becomes steps.

        Args:
            node: that is translated.
            shapes: of what it reads and makes.
            looks_up: it takes rows by computed numbers.

        Raises:
            LengthError: a length decides what it does, other than the size of what it makes.
        """
        if node.op not in self.elementwise and node.op != "Reshape":
            for name in node.inputs:
                self.require_fixed(name)
        if node.op not in self.elementwise and node.op not in _KNOWN and not looks_up:
            self.others.append((node.label, shapes))

    def require_sum_of_lengths(self, name: str) -> None:
        """Of a constant that says how large something is.

        Raises:
            LengthError: it depends on lengths in another way.
        """
        if name in self._no_sums:
            raise LengthError(f"{name!r} depends on lengths, and is no sum of them")

    def require_fixed(self, name: str) -> None:
        """Of a constant that goes into tables.

        Raises:
            LengthError: it depends on lengths.
        """
        if name in self.varying:
            raise LengthError(f"{name!r} depends on lengths")
