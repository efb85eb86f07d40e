"""One program for every length that a model leaves open.

A step of a translator sees a past that grows by one. To plan it anew for each length would take many times as long as a step. But
every number of a plan's descriptors (a size, a stride, an offset) is a sum of products of the model's sizes, which
`tdcompress.engine.translate.follow` makes sure of. So it is a polynomial of the open lengths. The model is planned for a few of
them. Polynomials of degree 2 are fitted to the numbers, in integers, and have to give those of one more plan. From then on a plan
for other lengths is a product of a small matrix with a vector.

Memory is placed for lengths up to a power of two, and anew when they grow above it. Constants that depend on lengths (sines and
cosines of positions) are folded anew for each.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Mapping, Sequence
from ctypes import Structure, c_double, c_int64
from dataclasses import dataclass

import numpy as np

from tdcompress.engine.binding import OPERATIONS, InstructionSet, Op
from tdcompress.engine.bounds import check_call
from tdcompress.engine.constants.evaluate import evaluate
from tdcompress.engine.fuse import fuse
from tdcompress.engine.layout import Layout
from tdcompress.engine.lower.state import LayerRecord, Lowering
from tdcompress.engine.memory import Buffer, Use
from tdcompress.engine.plan import Plan, arena_for, lower
from tdcompress.engine.polynomials import AxisLengths, Words, fit, monomials, sample_points
from tdcompress.engine.pool import SharedTables
from tdcompress.engine.read import MAX_ELEMENTS, Array, Graph, Node
from tdcompress.engine.steps import Shape
from tdcompress.engine.translate.follow import Followed, LengthError
from tdcompress.engine.translate.graph import ELEMENTWISE, translate
from tdcompress.errors import UnsupportedError

MOST_LENGTHS = 3
_LEAST_ROOM = 32
_FOLDED_KEPT = 512
_APART = 1 << 40
"""How far apart buffers are placed to see which numbers move with them."""


@dataclass(frozen=True, kw_only=True)
class OpenLengths:
    """The lengths that a model leaves open: per input its axes behind the batch, a number or the index of a length."""

    names: tuple[str, ...]
    axes: tuple[tuple[int | str, ...], ...]

    @classmethod
    def of(cls, graph: Graph) -> OpenLengths:
        """Those of a model: axes of one name have one length; an axis without a name has its own."""
        axes = tuple(
            tuple(
                size if isinstance(size, int) else size or f"{value.name}[{place}]"
                for place, size in enumerate(value.shape[1:], 1)
            )
            for value in graph.inputs
        )
        names = dict.fromkeys(axis for shape in axes for axis in shape if isinstance(axis, str))
        return cls(names=tuple(names), axes=axes)

    def found(self, shapes: Sequence[Shape]) -> AxisLengths | None:
        """What they are in the shapes of inputs (without the batch); None where one is two."""
        known: dict[str, int] = {}
        for axes, shape in zip(self.axes, shapes, strict=True):
            for axis, size in zip(axes, shape, strict=True):
                if isinstance(axis, str) and known.setdefault(axis, size) != size:
                    return None
        return tuple(known[name] for name in self.names)

    def shapes(self, lengths: AxisLengths) -> tuple[Shape, ...]:
        """The shapes of inputs of these lengths."""
        known = dict(zip(self.names, lengths, strict=True))
        return tuple(tuple(known[axis] if isinstance(axis, str) else axis for axis in axes) for axes in self.axes)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """A plan whose memory has no place: its calls, their descriptors' words one after another, and the sizes of buffers."""

    state: Lowering
    followed: Followed
    kinds: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    words: Words
    sizes: Words
    row_strides: Words
    shapes: Words
    """Of outputs, their sizes one after another."""


def _descriptors(state: Lowering) -> list[Structure]:
    return [call.fill() for call in state.calls]


def _joined(descriptors: Sequence[Structure]) -> Words:
    return np.frombuffer(b"".join(bytes(descriptor) for descriptor in descriptors), np.int64).copy()


def _countable(structure: type[Structure]) -> list[bool]:
    """Per word of a descriptor: whether it is a whole number, and no address or fraction."""
    found: list[bool] = []
    for _, kind, *_ in structure._fields_:
        if issubclass(kind, Structure):
            found += _countable(kind)
        else:
            whole = kind is c_int64 or getattr(kind, "_type_", None) is c_int64
            found += [whole] * (ctypes.sizeof(kind) // ctypes.sizeof(c_double))
    return found


def _sample(graph: Graph, shapes: Mapping[str, Shape], batch: int | None, isa: InstructionSet, tables: SharedTables) -> _Sample:
    followed = Followed(elementwise=frozenset(ELEMENTWISE))
    network = fuse(translate(graph, shapes, batch, followed), one_length=False)
    state = lower(network, isa, pool=tables, shared=tables)
    used = dict.fromkeys(buffer for call in state.calls for buffer in (*call.use.reads, *call.use.writes) if not buffer.space)
    buffers = tuple(used)
    descriptors = _descriptors(state)
    for call, descriptor in zip(state.calls, descriptors, strict=True):
        check_call(call.kind, descriptor, call.use)
    return _Sample(
        state=state,
        followed=followed,
        kinds=tuple(call.kind for call in state.calls),
        buffers=buffers,
        words=_joined(descriptors),
        sizes=np.array([buffer.layout.size for buffer in buffers], np.int64),
        row_strides=np.array([buffer.layout.row_stride for buffer in buffers], np.int64),
        shapes=np.array([size for name in network.outputs for size in network.shapes[name]], np.int64),
    )


def _moving(sample: _Sample) -> Words:
    """Per word, the number of the buffer whose start is in it; -1 = none."""
    for number, buffer in enumerate(sample.buffers, 1):
        buffer.start = number * _APART
    moved = (_joined(_descriptors(sample.state)) - sample.words) // _APART - 1
    for buffer in sample.buffers:
        buffer.start = 0
    return moved


class GrowingPlan:
    """The plans of a model for all lengths of some of its axes.

    Args:
        graph: the model, its constants folded.
        lengths: that it leaves open.
        present: per length, whether it is more than 0; those that are not are 0 in every plan.
        batch: the size that the model is fixed to; None = any.
        isa: instruction set whose kernels run.
        tables: memory for tables.

    Raises:
        ModelError, UnsupportedError: the model needs a plan for each length; `LengthError`: and this is why.
    """

    def __init__(
        self,
        graph: Graph,
        lengths: OpenLengths,
        present: Sequence[bool],
        batch: int | None,
        isa: InstructionSet,
        tables: SharedTables,
    ) -> None:
        if not 0 < sum(present) <= MOST_LENGTHS:
            raise LengthError(f"{sum(present)} lengths; up to {MOST_LENGTHS} are handled")
        self._present, self._opset = tuple(present), graph.opset
        self._folded: dict[bytes, Array] = {}
        self._lock = threading.Lock()
        self._tables = tables
        names = [value.name for value in graph.inputs]
        points = sample_points(sum(present))
        samples = [
            _sample(graph, dict(zip(names, lengths.shapes(self._whole(point)), strict=True)), batch, isa, tables)
            for point in points
        ]
        first = samples[0]
        if any(each.kinds != first.kinds or len(each.sizes) != len(first.sizes) for each in samples):
            raise LengthError("other lengths need other kernels")
        if any(each.followed.others != first.followed.others for each in samples):
            raise LengthError("an operator that does not say what becomes of lengths")
        self.records: tuple[LayerRecord, ...] = tuple(first.state.records)
        self._kinds = first.kinds
        self._structures = [OPERATIONS[kind][1] for kind in first.kinds]
        words = fit(points, np.array([each.words for each in samples]))
        countable = np.array([whole for structure in self._structures for whole in _countable(structure)])
        if words[1:, ~countable].any():
            raise LengthError("a table or a fraction that depends on lengths")
        self._base = words[0]
        self._changing = np.flatnonzero(words[1:].any(axis=0))
        self._slopes = words[:, self._changing]
        moving = _moving(first)
        self._placed = np.flatnonzero(moving >= 0)
        self._buffer_of = moving[self._placed]
        self._sizes = fit(points, np.array([each.sizes for each in samples]))
        self._row_strides = fit(points, np.array([each.row_strides for each in samples]))
        self._shapes = fit(points, np.array([each.shapes for each in samples]))
        self._ranks = [len(first.state.network.shapes[name]) for name in first.state.network.outputs]
        number = {buffer: place for place, buffer in enumerate(first.buffers)}
        self._uses = [
            tuple(tuple(number[buffer] for buffer in side if not buffer.space) for side in (call.use.reads, call.use.writes))
            for call in first.state.calls
        ]
        self._constants = [(step.source, step.value.reshape(-1)) for step in first.state.constants]
        self._constant_sizes = fit(
            points, np.array([[step.value.size for step in each.state.constants] for each in samples], np.int64)
        )
        wanted = {source for source, _ in self._constants if source is not None}
        self._recipe = _recipe(first.followed, wanted)
        self._fixed = {name: graph.constants[name] for node in self._recipe for name in node.inputs if name in graph.constants}
        read = {name for node in self._recipe for name in node.inputs} | wanted
        self._shape_of = {
            name: (fit(points, np.array([each.followed.sizes[name].reshape(-1) for each in samples])), value.shape)
            for name, value in first.followed.sizes.items()
            if name in read
        }

    def _whole(self, present: AxisLengths) -> AxisLengths:
        """All lengths, of those that are more than 0."""
        given = iter(present)
        return tuple(next(given) if there else 0 for there in self._present)

    def instance(self) -> GrownPlan:
        """A plan that can be set to any lengths, one after another."""
        return GrownPlan(self)

    def placed(self, powers: Words, least: Words) -> tuple[int, Words, Words]:
        """Memory for lengths and less: the arena in elements, the room of each buffer, and all words as far as they are fixed.

        Args:
            powers: `monomials` of the lengths, (monomials,).
            least: elements that each buffer needs in any case, (buffers,).
        """
        room = np.maximum(powers @ self._sizes, least)
        strides = np.minimum(powers @ self._row_strides, room)
        buffers = [
            Buffer(layout=Layout(channels=1, height=-(-int(size) // max(1, int(stride))), width=int(stride), pitch=int(stride)))
            for size, stride in zip(room, strides, strict=True)
        ]
        arena = arena_for(
            [
                Use(reads=tuple(buffers[i] for i in reads), writes=tuple(buffers[i] for i in writes))
                for reads, writes in self._uses
            ]
        )
        words = self._base.copy()
        words[self._placed] += np.array([buffer.start for buffer in buffers], np.int64)[self._buffer_of]
        return arena, room, words

    def constants(self, powers: Words) -> Array:
        """The tensors that every image shares, side by side as float32 (elements,); those of the last lengths are kept.

        ``powers`` are the `monomials` of the lengths, (monomials,).

        Raises:
            UnsupportedError: one has another size than its readers expect.
        """
        sizes = {name: powers @ numbers for name, (numbers, _) in self._shape_of.items()}
        key = b"".join(numbers.tobytes() for numbers in sizes.values())
        with self._lock:
            if key not in self._folded:
                if len(self._folded) >= _FOLDED_KEPT:
                    del self._folded[next(iter(self._folded))]
                self._folded[key] = self._fold(sizes, powers @ self._constant_sizes)
            return self._folded[key]

    def _fold(self, sizes: Mapping[str, Words], expected: Words) -> Array:
        known: dict[str, Array] = {name: sizes[name].reshape(shape) for name, (_, shape) in self._shape_of.items()} | self._fixed
        for node in self._recipe:
            outputs = evaluate(node, [known[name] if name else None for name in node.inputs], self._opset)
            known.update(zip(node.outputs, outputs, strict=False))
        parts = [value if source is None else known[source].reshape(-1) for source, value in self._constants]
        if [part.size for part in parts] != expected.tolist():  # the end of a table of positions
            raise UnsupportedError(
                "the model's constants do not reach so far; give it shorter inputs, or use the onnxruntime backend"
            )
        return np.concatenate(parts).astype(np.float32) if parts else np.empty(0, np.float32)


def _recipe(followed: Followed, wanted: set[str]) -> list[Node]:
    """The nodes that fold the wanted constants, in their order."""
    needed, found = set(wanted), dict.fromkeys(map(id, followed.recipes.values()))
    by_id = {id(node): node for node in followed.recipes.values()}
    chosen: list[Node] = []
    for key in reversed(found):
        node = by_id[key]
        if not needed.isdisjoint(node.outputs):
            chosen.append(node)
            needed.update(name for name in node.inputs if name)
    return chosen[::-1]


class GrownPlan:
    """A program in memory of its own, whose numbers are set to lengths; what it gave before is then no longer valid."""

    def __init__(self, growing: GrowingPlan) -> None:
        self._growing = growing
        self._room: Words = np.zeros(growing._sizes.shape[1], np.int64)
        self._reach: AxisLengths = (0,) * sum(growing._present)
        self._arena = 0
        self._words = growing._base.copy()
        self._starts: Words = np.zeros(len(growing._changing), np.int64)
        self._constants: Array = np.empty(0, np.float32)
        self._ops = (Op * max(1, len(growing._kinds)))()
        address = int(self._words.ctypes.data)
        for op, kind, structure in zip(self._ops, growing._kinds, growing._structures, strict=False):
            op.kind, op.descriptor = OPERATIONS[kind][0], address
            address += ctypes.sizeof(structure)

    def at(self, lengths: AxisLengths) -> Plan:
        """The plan for lengths, those that are 0 among them.

        Raises:
            UnsupportedError: too much memory.
        """
        growing = self._growing
        present = tuple(length for length, there in zip(lengths, growing._present, strict=True) if there)
        powers = monomials(present)
        sizes = powers @ growing._sizes
        if any(length > reach for length, reach in zip(present, self._reach, strict=True)) or (sizes > self._room).any():
            if sizes.max(initial=0) > MAX_ELEMENTS:
                raise UnsupportedError(f"a tensor of {sizes.max()} elements per image; at most {MAX_ELEMENTS} are handled")
            self._reach = tuple(
                max(reach, _LEAST_ROOM, 1 << (length - 1).bit_length())
                for length, reach in zip(present, self._reach, strict=True)
            )
            self._arena, self._room, words = growing.placed(monomials(self._reach), sizes)
            self._words[:] = words
            self._starts = self._words[growing._changing] - growing._base[growing._changing]
        self._words[growing._changing] = powers @ growing._slopes + self._starts
        self._constants = growing.constants(powers)
        shapes = iter((powers @ growing._shapes).tolist())
        return Plan(
            ops=self._ops,
            op_count=len(growing._kinds),
            arena_elements=self._arena,
            constants=int(self._constants.ctypes.data) if self._constants.size else 0,
            table_bytes=growing._tables.nbytes + self._words.nbytes,
            output_shapes=tuple(tuple(itertools.islice(shapes, rank)) for rank in growing._ranks),
            records=growing.records,
            blocks=(self._words, self._constants, *growing._tables.blocks),
            sizes=growing._tables.sizes,
        )
