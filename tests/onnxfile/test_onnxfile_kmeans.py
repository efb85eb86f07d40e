"""k-means in one dimension: by hand, against all partitions, and against the start from quantiles that it replaced."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.onnxfile.kmeans import begins, best_means

FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)
SOME = st.lists(st.one_of(FLOATS, st.integers(-9, 9).map(float)), min_size=1, max_size=9)


def squared_error(values: np.ndarray, means: np.ndarray) -> float:
    """From the nearest mean of each value."""
    exact = values.astype(np.float64)
    return float((np.abs(exact[:, np.newaxis] - means).min(axis=1) ** 2).sum())


def least_error(values: list[float], count: int) -> float:
    """Of all ways to cut the sorted values into `count` runs, in exact arithmetic."""
    ordered = [Fraction(value) for value in sorted(values)]

    def error(run: list[Fraction]) -> Fraction:
        return sum((x * x for x in run), Fraction(0)) - sum(run, Fraction(0)) ** 2 / max(len(run), 1)

    cuts = itertools.combinations_with_replacement(range(len(ordered) + 1), count - 1)
    ways = ([0, *inner, len(ordered)] for inner in cuts)
    return float(min(sum(error(ordered[a:b]) for a, b in itertools.pairwise(way)) for way in ways))


def from_quantiles(values: np.ndarray, entries: int) -> np.ndarray:
    """Lloyd's iteration from evenly spaced quantiles of the distinct values: the local minimum that it ends in."""
    distinct, ordered = np.unique(values), np.sort(values).astype(np.float64)
    means = distinct[(np.arange(entries) * 2 + 1) * distinct.size // (2 * entries)].astype(np.float64)
    for _ in range(1000):
        runs = np.split(ordered, np.searchsorted(ordered, (means[1:] + means[:-1]) / 2))
        moved = np.array([run.mean() if run.size else mean for run, mean in zip(runs, means, strict=True)])
        if np.array_equal(moved, means):
            break
        means = moved
    return means


def drawn(seed: int, size: int) -> np.ndarray:
    """Float32 values of one of several shapes: with light tails, with heavy ones, in lumps, with a hole around 0."""
    random = np.random.default_rng(seed)
    normal = random.standard_normal(size)
    shapes = [
        normal,
        random.standard_t(2, size),
        np.exp(2 * normal),
        np.rint(normal) + normal / 50,
        normal + np.sign(normal),
        np.where(random.random(size) < 0.01, 1e4 * normal, normal),
    ]
    return shapes[seed % len(shapes)].astype(np.float32)


def test_by_hand() -> None:
    """Quantiles give one of the two far pairs no mean of its own, and Lloyd's iteration cannot move one there."""
    values = np.array([*range(10), 1000, 1001, 1100, 1101], np.float32)
    assert from_quantiles(values, 3).tolist() == [2, 7, 1050.5]
    assert best_means(values, 3).tolist() == [4.5, 1000.5, 1100.5]
    assert best_means(values, 1).tolist() == [4247 / 14]


def test_huge_values_swallow_no_small_ones() -> None:
    values = np.array([-1e30, 1, 2, 11, 12, 3e30], np.float32)
    assert best_means(values, 4).tolist() == [float(values[0]), 1.5, 11.5, float(values[5])]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(SOME, st.integers(1, 4))
def test_no_partition_is_better(values: list[float], count: int) -> None:
    array = np.array(values, np.float32)
    means = best_means(array, count)
    assert np.all(np.diff(means) > 0)
    assert means.size <= count
    rounding = 2.0**-45 * float((array.astype(np.float64) ** 2).sum())
    assert squared_error(array, means) == pytest.approx(least_error(values, count), rel=1e-9, abs=rounding)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(17, 3000), st.sampled_from([2, 5, 16]))
def test_never_worse_than_from_quantiles(seed: int, size: int, entries: int) -> None:
    values = drawn(seed, size)
    assert squared_error(values, best_means(values, entries)) <= (1 + 1e-9) * squared_error(
        values, from_quantiles(values, entries)
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(300, 3000), st.sampled_from([2, 5, 16]), st.sampled_from([32, 256]))
def test_few_places_cost_no_more_than_is_promised(seed: int, size: int, entries: int, places: int) -> None:
    values = drawn(seed, size)
    best, found = (np.sqrt(squared_error(values, best_means(values, entries, places=p))) for p in (size, places))
    edges = begins(np.unique(values), places)
    between = np.split(np.sort(values).astype(np.float64), np.searchsorted(np.sort(values), np.unique(values)[edges[1:-1]]))
    own = np.sqrt(sum(float(((run - run.mean()) ** 2).sum()) for run in between))
    assert best * (1 - 1e-9) <= found <= (best + 2 * own) * (1 + 1e-9)


def test_where_runs_may_begin() -> None:
    """Of ten values, those after five of them, and those around the middle of the axis."""
    distinct = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 100], np.float32)
    assert begins(distinct, 10).tolist() == list(range(11))
    assert begins(distinct, 4).tolist() == [0, 5, 9, 10]
