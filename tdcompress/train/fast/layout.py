"""One vector for all parameters: prunable rows first, then what else is decayed, then the rest.

Shape suffixes: P = all parameters, N = the prunable ones, R = rows (filters) of all prunable matrices.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One parameter's place in the vector.

    A convolution's weight lies there as (O, *kernel, I), the order that channels_last convolutions read. The logical order of a
    filter's entries, which breaks ties, stays (I, *kernel).

    Attributes:
        name: as in ``model.named_parameters()``.
        shape: of the parameter.
        start: index of its first entry.
    """

    name: str
    shape: torch.Size
    start: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape.numel()

    @property
    def stop(self) -> int:
        """Index behind its last entry."""
        return self.start + self.size

    @property
    def rows(self) -> int:
        """Filters of a matrix."""
        return self.shape[0]

    @property
    def fan_in(self) -> int:
        """Entries of a filter."""
        return self.shape[1:].numel()

    @property
    def kernel(self) -> int:
        """Entries of a filter that read one input channel: height x width of a convolution's kernel."""
        return math.prod(self.shape[2:])

    def shaped(self, part: Tensor) -> Tensor:
        """The parameter, of its own shape, as a view of its part of a vector: (its number of entries,)."""
        if len(self.shape) < 3:
            return part.view(self.shape)
        return part.view(self.shape[0], *self.shape[2:], self.shape[1]).movedim(-1, 1)

    def flattened(self, value: Tensor) -> Tensor:
        """A tensor of the parameter's shape as its part of a vector."""
        return (value.movedim(1, -1) if len(self.shape) > 2 else value).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Neighbouring rows of the vector with equal fan-in and kernel: all of them are ranked in one call.

    Attributes:
        start: index of the first entry.
        rows: number of filters.
        fan_in: entries of each.
        kernel: see `Piece`.
    """

    start: int
    rows: int
    fan_in: int
    kernel: int

    def logical(self, vector: Tensor) -> Tensor:
        """These rows of a vector as (rows, fan_in), each in its filter's logical order."""
        memory = vector[self.start : self.start + self.rows * self.fan_in]
        return memory.view(self.rows, self.kernel, -1).transpose(1, 2).reshape(self.rows, self.fan_in)

    def memory(self, rows_RF: Tensor) -> Tensor:
        """The inverse of ``logical``: (rows, fan_in) -> the part of the vector."""
        return rows_RF.view(self.rows, -1, self.kernel).transpose(1, 2).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class VectorLayout:
    """Where every parameter lies.

    Attributes:
        pieces: in the vector's order.
        prunable: names of the prunable matrices, in the order in which the network has them (which breaks ties between layers).
        decayed: entries of the prefix that L2 and weight decay touch.
    """

    pieces: tuple[Piece, ...]
    prunable: tuple[str, ...]
    decayed: int

    @staticmethod
    def of(shapes: Mapping[str, torch.Size], prunable: Sequence[str], decayed: Sequence[str]) -> "VectorLayout":
        """Lay parameters out.

        Args:
            shapes: of all trained parameters.
            prunable: the matrices, whose rows are filters (axis 0).
            decayed: names of all kernels and biases, the prunable among them.
        """
        matrices = sorted(prunable, key=lambda name: (shapes[name][1:].numel(), math.prod(shapes[name][2:])))
        others = [name for name in decayed if name not in set(prunable)]
        rest = [name for name in shapes if name not in set(decayed)]
        pieces, start = [], 0
        for name in (*matrices, *others, *rest):
            pieces.append(Piece(name=name, shape=shapes[name], start=start))
            start = pieces[-1].stop
        prefix = sum(shapes[name].numel() for name in decayed)
        return VectorLayout(pieces=tuple(pieces), prunable=tuple(prunable), decayed=prefix)

    def __post_init__(self) -> None:
        # now: a compiler that follows ``views`` cannot enter a cached property that was not computed yet
        _ = self.size, self.matrices, self.prunable_size

    @cached_property
    def size(self) -> int:
        """Entries of the vector."""
        return sum(piece.size for piece in self.pieces)

    @cached_property
    def matrices(self) -> tuple[Piece, ...]:
        """The prunable pieces, in the vector's order; they are its prefix."""
        return self.pieces[: len(self.prunable)]

    @cached_property
    def prunable_size(self) -> int:
        """Entries of the prunable prefix."""
        return sum(piece.size for piece in self.matrices)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The prunable rows by fan-in and kernel."""
        runs: list[Run] = []
        for piece in self.matrices:
            last = runs[-1] if runs else None
            if last is not None and (last.fan_in, last.kernel) == (piece.fan_in, piece.kernel):
                runs[-1] = replace(last, rows=last.rows + piece.rows)
            else:
                runs.append(Run(start=piece.start, rows=piece.rows, fan_in=piece.fan_in, kernel=piece.kernel))
        return tuple(runs)

    @cached_property
    def first_of_runs(self) -> tuple[str, ...]:
        """A matrix of each run, by name."""
        starts = {piece.start: piece.name for piece in self.matrices}
        return tuple(starts[run.start] for run in self.runs)

    def views(self, vector_P: Tensor, matrices: torch.dtype | None = None) -> dict[str, Tensor]:
        """The parameters by name, as views; made by ``split``, whose backward is one ``cat``.

        Args:
            vector_P: all parameters, (P,).
            matrices: the prunable ones are converted to this first, all in one call.
        """
        prunable_N, rest = torch.split(vector_P, [self.prunable_size, self.size - self.prunable_size])
        if matrices is not None:
            prunable_N = prunable_N.to(matrices)
        others = self.pieces[len(self.prunable) :]
        parts = (
            *zip(self.matrices, torch.split(prunable_N, [piece.size for piece in self.matrices]), strict=True),
            *zip(others, torch.split(rest, [piece.size for piece in others]), strict=True),
        )
        return {piece.name: piece.shaped(part) for piece, part in parts}

    def gather(self, values: Mapping[str, Tensor]) -> Tensor:
        """A new vector from tensors of the parameters' shapes, one for each piece."""
        return torch.cat([piece.flattened(values[piece.name]) for piece in self.pieces])
