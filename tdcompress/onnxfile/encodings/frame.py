"""One decoder shared by all weights of a section: codes -> where, values -> what, then Split, Reshape, Split.

The weights are laid one after the other into one flat vector, those with rows of one shape together. A codec says how
the positions of its non-zero elements become `codes`, and which standard operators turn `codes` and `values` into the
flat vector again. Since every input of these operators is an initializer, a runtime folds them once, when it loads the
file. `Compress`, `NonZero` and, for float16, `Where` are avoided. onnxruntime does not fold them, but runs them on every call.
Then it neither packs weights for its kernels nor fuses BatchNorms (benchmarks/pack_load.py --operators).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from tdcompress.errors import ModelError, UnsupportedError
from tdcompress.onnxfile.encodings.base import LARGE, Room, Section, SectionKey, Weight, cast_node, shared_handicap
from tdcompress.onnxfile.encodings.forms import FORMS, read_form, write_form
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array, from_array, nonzero, to_array

MAX_ELEMENTS = 2**31 - 2**10  # positions are int32 in the decoder
Codes = npt.NDArray[np.uint8]
"""The bytes of a codec, (bytes,)."""

Positions = npt.NDArray[np.int64]
"""Places in a flat vector, (K,), increasing."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a section calls the values and constants between its flat vector and its weights, each with a number."""

    part: str = "part"
    rows: str = "rows"
    shape: str = "shape"
    heights: str = "heights"


BRIEF = Labels(part="p", rows="r", shape="s", heights="h")


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What a codec made of positions.

    Attributes:
        codes: the bytes to keep, uint8 (bytes,).
        before: how many places more than the weights the codes decode to, before the first weight.
        after: the same, after the last.
        fillers: int64 (F,), positions of zeros that are kept like values, because the codes need a value there. Most codecs
            have none.
        more: name -> a constant of any shape that the nodes of the codec need, and that depends on the positions.
    """

    codes: Codes
    before: int
    after: int
    fillers: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    more: Mapping[str, Array] = field(default_factory=dict)


class Codec(Protocol):
    """Positions of the non-zero elements of a flat vector <-> a uint8 array, and the nodes that decode it."""

    @property
    def zero_first(self) -> bool:
        """Whether `values` starts with one 0 more, so that "no value here" can be index 0 of it."""

    def encode(self, positions: Positions, total: int) -> Encoded:
        """Codes for increasing positions below `total`."""

    def decode(self, codes: Codes, total: int) -> Positions:
        """The positions, fillers included, that codes stand for; increasing, to be compared with their end by the caller."""

    def nodes(self, names: Names, dtype: np.dtype[Any], length: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
        """Nodes from `names("codes")` and `names("values")` to `names("flat")`, and the constants that they need.

        Args:
            names: gives full names.
            dtype: element type of the values.
            length: entries of "flat".
        """


@dataclass(frozen=True, kw_only=True)
class FrameEncoding:
    """An encoding made of a codec.

    Attributes:
        codec: positions <-> codes.
        slower: what its bytes count more, because its decoder makes more passes.
        labels: names in its sections; what was packed is read under those that it was packed with.
        large: whether it is for weights of `LARGE` elements and more, too, where loading counts.
    """

    codec: Codec
    slower: float
    labels: Labels = Labels()
    large: bool = True
    infers = True
    shares = True

    def handicap(self, elements: int) -> float:
        """See `Encoding`."""
        return self.slower + shared_handicap(elements) if self.large or elements < LARGE else math.inf

    def holds(self, form: str) -> bool:
        """See `Encoding`."""
        return form == "" or self.codec.zero_first or FORMS[form].has_zero

    def write(self, weights: Sequence[Weight], key: SectionKey) -> Section:
        """See `Encoding`."""
        names = Names(key.prefix)
        groups = _by_row_shape(weights)
        sizes = [sum(weight.array.size for weight in group) for group in groups.values()]
        total = sum(sizes)
        if total > MAX_ELEMENTS:
            raise UnsupportedError(f"{total} weights of one element type; at most {MAX_ELEMENTS} fit into one section")
        ordered = [weight.array.reshape(-1) for group in groups.values() for weight in group]
        flat = np.concatenate(ordered).astype(key.stored)
        positions = nonzero(flat)
        encoded = self.codec.encode(positions, total)
        places = np.sort(np.concatenate([positions, encoded.fillers]))
        flat = np.concatenate([flat, np.zeros(encoded.after, key.stored)])
        nodes, constants = self.codec.nodes(names, key.dtype, encoded.before + total + encoded.after)
        constants |= {"codes": encoded.codes, **encoded.more}
        lead = int(self.codec.zero_first)
        if key.form:
            ends = np.cumsum([array.size for array in ordered])[:-1]
            pieces = np.split(flat[places], np.searchsorted(places, ends))
            decoder, more = write_form(FORMS[key.form], names, lead, pieces)
            nodes, constants = decoder + nodes, constants | more
        else:
            constants["narrow" if key.narrow else "values"] = np.concatenate([np.zeros(lead, key.stored), flat[places]])
        if key.narrow:
            nodes.insert(0, cast_node(names("narrow"), names("values"), key.dtype))

        before, after = [encoded.before] * (encoded.before > 0), [encoded.after] * (encoded.after > 0)
        constants["sizes"] = np.array(before + sizes + after, np.int64)
        parts, tails = [names("before")] * len(before), []
        for number, (row_shape, group) in enumerate(groups.items()):
            part, tail, more = _unstack(names, self.labels, number, row_shape, group)
            parts.append(part)
            tails += tail
            constants |= more
        parts += [names("after")] * len(after)
        nodes.append(helper.make_node("Split", [names("flat"), names("sizes")], parts))
        initializers = [from_array(array, names(name)) for name, array in constants.items()]
        return Section(initializers=initializers, nodes=nodes + tails)

    def read(self, section: Section, key: SectionKey, room: Room) -> list[Weight]:
        """See `Encoding`."""
        names = Names(key.prefix)
        tensors = {tensor.name: tensor for tensor in section.initializers}

        def constant(name: str, dtype: np.dtype[Any]) -> Array:
            array = to_array(tensors[name])
            if array.dtype != dtype:
                raise ModelError(f"{name} is of type {array.dtype}, not {dtype}; the file is damaged")
            return array

        def integers(name: str) -> list[int]:
            return [int(size) for size in constant(name, np.dtype(np.int64)).reshape(-1)]

        try:
            shapes = _shapes(section.nodes, names, integers)
            codes = constant(names("codes"), np.dtype(np.uint8))
            if key.form:
                values = read_form(FORMS[key.form], lambda name, dtype: constant(names(name), dtype))
            else:
                values = constant(names("narrow" if key.narrow else "values"), key.stored).reshape(-1)
        except (KeyError, IndexError, ValueError) as error:
            raise ModelError(f"they lack a part ({error}); the file is damaged") from error
        if not shapes or any(size <= 0 for _, shape in shapes for size in shape):
            raise ModelError("they have no valid shapes; the file is damaged")
        sizes = [math.prod(shape) for _, shape in shapes]
        total = sum(sizes)
        room.take(total * key.dtype.itemsize, key.prefix)
        lead = int(self.codec.zero_first)
        positions = self.codec.decode(codes, total)
        if key.form:
            values = values[: positions.size + lead]  # codes that share bytes are even in number
        if positions.size != values.size - lead or (positions.size and positions[-1] > total):  # a last filler may be at total
            raise ModelError("positions and values do not fit; the file is damaged")
        flat = np.zeros(total + 1, key.dtype)
        flat[positions] = values[lead:].astype(key.dtype)
        pieces = np.split(flat[:total], np.cumsum(sizes)[:-1])
        return [Weight(name=name, array=piece.reshape(shape)) for (name, shape), piece in zip(shapes, pieces, strict=True)]


def scatter(names: Names, dtype: np.dtype[Any], length: int, updates: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Nodes that put `updates` at "places" of `length` zeros, which is "flat"; and their constants.

    Args:
        names: gives full names.
        dtype: element type of the values.
        length: entries of "flat".
        updates: name of the values.
    """
    zero = helper.make_tensor("", helper.np_dtype_to_tensor_dtype(dtype), [1], bytes(dtype.itemsize), raw=True)
    nodes = [
        names.node("ConstantOfShape", "length", "zeros", value=zero),
        names.node("ScatterElements", f"zeros places {updates}", "flat"),
    ]
    return nodes, {"length": np.array([length], np.int64)}


def _by_row_shape(weights: Sequence[Weight]) -> dict[tuple[int, ...], list[Weight]]:
    """Weights whose shapes differ in the first axis only stand together: one Reshape serves them all."""
    groups: dict[tuple[int, ...], list[Weight]] = {}
    for weight in weights:
        groups.setdefault(weight.array.shape[1:], []).append(weight)
    return groups


def _unstack(
    names: Names, labels: Labels, number: int, row_shape: tuple[int, ...], group: Sequence[Weight]
) -> tuple[str, list[onnx.NodeProto], dict[str, Array]]:
    """(name of the group's flat vector, nodes from there to its weights, their constants)."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Array] = {}
    outputs = [weight.name for weight in group]
    several = len(group) > 1
    part = names(f"{labels.part}{number}") if row_shape or several else outputs[0]
    rows = part
    if row_shape:
        rows, shape = names(f"{labels.rows}{number}") if several else outputs[0], f"{labels.shape}{number}"
        constants[shape] = np.array([-1, *row_shape], np.int64)
        nodes.append(helper.make_node("Reshape", [part, names(shape)], [rows]))
    if several:
        heights = f"{labels.heights}{number}"
        constants[heights] = np.array([weight.array.shape[0] for weight in group], np.int64)
        nodes.append(helper.make_node("Split", [rows, names(heights)], outputs))
    return part, nodes, constants


def _shapes(
    nodes: Sequence[onnx.NodeProto], names: Names, integers: Callable[[str], list[int]]
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the weights, in the order of the flat vector; a missing part is a KeyError or IndexError."""
    reader = {node.input[0]: node for node in nodes if node.input}
    first = reader[names("flat")]
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for part, size in zip(first.output, integers(first.input[1]), strict=True):
        if part in (names("before"), names("after")):
            continue
        value: str = part
        row_shape: tuple[int, ...] = ()
        if names.owns(value) and reader[value].op_type == "Reshape":
            reshape = reader[value]
            value, row_shape = reshape.output[0], tuple(integers(reshape.input[1])[1:])
        if names.owns(value):
            split = reader[value]
            heights = zip(split.output, integers(split.input[1]), strict=True)
            shapes += [(name, (height, *row_shape)) for name, height in heights]
        else:
            shapes.append((value, (size // max(1, math.prod(row_shape)), *row_shape)))
    return shapes
