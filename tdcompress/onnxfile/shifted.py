"""Weights whose zeros stand at a zero point other than 0: their difference from it is packed, and one Add brings them back.

Integers of 8 bits wrap around, in numpy as in onnxruntime, so that every value comes back. The section "shift" of an element type
has, for each such weight, the zero points and the Add; another section has the difference, under a name of this one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.base import RESERVED, Section, SectionKey, Weight
from tdcompress.onnxfile.tensors import Array, from_array, to_array

SHIFT = "shift"
LOWEST_OPSET = 14  # Add takes integers of 8 bits since then


@dataclass(frozen=True, kw_only=True, eq=False)
class Shift:
    """One weight of a section "shift".

    Attributes:
        key: of that section.
        number: tells its names from others'.
        name: what the network calls the weight.
        zero: its zero points, of the weight's type, broadcasting to its shape.
    """

    key: SectionKey
    number: int
    name: str
    zero: Array

    @property
    def difference(self) -> str:
        """The name of what is packed."""
        return f"{self.key.prefix}w{self.number}"

    def away(self, array: Array) -> Weight:
        """What is packed instead of a weight, of the same shape: 0 where it is its zero point."""
        return Weight(name=self.difference, array=array - self.zero)

    def back(self, difference: Array) -> Array:
        """The weight again, of the same shape.

        Raises:
            ModelError: the zero points are not for this shape.
        """
        try:
            array = np.asarray(difference + self.zero)
        except ValueError:
            array = np.empty(0)
        if array.shape != difference.shape or array.dtype != difference.dtype:
            raise ModelError(f"the zero points of {self.name!r} are not of its shape and type; the file is damaged")
        return array


def shift_key(graph: int, dtype: np.dtype[np.generic]) -> SectionKey:
    """The key of the section "shift" of a graph and an element type."""
    return SectionKey(graph=graph, encoding=SHIFT, dtype=dtype, stored=dtype)


def write_shifts(shifts: Sequence[Shift]) -> Section:
    """Nodes that make the weights of differences, and their zero points."""
    section = Section()
    for shift in shifts:
        zero = f"{shift.key.prefix}z{shift.number}"
        section.initializers.append(from_array(shift.zero, zero))
        section.nodes.append(helper.make_node("Add", [shift.difference, zero], [shift.name]))
    return section


def read_shifts(key: SectionKey, section: Section) -> list[Shift]:
    """The weights of a section that was found in a file; the caller compares what `write_shifts` makes of them with it.

    Raises:
        ModelError: this is not what `write_shifts` makes.
    """
    zeros: Mapping[str, onnx.TensorProto] = {tensor.name: tensor for tensor in section.initializers}
    found = []
    for node in section.nodes:
        number = node.input[0].removeprefix(f"{key.prefix}w")
        zero = zeros.get(f"{key.prefix}z{number}")
        if (
            zero is None
            or not number.isdecimal()
            or len(number) > 6
            or len(node.output) != 1
            or node.output[0].startswith(RESERVED)
        ):
            raise ModelError(f"{node.op_type} reads {node.input[0]!r}, which is no packed weight; was the file edited?")
        found.append(Shift(key=key, number=int(number), name=node.output[0], zero=to_array(zero)))
    return found
