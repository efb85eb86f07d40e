"""The channel graph: which channels are one, who reads them, what shapes allow, and what can never go.

Rules fill it operator by operator; then ``roots`` numbers the classes of unified channels, and decide.py asks each reader
and each constraint which classes must live. Both speak only of liveness, which only grows, so that asking in any order ends well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tdcompress.errors import UnsupportedError
from tdcompress.shrinking.cells import CELL, MIXED, NO_CHANNEL, Cells, Ids, Signal, plain

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter, buffer or literal tensor as an operator's argument; ``name`` as in ``Program.state``."""

    name: str


def layer_name(parameter: str) -> str:
    """What a weight's layer is called: its module, or the parameter itself where it stands alone ("block.mix")."""
    module, _, name = parameter.rpartition(".")
    return module if module and name in ("weight", "in_proj_weight") else parameter


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A weight that makes channels and reads others: of a convolution, a linear layer, an embedding, or a parameter by itself.

    Attributes:
        parameter: qualified name.
        out_axis: the axis of the weight that counts outputs, 0 or 1; the other one counts inputs.
        outputs: channels made, (groups, outputs per group).
        inputs: channels read, (groups, inputs per group).
        first_unit: number of output 0 in ``cells["unit"]``; output u has number first_unit + u.
    """

    parameter: str
    out_axis: int
    outputs: Ids
    inputs: Ids
    first_unit: int

    @property
    def groups(self) -> int:
        """Number of groups of a grouped convolution; 1 else."""
        return int(self.outputs.shape[0])


@dataclass(frozen=True, kw_only=True)
class BatchNormAffine:
    """A BatchNorm's learned scale and shift, and the unit whose values each of its channels sees alone.

    units: (C,), the numbers of these units, or MIXED.
    """

    weight: str
    bias: str
    units: Ids


@dataclass(frozen=True)
class Liveness:
    """Which channels live so far.

    roots: (channels,), the class of each channel; live: (channels,), entry c says whether class c lives.
    """

    live: Flags
    roots: Ids

    def of(self, ids: Ids) -> Flags:
        """Liveness of channels, of the shape of ``ids``; an element without channel always lives."""
        return np.asarray(self.live[self.roots[np.maximum(ids, 0)]] | (ids == NO_CHANNEL))


Needs = Iterator[tuple[Ids, str]]


# Tiers of demands: READ, who uses a value; SHAPE, what follows from that in a shape; EVEN, what chooses some channels so that
# widths are equal; LAST, what only forbids width 0; ALIGN, what rounds widths up.
READ, SHAPE, EVEN, LAST, ALIGN = range(5)


class Demand(Protocol):
    """A reader of channels, or a constraint of shapes: given which channels live, which others must.

    Attributes:
        tier: a demand is asked when all of the lower tiers are satisfied, so that it chooses as late, and as few, as possible.
    """

    @property
    def tier(self) -> int:
        """READ, SHAPE, EVEN, LAST or ALIGN."""
        ...

    def needs(self, now: Liveness) -> Needs:
        """Channels that must live, each lot with the reason. More liveness never takes a need back."""
        ...


@dataclass
class ChannelGraph:
    """What the rules find out about a network.

    Attributes:
        state: the tensors of the program, by name, of any shape.
        signals: results, by node name.
        raw: tensors that are read element by element, by name.
        matrices: weights, by name.
        demands: readers and constraints, in the order of the program.
        pins: channels (n,) that can never go because something uses them, with the reason.
        holds: channels (n,) that can never go because a shape is fixed, with the reason.
        affines: BatchNorms.
        couplings: (rows, channels): those of a row have to go together for a shape to narrow. They only help to find groups.
        heads: (heads, channels), the same for the channels of attention heads; where these apply, ``blocks`` do not.
        blocks: channels of tensors that narrow only by slices, of any shape.
        literal_nodes: layout operators whose arguments the forward code may have written as numbers.
        constant_units: weight name -> bool (units,): which of them do not depend on the input, or are unread.
        frozen: parameters that must keep their shape, with the reason.
        auxiliary: weights whose outputs the network returns in training alone.
        unread: numbers (n,) of units whose values nothing uses: all that sees them is a BatchNorm with weight 0.
        lost: channels (n,) that were constant until an operator made them vary, with its name: for the report.
        sized: operators and literal tensors whose numbers follow from the input's size, so that they make no constants.
    """

    state: Mapping[str, Tensor]
    signals: dict[str, Signal | tuple[Signal, ...]] = field(default_factory=dict)
    raw: dict[str, Signal] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    demands: list[Demand] = field(default_factory=list)
    pins: list[tuple[Ids, str]] = field(default_factory=list)
    holds: list[tuple[Ids, str]] = field(default_factory=list)
    affines: list[BatchNormAffine] = field(default_factory=list)
    couplings: list[Ids] = field(default_factory=list)
    heads: list[Ids] = field(default_factory=list)
    blocks: list[Ids] = field(default_factory=list)
    literal_nodes: list[str] = field(default_factory=list)
    frozen: dict[str, str] = field(default_factory=dict)
    constant_units: dict[str, Flags] = field(default_factory=dict)
    auxiliary: set[str] = field(default_factory=set)
    unread: list[Ids] = field(default_factory=list)
    lost: list[tuple[Ids, str]] = field(default_factory=list)
    sized: frozenset[str] = frozenset()
    channels: int = 0
    units: int = 0
    _edges: list[tuple[Ids, Ids]] = field(default_factory=list)

    def new_channels(self, *shape: int) -> Ids:
        """Fresh channels."""
        count = int(np.prod(shape))
        self.channels += count
        return np.arange(self.channels - count, self.channels, dtype=np.int64).reshape(shape)

    def unify(self, left: Ids, right: Ids, reason: str) -> None:
        """Make channels one, element by element; a channel that meets an element without one is held (``reason``).

        Args:
            left: channels, of any shape; negative = none.
            right: likewise; broadcast against ``left``.
            reason: why a channel is held, in words.
        """
        left, right = np.broadcast_arrays(left, right)
        differ = left != right
        left, right = left[differ], right[differ]
        bare = (left < 0) | (right < 0)
        self.hold(np.maximum(left[bare], right[bare]), reason)
        if not bare.all():
            self._edges.append((left[~bare], right[~bare]))

    def pin(self, ids: Ids, reason: str) -> None:
        """Keep channels, of any shape, whatever happens, since something uses them."""
        _note(self.pins, ids, reason)

    def hold(self, ids: Ids, reason: str) -> None:
        """Keep channels whatever happens, though nothing may use them: a shape is fixed."""
        _note(self.holds, ids, reason)

    def signal(self, argument: Signal | Parameter) -> Signal:
        """An operand read element by element. Elements of a floating-point parameter get channels of their own."""
        if isinstance(argument, Signal):
            return argument
        name = argument.name
        if name not in self.raw:
            tensor = self.state[name].detach()
            if not tensor.is_floating_point():
                self.raw[name] = plain(tensor.shape)
            else:
                cells = np.zeros(tuple(tensor.shape), CELL)
                cells["channel"] = self.new_channels(*tensor.shape)
                cells["unit"] = MIXED
                if name not in self.sized:
                    cells["known"], cells["value"] = True, tensor.double().cpu().numpy()
                self.raw[name] = Signal(shape=tuple(tensor.shape), cells=cells)
            if name in self.matrices:
                self.frozen[name] = f"{name} is also used element by element"
        return self.raw[name]

    def of_tables(self, ids: Ids) -> bool:
        """Whether channels, of any shape, are all of parameters and buffers that are read element by element."""
        own = [signal.channel.flat for signal in self.raw.values() if signal.channel.size]
        spans = np.array([(-1, -1), *((each[0], each[-1]) for each in own if each[0] >= 0)])  # in the order of the channels
        place = np.searchsorted(spans[:, 0], ids, "right") - 1
        return bool(((ids >= 0) & (ids <= spans[np.maximum(place, 0), 1])).all())

    def matrix(self, argument: Parameter, *, out_axis: int = 0, groups: int = 1) -> Matrix:
        """A weight read as a matrix; the same weight gives the same channels each time.

        Args:
            argument: the weight.
            out_axis: its axis of outputs, 0 or 1.
            groups: of a convolution.

        Raises:
            UnsupportedError: one weight used with different group counts.
        """
        name = argument.name
        rows, columns = self.state[name].shape[:2]
        known = self.matrices.get(name)
        if known is None:
            # The axis that is indexed by all groups is axis 0; axis 1 counts within a group.
            sides = (self.new_channels(groups, rows // groups), self.new_channels(groups, columns))
            outputs, inputs = sides[out_axis], sides[1 - out_axis]
            known = Matrix(parameter=name, out_axis=out_axis, outputs=outputs, inputs=inputs, first_unit=self.units)
            self.units += outputs.size + inputs.size  # inputs are units of a layer that reads the weight the other way round
            self.matrices[name] = known
            if name in self.raw:
                self.frozen[name] = f"{name} is also used element by element"
        if known.groups != groups:
            raise UnsupportedError(f"{name} is used with {known.groups} and with {groups} groups")
        if known.out_axis != out_axis:  # tied: an embedding and the layer that reads it the other way round
            first_unit = known.first_unit + known.outputs.size
            return Matrix(parameter=name, out_axis=out_axis, outputs=known.inputs, inputs=known.outputs, first_unit=first_unit)
        return known

    def pin_frozen(self) -> None:
        """Keep the channels of every frozen parameter; called when all operators have been seen."""
        for name, reason in self.frozen.items():
            if name in self.raw:
                self.pin(self.raw[name].channel, reason)
            if name in self.matrices:
                self.pin(self.matrices[name].outputs, reason)
                self.pin(self.matrices[name].inputs, reason)

    def roots(self, *, coupled: bool = False) -> Ids:
        """Class of each channel: equal numbers go together.

        Args:
            coupled: also join what only goes together because of shapes (views, groups, chunks).
        """
        edges = list(self._edges)
        if coupled:
            rows = [row for lot in (*self.couplings, *self.heads, *self._slices()) for row in lot]
            edges += [(np.repeat(row[:1], row.size - 1), row[1:]) for row in rows if (row >= 0).all()]
        left = np.concatenate([edge[0].ravel() for edge in edges]) if edges else np.zeros(0, np.int64)
        right = np.concatenate([edge[1].ravel() for edge in edges]) if edges else np.zeros(0, np.int64)
        graph = coo_array((np.ones(left.size, np.int8), (left, right)), shape=(self.channels, self.channels))
        return np.asarray(connected_components(graph, directed=False)[1], np.int64)

    def _slices(self) -> Iterator[Ids]:
        """Blocks as rows: slices along the longest axis, the one that narrows (a shuffle's other axis is its group count)."""
        in_heads = np.unique(np.concatenate([lot.ravel() for lot in self.heads])) if self.heads else np.zeros(0, np.int64)
        for block in self.blocks:
            if not np.isin(block, in_heads).any():
                longest = int(np.argmax(block.shape))
                yield np.moveaxis(block, longest, 0).reshape(block.shape[longest], -1)


def _note(lots: list[tuple[Ids, str]], ids: Ids, reason: str) -> None:
    ids = np.unique(ids[ids >= 0])
    if ids.size:
        lots.append((ids, reason))


def constant(cells: Cells, value: NDArray[np.float64], known: Flags) -> Cells:
    """A copy of cells with other constants.

    Args:
        cells: of a tensor.
        value: broadcasts to them.
        known: of the shape of ``cells``, where ``value`` holds; elsewhere nothing is known.
    """
    cells = cells.copy()
    cells["known"], cells["value"] = known, np.where(known, value, 0.0)
    return cells


def zeros_alone(cells: Cells) -> Cells:
    """A copy of a tensor's cells in which no other constant than 0 is known."""
    return constant(cells, cells["value"], cells["known"] & (cells["value"] == 0))
