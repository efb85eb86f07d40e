"""Few numbers in place of many: a codebook of a weight's values, and the scale of a grid of integers."""

import numpy as np

from tdcompress.onnxfile.kmeans import best_means
from tdcompress.onnxfile.tensors import Array

_SCALE_BITS = 16
"""Bits of a scale's significand: times an integer of 7 bits it fits float32's 24, so that every product is exact."""


def codebook(values: Array, entries: int) -> Array:
    """At most `entries` numbers near the values: the best of k-means in one dimension, see `kmeans.best_means`.

    Args:
        values: float32, (N,), finite, N >= 1.
        entries: at least 1.

    Returns:
        Float32, increasing, distinct; the distinct values themselves where these are no more than `entries`.
    """
    distinct = np.unique(values)
    return distinct if distinct.size <= entries else np.unique(best_means(values, entries).astype(np.float32))


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
