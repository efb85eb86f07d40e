"""The state while steps become kernel calls: where each tensor lies, and the calls so far.

A tensor has one home, in the layout that its producer writes. A reader that needs another layout gets a copy, made
once. Descriptors are filled in only after all buffers have their places.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tdcompress.engine.binding import ACTIVATIONS, DTYPES, Act, CopyOp, InstructionSet, SplitOp, Tensor
from tdcompress.engine.layout import Layout, plain_layout
from tdcompress.engine.memory import Buffer, Use
from tdcompress.engine.pool import MemoryPool, SharedTables
from tdcompress.engine.read import Array
from tdcompress.engine.steps import Activation, ConstantTensor, Network, Shape, Step


@dataclass(frozen=True, kw_only=True)
class Place:
    """A buffer, read in some layout: a view of a plain tensor has its producer's buffer and its own shape."""

    buffer: Buffer
    layout: Layout

    def tensor(self) -> Tensor:
        """The C structure; call it after buffers are placed."""
        layout = self.layout
        return Tensor(
            space=self.buffer.space,
            offset=self.buffer.start + layout.first,
            image_stride=self.buffer.layout.size if self.buffer.space and not self.buffer.constant else 0,
            dtype=DTYPES[self.buffer.dtype],
            channels=layout.channels,
            height=layout.height,
            width=layout.width,
            pitch=layout.pitch,
            segments=layout.segments,
            rows=layout.rows,
            row_stride=layout.row_stride,
            plane_stride=layout.plane_stride,
            halo_top=layout.halo_top,
            halo_bottom=layout.halo_bottom,
        )


@dataclass(frozen=True, kw_only=True)
class KernelCall:
    """One kernel call; `fill` makes the descriptor once all buffers have their places."""

    kind: str
    use: Use
    fill: Callable[[], ctypes.Structure]


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """What `explain` tells of one layer.

    layer: the ONNX node; op: conv or linear; shape of the weights; weights and zeros are counts; kernel: dense,
    sparse, rows or lanes; why: the reason.
    """

    layer: str
    op: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    kernel: str
    why: str


@dataclass(kw_only=True)
class Lowering:
    """Homes, copies, calls and the arrays that descriptors point to."""

    network: Network
    isa: InstructionSet
    wanted: Mapping[str, Sequence[Layout]]
    homes: dict[str, Place] = field(default_factory=dict)
    copies: dict[tuple[object, ...], Place] = field(default_factory=dict)
    calls: list[KernelCall] = field(default_factory=list)
    pool: MemoryPool = field(default_factory=MemoryPool)
    shared: SharedTables | None = None
    records: list[LayerRecord] = field(default_factory=list)
    constants: list[ConstantTensor] = field(default_factory=list)

    def shape(self, name: str) -> Shape:
        """Of a tensor, for one image."""
        return self.network.shapes[name]

    def pointer(self, array: Array | None) -> int | None:
        """The address of a constant array, of any shape, in the plan's own memory, which keeps a copy; None for None."""
        return None if array is None else self.pool.array(array)

    def once(self, array: Array, kind: str, make: Callable[[MemoryPool], Any]) -> Any:
        """What `make` gives of weights: made once for all plans of a model that has several.

        Args:
            array: the weights, of any shape.
            kind: what is made of them; tells results of one array apart.
            make: gets the memory for the tables.
        """
        if self.shared is None:
            return make(self.pool)
        shared = self.shared
        return shared.once(array, kind, lambda: make(shared))

    def dies_with(self, place: Place, step: Step) -> bool:
        """Whether `step`, which reads `place`, is the last to need its memory, so that it may write there what it makes."""
        if place.buffer.space != 0:
            return False
        names = {name for name, home in self.homes.items() if home.buffer is place.buffer}
        names.update(str(key[0]) for key, copy in self.copies.items() if copy.buffer is place.buffer)
        steps = self.network.steps
        later = steps[next(index for index, other in enumerate(steps) if other is step) + 1 :]
        return not names & {*self.network.outputs, *(name for other in later for name in other.inputs)}

    def call(self, kind: str, reads: Sequence[Place], writes: Sequence[Place], fill: Callable[[], ctypes.Structure]) -> None:
        """Append a call.

        Args:
            kind: of operation: a key of ``OPERATIONS``.
            reads: what it reads.
            writes: what it writes.
            fill: gives the descriptor, once addresses are known.
        """
        use = Use(reads=tuple(place.buffer for place in reads), writes=tuple(place.buffer for place in writes))
        self.calls.append(KernelCall(kind=kind, use=use, fill=fill))

    def new(self, layout: Layout) -> Place:
        """Fresh memory in the arena."""
        return Place(buffer=Buffer(layout=layout), layout=layout)

    def constant(self, step: ConstantTensor) -> None:
        """Give a tensor that is the same for every image its home, in the space behind those of inputs and outputs."""
        layout = plain_layout(self.shape(step.output))
        start = sum(earlier.value.size for earlier in self.constants)
        space = 1 + len(self.network.inputs) + len(self.network.outputs)
        self.constants.append(step)
        self.homes[step.output] = Place(buffer=Buffer(layout=layout, space=space, start=start, constant=True), layout=layout)

    def output_plain(self, name: str) -> Place:
        """The home of a tensor whose producer writes plain: the caller's array if the tensor is an output of the model."""
        layout = plain_layout(self.shape(name))
        if name in self.network.outputs:
            space = 1 + len(self.network.inputs) + self.network.outputs.index(name)
            place = Place(buffer=Buffer(layout=layout, space=space), layout=layout)
        else:
            place = self.new(layout)
        self.homes[name] = place
        return place

    def output_rows(self, name: str, like: Place | None = None) -> Place:
        """The home of a tensor written by rows in any layout: as a convolution wants it, on the grid of `like`, or plain."""
        wanted = [layout for layout in self.wanted.get(name, ()) if name not in self.network.outputs]
        if wanted:
            layout = wanted[0]
            for other in wanted[1:]:
                if other.same_grid(layout):
                    layout = layout.with_halo(other.halo_top, other.halo_bottom)
        elif like is not None and not like.layout.plain and name not in self.network.outputs:
            # The grid is `like`'s, the number of channels the tensor's own: Concat makes more of them than its first part has.
            layout = replace(like.layout, channels=self.shape(name)[0], halo_top=0, halo_bottom=0)
        else:
            return self.output_plain(name)
        self.homes[name] = self.new(layout)
        return self.homes[name]

    def rows(self, name: str) -> Place:
        """A tensor for a reader that takes any layout. Inputs that are not float32 are converted first."""
        place = self.homes[name]
        return place if place.buffer.dtype == "float32" else self.plain(name)

    def plain(self, name: str) -> Place:
        """A tensor in plain layout, as float32."""
        home = self.homes[name]
        if home.layout.plain and home.buffer.dtype == "float32":
            return home
        return self._copied((name, "plain"), home, plain_layout(self.shape(name)))

    def grid(self, name: str, wanted: Layout) -> Place:
        """A tensor in the arena on the grid of `wanted`, with at least its halos."""
        home = self.homes[name]
        if home.buffer.space == 0 and home.layout.serves(wanted):
            return home
        return self._copied((name, wanted), home, wanted)

    def _copied(self, key: tuple[object, ...], home: Place, layout: Layout) -> Place:
        if key not in self.copies:
            self.copies[key] = self.new(layout)
            self.copy(home, self.copies[key])
        return self.copies[key]

    def copy(self, source: Place, target: Place) -> None:
        """Append a copy between layouts of the same shape."""
        self.call("copy", [source], [target], lambda: CopyOp(input=source.tensor(), output=target.tensor()))

    def phases(self, name: str, strides: tuple[int, int], wanted: Layout) -> Place:
        """A tensor split into stride_y * stride_x phases per channel, so that a strided convolution reads whole rows.

        Args:
            name: of the tensor.
            strides: (y, x).
            wanted: layout that the reader asks for.
        """
        key = (name, strides, wanted)
        if key not in self.copies:
            for (other, other_strides, *rest), place in list(self.copies.items()):
                if other == name and other_strides == strides and rest and place.layout.serves(wanted):
                    return place
            home, split = self.rows(name), self.new(wanted)
            self.copies[key] = split
            self.call(
                "split",
                [home],
                [split],
                lambda: SplitOp(input=home.tensor(), output=split.tensor(), stride_y=strides[0], stride_x=strides[1]),
            )
        return self.copies[key]


def act_structure(act: Activation) -> Act:
    """The C structure of an activation."""
    return Act(kind=ACTIVATIONS.index(act.kind), a=act.a, b=act.b)
