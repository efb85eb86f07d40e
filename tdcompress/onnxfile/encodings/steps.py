"""steps: 4, 6 or 8 bits a value say how many places after the last one it comes. For large weights: each has its own decoder.

The decoder that weights share (`frame.py`) makes every number of them five times, and a runtime keeps all five until the whole
graph is folded. Here ScatterElements writes each weight where it stays, or once before a Reshape, into zeros that weights of one
size share. A value that is farther away than a code tells needs a zero in between that is kept like a value. So there are as many
codes as values, and nothing to tell apart.

A matrix may have its rows side by side, each with as many codes: what is written is the weight then, without a Reshape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tdcompress.errors import ModelError
from tdcompress.onnxfile.encodings.base import LARGE, Room, Section, SectionKey, Weight, cast_node
from tdcompress.onnxfile.encodings.bits import SHARING, join, part, part_nodes
from tdcompress.onnxfile.encodings.names import Names
from tdcompress.onnxfile.tensors import Array, from_array, nonzero, to_array

_ROWS_ROOM = 0.04
"""What rows may cost more in bytes; they save a runtime 4 bytes an element while it loads the file."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """A weight seen as rows of `columns`, each with `count` codes of `bits`."""

    bits: int
    rows: int
    columns: int
    count: int

    @property
    def view(self) -> tuple[int, ...]:
        """Shape of what is scattered into."""
        return (self.rows, self.columns) if self.rows > 1 else (self.columns,)

    @property
    def table(self) -> tuple[int, ...]:
        """Shape of the codes and values."""
        return (self.rows, self.count) if self.rows > 1 else (self.count,)

    def n_bytes(self, itemsize: int) -> int:
        return self.rows * self.count * (self.bits + 8 * itemsize) // 8


def _steps(positions: Array, columns: int) -> tuple[Array, Array, Array]:
    """Of values at flat positions: (row, column, columns from the value before in the row, or from its start)."""
    row, column = np.divmod(positions, columns)
    return row, column, np.where(np.diff(row, prepend=-1) > 0, column, np.diff(column, prepend=0))


def _zeros_before(steps: Array, bits: int) -> Array:
    """How many zeros have to be kept on the way to each value; the first place of a row may be 0 columns from its start."""
    zeros: Array = np.maximum(steps - 1, 0) // ((1 << bits) - 1)
    return zeros


def _layouts(shape: tuple[int, ...], positions: Array) -> list[_Layout]:
    """Those that hold zeros enough to fill them up; one row of 8 bits always does."""
    found = []
    for rows in sorted({1, shape[0] if len(shape) == 2 else 1}):
        columns = math.prod(shape) // rows
        row, _, steps = _steps(positions, columns)
        for bits, sharing in SHARING.items():
            count = max(1, int(np.bincount(row, 1 + _zeros_before(steps, bits), rows).max()))
            while rows * count % sharing:
                count += 1
            if count <= columns:
                found.append(_Layout(bits=bits, rows=rows, columns=columns, count=count))
    return found


def _best(shape: tuple[int, ...], positions: Array, itemsize: int) -> _Layout:
    """The fewest bytes; rows where they cost hardly more."""

    def bytes_of(layout: _Layout) -> int:
        return layout.n_bytes(itemsize)

    layouts = _layouts(shape, positions)
    least = min((layout for layout in layouts if layout.rows == 1), key=bytes_of)
    in_rows = [layout for layout in layouts if layout.rows > 1 and bytes_of(layout) <= (1 + _ROWS_ROOM) * bytes_of(least)]
    return min(in_rows, key=bytes_of, default=least)


def _places(layout: _Layout, positions: Array) -> Array:
    """Columns of values and zeros in between, (rows, count), increasing in each row and no farther apart than a code tells."""
    kept = np.zeros((layout.rows, layout.columns), bool)
    row, column, steps = _steps(positions, layout.columns)
    kept[row, column] = True
    zeros = _zeros_before(steps, layout.bits)
    nth = np.arange(1, zeros.sum() + 1) - np.repeat(np.cumsum(zeros) - zeros, zeros)  # 1, 2, ... on the way to each value
    kept[np.repeat(row, zeros), np.repeat(column - steps, zeros) + nth * ((1 << layout.bits) - 1)] = True
    missing = layout.count - np.count_nonzero(kept, axis=1, keepdims=True)
    short = np.flatnonzero(missing)
    free = ~kept[short]
    kept[short] |= free & (np.cumsum(free, axis=1, dtype=np.int32) <= missing[short])
    return np.nonzero(kept)[1].reshape(layout.rows, layout.count)


class _Steps:
    infers = True
    shares = False

    def handicap(self, elements: int) -> float:
        """See `Encoding`; small weights are better off in a decoder that they share."""
        return 0.0 if elements >= LARGE else math.inf

    def holds(self, form: str) -> bool:
        """See `Encoding`."""
        return form == ""

    def write(self, weights: Sequence[Weight], key: SectionKey) -> Section:
        """See `Encoding`."""
        names = Names(key.prefix)
        nodes: dict[str, onnx.NodeProto] = {}  # by output, since weights of one size share their zeros
        constants: dict[str, Array] = {}
        for number, weight in enumerate(weights):
            made, own = _decoder(names, key, number, weight)
            nodes |= {node.output[0]: node for node in made}
            constants |= own
        return Section(
            initializers=[from_array(array, names(name)) for name, array in constants.items()], nodes=[*nodes.values()]
        )

    def read(self, section: Section, key: SectionKey, room: Room) -> list[Weight]:
        """See `Encoding`."""
        names = Names(key.prefix)
        tensors = {tensor.name: tensor for tensor in section.initializers}
        makers = {name: node for node in section.nodes for name in node.output}
        readers = {name: node for node in section.nodes for name in node.input}

        def constant(name: str, dtype: np.dtype[Any]) -> Array:
            array = to_array(tensors[name])
            if array.dtype != dtype:
                raise ModelError(f"{name} is of type {array.dtype}, not {dtype}; the file is damaged")
            return array

        def shape(name: str) -> tuple[int, ...]:
            return tuple(int(size) for size in constant(name, np.dtype(np.int64)).reshape(-1))

        found: dict[int, Weight] = {}
        try:
            for node in section.nodes:
                if node.op_type != "ScatterElements":
                    continue
                zeros, places, _ = node.input
                number = places.removeprefix(names("places"))
                view = shape(makers[zeros].input[0])
                last = readers[node.output[0]] if names.owns(node.output[0]) else node
                whole = view if last is node else shape(last.input[1])
                codes = constant(names(f"codes{number}"), np.dtype(np.uint8))
                values = constant(names(f"{'narrow' if key.narrow else 'values'}{number}"), key.stored)
                if any(size <= 0 for size in (*view, *whole)) or math.prod(view) != math.prod(whole):
                    raise ModelError("they have no valid shapes; the file is damaged")
                room.take(math.prod(view) * key.dtype.itemsize, last.output[0])
                array = _scattered(codes, values.astype(key.dtype), view)
                found[int(number)] = Weight(name=last.output[0], array=array.reshape(whole))
        except (KeyError, IndexError, ValueError) as error:
            raise ModelError(f"they lack a part ({error}); the file is damaged") from error
        return [found[number] for number in sorted(found)]


def _decoder(names: Names, key: SectionKey, number: int, weight: Weight) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Nodes that make a weight known, and their constants; what has no number in its name is the same for others."""
    shape, flat = weight.array.shape, weight.array.reshape(-1).astype(key.stored)
    positions = nonzero(flat)
    layout = _best(shape, positions, key.stored.itemsize)
    places = _places(layout, positions)
    codes = np.diff(places, prepend=0, axis=1).astype(np.uint8).reshape(-1)
    values = np.take_along_axis(flat.reshape(layout.rows, -1), places, axis=1).reshape(layout.table)
    in_rows, stays = layout.rows > 1, layout.view == shape
    constants = {
        f"codes{number}": join(codes, layout.bits),
        f"{'narrow' if key.narrow else 'values'}{number}": values,
        f"axis{int(in_rows)}": np.array(int(in_rows), np.int64),
        _shape_name(layout.view): np.array(layout.view, np.int64),
    }
    if in_rows:
        constants[_shape_name(layout.table)] = np.array(layout.table, np.int64)
    if not stays:
        constants[_shape_name(shape)] = np.array(shape, np.int64)
    zero = helper.make_tensor("", helper.np_dtype_to_tensor_dtype(key.dtype), [1], bytes(key.dtype.itemsize), raw=True)
    unpack, more = part_nodes(names, layout.bits, f"codes{number}", f"{'line' if in_rows else 'steps'}{number}")
    zeros, target = f"zeros{_shape_name(layout.view)}", weight.name if stays else names(f"flat{number}")
    scattered = [names(name) for name in (zeros, f"places{number}", f"values{number}")]
    nodes = [
        *([cast_node(names(f"narrow{number}"), names(f"values{number}"), key.dtype)] if key.narrow else []),
        names.node("ConstantOfShape", _shape_name(layout.view), zeros, value=zero),
        *unpack,
        *([names.node("Reshape", f"line{number} {_shape_name(layout.table)}", f"steps{number}")] if in_rows else []),
        names.node("CumSum", f"steps{number} axis{int(in_rows)}", f"places{number}"),
        helper.make_node("ScatterElements", scattered, [target], axis=int(in_rows)),
        *([] if stays else [helper.make_node("Reshape", [target, names(_shape_name(shape))], [weight.name])]),
    ]
    return nodes, constants | more


def _shape_name(sizes: tuple[int, ...]) -> str:
    return "shape" + "x".join(map(str, sizes))


def _scattered(codes: Array, values: Array, view: tuple[int, ...]) -> Array:
    """What the nodes compute.

    Raises:
        ModelError: codes and values are not as many, or a place is not one of a row.
    """
    bits = 8 * codes.size // max(1, values.size)
    if bits not in SHARING or 8 * codes.size != bits * values.size or values.ndim != len(view) or values.shape[:-1] != view[:-1]:
        raise ModelError("positions and values do not fit; the file is damaged")
    steps = part(codes, bits).reshape(values.shape).astype(np.int64)
    places = np.cumsum(steps, axis=-1)
    if np.any(steps[..., 1:] == 0) or np.any(places[..., -1:] >= view[-1]):
        raise ModelError("positions and values do not fit; the file is damaged")
    array = np.zeros(view, values.dtype)
    np.put_along_axis(array, places, values, axis=-1)
    return array


STEPS = _Steps()
