"""Polynomials of degree 2 in the open lengths of a model, with whole coefficients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tdcompress.engine.translate.follow import LengthError

Words = NDArray[np.int64]
AxisLengths = tuple[int, ...]

_SAMPLES = ((17, 30, 46), (23, 37, 60), (26, 43, 51))
"""Of each length in turn: what is planned for. No two are alike, so that no two axes look alike."""
_CHECKED = (35, 54, 64)


def monomials(lengths: AxisLengths) -> Words:
    """1, each length, and each product of two."""
    pairs = itertools.combinations_with_replacement(lengths, 2)
    return np.array([1, *lengths, *(a * b for a, b in pairs)], np.int64)


def fit(points: Sequence[AxisLengths], values: Words) -> Words:
    """Polynomials of degree 2 with whole coefficients, (monomials, numbers), through values (points, numbers).

    Raises:
        LengthError: there are none.
    """
    matrix = np.array([monomials(point) for point in points])
    solved = np.linalg.lstsq(matrix.astype(np.float64), (values - values[0]).astype(np.float64), rcond=None)[0]
    found: Words = np.rint(solved).astype(np.int64)
    found[0] += values[0]
    if not np.array_equal(matrix @ found, values):
        raise LengthError("sizes that are no sums of products of lengths")
    return found


def sample_points(count: int) -> list[AxisLengths]:
    """Lengths that a polynomial of degree 2 is known from, and one more."""
    places = [place for place in itertools.product(range(3), repeat=count) if sum(place) <= 2]
    return [*(tuple(_SAMPLES[i][at] for i, at in enumerate(place)) for place in places), _CHECKED[:count]]
