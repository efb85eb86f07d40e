"""k-means in one dimension: the few numbers from which many have the least squared error.

Of sorted numbers every cluster is a run. So the best clusters are found by dynamic programming over where runs begin: H. Wang and
M. Song, "Ckmeans.1d.dp: optimal k-means clustering in one dimension by dynamic programming", The R Journal 3/2 (2011).
The best beginning of the last run never moves back as the numbers become more, which halves the search again and again.

We depart from it where numbers are very many: runs may then begin at some places only, and S. Lloyd's iteration ("Least squares
quantization in PCM", 1982) goes on from there. Nothing is random: the same numbers always give the same means.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from tdcompress.onnxfile.tensors import Array

MOST_PLACES = 1 << 13
"""Distinct numbers up to which the best clusters are found; of more, about as many places where a run may begin."""
_ROUNDS = 1000  # of Lloyd's iteration; it ends where no run changes, in practice after a few


def best_means(values: Array, count: int, *, places: int = MOST_PLACES) -> Array:
    """The means of at most `count` clusters of the values.

    With at most `places` distinct values no others have a smaller squared error. With more, the root mean square error is at most
    that of the best plus twice that of `begins(...)`: of the values from the means of what lies between two places.

    Args:
        values: float32, (N,), finite, N >= 1.
        count: at least 1.
        places: at least 2; fewer are quicker.

    Returns:
        float64, increasing.
    """
    distinct, counts = np.unique(values, return_counts=True)
    sums = _Sums.of(distinct.astype(np.float64), counts)
    candidates = begins(distinct, places)
    edges = candidates[_best_edges(sums.at(candidates), count)]
    for _ in range(_ROUNDS):
        means = sums.means(edges)
        moved = np.unique([0, *np.searchsorted(distinct, (means[1:] + means[:-1]) / 2), distinct.size])
        if np.array_equal(moved, edges):
            break
        edges = moved
    return sums.means(edges)


def begins(distinct: Array, places: int) -> Array:
    """Where a run may begin: everywhere, or at about `places` places, half of them evenly among the values, half along the axis.

    Places along the axis are for values far out, which are few; those among the values for where they are dense.

    Args:
        distinct: increasing, (D,).
        places: at least 2.

    Returns:
        Indices from 0 to D, int64, increasing, both ends included.
    """
    if distinct.size <= places:
        return np.arange(distinct.size + 1)
    half = places // 2
    among = np.linspace(0, distinct.size, half + 1).astype(np.int64)
    along = np.searchsorted(distinct, np.linspace(float(distinct[0]), float(distinct[-1]), half + 1))
    return np.unique(np.concatenate([among, along]))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """Running sums over sorted numbers, each (D + 1,): a run's sum is a difference.

    They run outward from 0. So sums over small numbers never hold large ones, which would swallow them.

    Attributes:
        counts: of numbers.
        sums: of numbers.
        squares: of their squares.
    """

    counts: Array
    sums: Array
    squares: Array

    @classmethod
    def of(cls, distinct: Array, counts: Array) -> Self:
        """Of increasing numbers, float64 (D,), each `counts` times."""
        middle = int(np.searchsorted(distinct, 0.0))

        def outward(amounts: Array) -> Array:
            return np.concatenate([-np.cumsum(amounts[:middle][::-1])[::-1], [0.0], np.cumsum(amounts[middle:])])

        return cls(counts=outward(counts), sums=outward(counts * distinct), squares=outward(counts * distinct**2))

    def at(self, places: Array) -> "_Sums":
        """Those at some places alone."""
        return _Sums(counts=self.counts[places], sums=self.sums[places], squares=self.squares[places])

    def means(self, edges: Array) -> Array:
        """Of runs that begin and end at these places; none is empty."""
        means: Array = np.diff(self.sums[edges]) / np.diff(self.counts[edges])
        return means

    def errors(self, first: Array, end: Array) -> Array:
        """Squared error of the numbers of each run from their mean; 0 of an empty one."""
        count, total = self.counts[end] - self.counts[first], self.sums[end] - self.sums[first]
        errors: Array = np.maximum(self.squares[end] - self.squares[first] - total**2 / np.maximum(count, 1), 0.0)
        return errors


def _best_edges(sums: _Sums, runs: int) -> Array:
    """Beginnings of the best runs, at most `runs`, and the end of the last one."""
    size = sums.counts.size - 1
    least = sums.errors(np.zeros(size + 1, np.int64), np.arange(size + 1))
    last_begins = []
    for _ in range(runs - 1):
        least, begin = _with_one_more(sums, least)
        last_begins.append(begin)
    edges = [size]
    for begin in reversed(last_begins):
        edges.append(int(begin[edges[-1]]))
    return np.unique([0, *edges])


def _with_one_more(sums: _Sums, least: Array) -> tuple[Array, Array]:
    """(least error, beginning of the last run) of the numbers before each place, with one run more than `least` is of.

    The beginnings at every second place lie between those at its neighbours, those at every fourth between these, and so on: each
    round looks at about as many beginnings as there are places.

    Args:
        sums: over P places.
        least: error of the numbers before each place, (P,).
    """
    size = least.size - 1
    stride = 1 << size.bit_length()
    begin = np.full(stride + 1, size)
    begin[0] = 0
    found = least.copy()
    while stride > 1:
        half = stride // 2
        ends = np.arange(half, size + 1, stride)
        low, high = begin[ends - half], np.minimum(begin[ends + half], ends)
        lengths = high - low + 1
        offsets = np.cumsum(lengths) - lengths
        first = np.arange(lengths.sum()) - np.repeat(offsets - low, lengths)
        errors = least[first] + sums.errors(first, np.repeat(ends, lengths))
        found[ends] = np.minimum.reduceat(errors, offsets)
        best = np.flatnonzero(errors == np.repeat(found[ends], lengths))
        begin[ends] = first[best[np.searchsorted(best, offsets)]]
        stride = half
    return found, begin
