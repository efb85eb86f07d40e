"""Few numbers in place of many: a codebook of a weight's values, and the scale of a grid of integers."""

import numpy as np

from tdcompress.onnxfile.tensors import Array

_SCALE_BITS = 16
"""Bits of a scale's significand: times an integer of 7 bits it fits float32's 24, so that every product is exact."""
_ROUNDS = 1000  # of Lloyd's iteration; it ends where no mean moves, in practice after tens


def codebook(values: Array, entries: int) -> Array:
    """At most `entries` numbers near the values: k-means in one dimension, by Lloyd's iteration (1982) in float64.

    It starts from evenly spaced quantiles of the distinct values, so the same values give the same codebook. It ends in a local
    minimum of the squared error, not always in the best.

    Args:
        values: float32, (N,), finite, N >= 1.
        entries: at least 1.

    Returns:
        Float32, increasing, distinct; the distinct values themselves where these are no more than `entries`.
    """
    distinct = np.unique(values)
    if distinct.size <= entries:
        return distinct
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    means = distinct[(np.arange(entries) * 2 + 1) * distinct.size // (2 * entries)].astype(np.float64)
    for _ in range(_ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(ordered, (means[1:] + means[:-1]) / 2), [ordered.size]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), means)
        if np.array_equal(moved, means):
            break
        means = moved
    return np.unique(means.astype(np.float32))


def nearest_level(values: Array, levels: Array) -> Array:
    """Index of the level next to each value; halfway between two, the lower one.

    Args:
        values: of any shape.
        levels: increasing, (L,).

    Returns:
        int64, of the shape of ``values``, 0 to L - 1.
    """
    middles = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    return np.searchsorted(middles, values)


def grid_scale(values: Array, top: int) -> np.float32:
    """What 1 stands for where the largest |value| is to be about `top`; the scale of rounded values is found again.

    Args:
        values: float32, finite, of any shape.
        top: largest integer, at most 127.

    Returns:
        A float32 of few bits, see `_SCALE_BITS`; 1 where all values are 0.
    """
    fraction, exponent = np.frexp(float(np.abs(values).max(initial=0.0)) / top)
    return np.float32(np.ldexp(np.rint(fraction * 2**_SCALE_BITS), exponent - _SCALE_BITS)) or np.float32(1)
