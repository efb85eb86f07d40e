"""Readers and constraints: who needs which channels, and which channels shapes force to stay."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tdcompress.shrinking.cells import Cells, Ids
from tdcompress.shrinking.channels import EVEN, LAST, READ, SHAPE, ChannelGraph, Flags, Liveness, Matrix, Needs


@dataclass(frozen=True, kw_only=True)
class MatrixReader:
    """A layer needs an input where a live output has a weight for it, unless the input is a constant that can leave.

    Attributes:
        layer: whose weight it is, for messages.
        module: in whose forward code the weight is applied, by the name that it runs under.
        matrix: the weight.
        bias: parameter name of the layer's bias; None where it has none.
        vector: its inputs, (groups, inputs per group): known constants.
        used: which weights are not zero (over the kernel), (groups, outputs, inputs).
        no_fold: why a constant other than 0 cannot move into the bias; "" where it can, exactly.
    """

    layer: str
    module: str
    matrix: Matrix
    bias: str | None
    vector: Cells
    used: Flags
    no_fold: str
    tier: ClassVar[int] = READ

    @property
    def leaves(self) -> Flags:
        """Inputs whose value can leave: the constant 0, or any constant where folding is exact."""
        zero = self.vector["value"] == 0
        return np.asarray(self.vector["known"] & (zero if self.no_fold else True))

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        open_ = ~now.of(self.matrix.inputs) & ~self.leaves
        if not open_.any():
            return
        live_outputs = now.of(self.matrix.outputs)
        if self.matrix.groups == 1:
            needed = np.zeros_like(open_)
            columns = np.flatnonzero(open_[0])
            needed[0, columns] = self.used[0][:, columns][live_outputs[0]].any(0)
        else:
            needed = open_ & (self.used & live_outputs[:, :, None]).any(1)
        known = needed & self.vector["known"]
        yield self.matrix.inputs[needed & ~known], f"{self.layer} reads it"
        yield self.matrix.inputs[known], f"its constant cannot be folded into {self.layer}: {self.no_fold}"


def matrix_readers(graph: ChannelGraph) -> list[MatrixReader]:
    """All uses of weights, in the order of the program."""
    return [demand for demand in graph.demands if isinstance(demand, MatrixReader)]


@dataclass(frozen=True, kw_only=True)
class AtLeastOne:
    """A layer of width 0 does not exist: the last unit stays. ids: the layer's channels, of any shape."""

    ids: Ids
    layer: str
    tier: ClassVar[int] = LAST

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        if self.ids.size and not now.of(self.ids).any():
            yield self.ids.ravel()[-1:], f"{self.layer} would be left without any channel"


@dataclass(frozen=True, kw_only=True)
class WholeSlices:
    """A tensor whose axes are all told apart narrows only by whole slices: channels go in slices, or stay.

    Attributes:
        ids: channels, of the tensor's shape; an axis of length 1 does not tell its indices apart.
        fixed_axes: axes of which no slice may go, because the program indexes them.
        layer: where, for messages.
    """

    ids: Ids
    layer: str
    fixed_axes: tuple[int, ...] = ()
    tier: ClassVar[int] = SHAPE

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        gone = ~now.of(self.ids)
        if not gone.any():
            return
        covered = np.zeros_like(gone)
        for axis, length in enumerate(gone.shape):
            others = tuple(a for a in range(gone.ndim) if a != axis)
            if length > 1 and axis not in self.fixed_axes:
                covered |= gone.all(others, keepdims=True)
        yield self.ids[gone & ~covered], f"the view in {self.layer} narrows only by whole slices"
        for axis in self.fixed_axes:
            others = tuple(a for a in range(gone.ndim) if a != axis)
            empty = gone.all(others)
            if empty.any():
                last = np.moveaxis(self.ids, axis, 0).reshape(self.ids.shape[axis], -1)[:, -1]
                yield last[empty], f"{self.layer} counts on this index"


@dataclass(frozen=True, kw_only=True)
class EqualCounts:
    """Rows that must stay equally long: the parts of a chunk, in each head that stays.

    rows: (heads, parts, channels per part); what tells no heads apart has one.
    """

    rows: Ids
    layer: str
    tier: ClassVar[int] = EVEN

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        live = now.of(self.rows)
        heads = live.any((1, 2))
        spare = _uneven(np.asarray(~live.any(0)))
        if spare.any():
            stay = self.rows[heads] if heads.any() else self.rows[-1:]
            yield stay[:, spare], f"the parts in {self.layer} must stay equally wide"


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A grouped convolution narrows by whole groups, and by equal numbers in each group that stays."""

    matrix: Matrix
    layer: str
    tier: ClassVar[int] = EVEN

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        gone_in, gone_out = ~now.of(self.matrix.inputs), ~now.of(self.matrix.outputs)
        stays = ~(gone_in.all(1) & gone_out.all(1))
        if not stays.any():
            return  # AtLeastOne keeps a channel first; then this is asked again
        reason = f"the groups of {self.layer} must stay equally wide"
        for gone, ids in ((gone_in, self.matrix.inputs), (gone_out, self.matrix.outputs)):
            spare = _uneven(gone[stays])
            if spare.any():
                yield ids[stays][spare], reason


@dataclass(frozen=True, kw_only=True)
class AllOrNone:
    """Rows that normalise together: each row goes as a whole, or stays as a whole. rows: (groups, channels per group)."""

    rows: Ids
    layer: str
    tier: ClassVar[int] = READ

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        live = now.of(self.rows)
        partly = live.any(1) & ~live.all(1)
        if partly.any():
            yield self.rows[partly], f"{self.layer} normalises it with living channels"


@dataclass(frozen=True, kw_only=True)
class Product:
    """Row by row (head by head), a live result needs what is multiplied for it; and a row goes on both sides or on neither.

    Attributes:
        left: (rows, channels multiplied).
        used: (rows, channels multiplied): whether the product is not always 0.
        right: (rows, channels of the result).
        layer: where, for messages.
    """

    left: Ids
    used: Flags
    right: Ids
    layer: str
    tier: ClassVar[int] = READ

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        left, right = now.of(self.left), now.of(self.right)
        wanted = np.asarray(right.any(1))
        yield self.left[wanted[:, None] & self.used & ~left], f"{self.layer} multiplies it"
        yield self.left[wanted & ~(left | self.used).any(1), -1], f"{self.layer} needs a channel in each head"
        yield self.right[left.any(1) & ~wanted, -1], f"{self.layer} needs a channel in each head"


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A table that is the same for each head (angles, a scale) keeps an entry while any head does, and heads keep what it has.

    Attributes:
        heads: (heads, entries).
        table: (entries,).
        layer: where, for messages.
    """

    heads: Ids
    table: Ids
    layer: str
    tier: ClassVar[int] = READ

    def needs(self, now: Liveness) -> Needs:
        """See ``Demand``."""
        heads, table = now.of(self.heads), now.of(self.table)
        yield self.table[heads.any(0) & ~table], f"{self.layer} multiplies with it"
        living = int(heads.any(1).argmax())
        yield self.heads[living, table & ~heads.any(0)], f"{self.layer} multiplies it with a table that is as wide"


def _uneven(gone: Flags) -> Flags:
    """Per row, the removed elements beyond the number that every row loses; one of each row stays."""
    count = min(int(gone.sum(1).min()), gone.shape[1] - 1)
    return np.asarray(gone & (np.cumsum(gone, axis=1) > count))
