"""One decoder shared by all weights of a section: codes -> where, values -> what, then Split and Reshape per weight.

The weights are laid one after the other into one flat vector. A codec says how the positions of its non-zero elements
become `codes`, and which standard operators turn `codes` and `values` into the flat vector again. Since every input of
these operators is an initializer, a runtime folds them once, when it loads the file. `Compress`, `NonZero` and `Where`
are avoided: onnxruntime does not fold the first two (their output shape depends on data), and the last has no kernel
for float16.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.onnxfile.encodings.base import Key, Room, Section, Weight, widen
from tdcompress.onnxfile.tensors import Array, from_array, nonzero, to_array

MAX_ELEMENTS = 2**31 - 2**10  # positions are int32 in the decoder
Codes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


class Codec(Protocol):
    """Positions of the non-zero elements of a flat vector <-> a uint8 array, and the nodes that decode it."""

    def encode(self, positions: Positions, total: int) -> tuple[Codes, int]:
        """Codes for increasing positions below `total`, and the length of the vector that they decode to (>= total)."""

    def decode(self, codes: Codes, total: int) -> Positions:
        """The positions that codes stand for; increasing by construction, to be compared with `total` by the caller."""

    def nodes(self, names: "Names", dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """Nodes from `names("codes")` and `names("values")` to `names("flat")`, and the constants that they need."""


@dataclass(frozen=True)
class Names:
    """Names inside one section; `names("codes")` is the prefix and "codes"."""

    prefix: str

    def __call__(self, name: str) -> str:
        """The full name."""
        return self.prefix + name

    def owns(self, name: str) -> bool:
        """Whether a name is of this section."""
        return name.startswith(self.prefix)

    def node(self, operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        """A node between values of this section; `inputs` are names with spaces between."""
        return helper.make_node(operator, [self(name) for name in inputs.split()], [self(output)], **attributes)


@dataclass(frozen=True, kw_only=True)
class FrameEncoding:
    """An encoding made of a codec.

    `values` starts with one 0, so that "no value here" is index 0 of it.
    """

    codec: Codec
    loads_fast: bool

    def write(self, weights: Sequence[Weight], key: Key) -> Section:
        """See `Encoding`."""
        names = Names(key.prefix)
        sizes = [weight.array.size for weight in weights]
        total = sum(sizes)
        if total > MAX_ELEMENTS:
            raise UnsupportedError(f"{total} weights of one element type; at most {MAX_ELEMENTS} fit into one section")
        flat = np.concatenate([weight.array.reshape(-1) for weight in weights]).astype(key.stored)
        positions = nonzero(flat)
        codes, length = self.codec.encode(positions, total)
        values = np.concatenate([np.zeros(1, key.stored), flat[positions]])
        decoder, constants = self.codec.nodes(names, key.dtype, length)

        parts = [names(str(number)) for number in range(len(weights))]
        padding = [length - total] if length > total else []
        constants |= {"codes": codes, "sizes": np.array(sizes + padding, np.int64)}
        nodes = []
        if key.narrow:
            constants["narrow"] = values
            nodes.append(widen(names("narrow"), names("values"), key.dtype))
        else:
            constants["values"] = values
        nodes += decoder
        outputs = parts + [names("padding")] * len(padding)
        nodes.append(helper.make_node("Split", [names("flat"), names("sizes")], outputs))
        for part, weight in zip(parts, weights, strict=True):
            shape = "x".join(map(str, weight.array.shape))
            constants[shape] = np.array(weight.array.shape, np.int64)  # one for all weights of this shape
            nodes.append(helper.make_node("Reshape", [part, names(shape)], [weight.name]))
        initializers = [from_array(array, names(name)) for name, array in constants.items()]
        return Section(initializers=initializers, nodes=nodes)

    def read(self, section: Section, key: Key, room: Room) -> list[Weight]:
        """See `Encoding`."""
        names = Names(key.prefix)
        tensors = {tensor.name: tensor for tensor in section.initializers}

        def constant(name: str, dtype: np.dtype[Any]) -> Array:
            if name not in tensors:
                raise ModelError(f"packed weights lack {name!r}; the file is damaged")
            array = to_array(tensors[name])
            if array.dtype != dtype:
                raise ModelError(f"{name!r} is of type {array.dtype}, not {dtype}; the file is damaged")
            return array

        reshapes = [
            node
            for node in section.nodes
            if node.op_type == "Reshape" and len(node.input) == 2 and not names.owns(node.output[0])
        ]
        shapes = [tuple(constant(node.input[1], np.dtype(np.int64)).reshape(-1).tolist()) for node in reshapes]
        if not shapes or any(size <= 0 for shape in shapes for size in shape):
            raise ModelError(f"packed weights at {key.prefix!r} have no valid shapes; the file is damaged")
        sizes = [math.prod(shape) for shape in shapes]
        total = sum(sizes)
        room.take(total * key.dtype.itemsize, key.prefix)
        codes = constant(names("codes"), np.dtype(np.uint8))
        values = constant(names("narrow" if key.narrow else "values"), key.stored).reshape(-1)
        positions = self.codec.decode(codes, total)
        if positions.size != values.size - 1 or (positions.size and positions[-1] >= total):
            raise ModelError(f"packed weights at {key.prefix!r}: positions and values do not fit; the file is damaged")
        flat = np.zeros(total, key.dtype)
        flat[positions] = values[1:].astype(key.dtype)
        pieces = np.split(flat, np.cumsum(sizes)[:-1])
        return [
            Weight(name=node.output[0], array=piece.reshape(shape))
            for node, piece, shape in zip(reshapes, pieces, shapes, strict=True)
        ]
