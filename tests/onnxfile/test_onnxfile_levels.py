"""Codebooks and grids of integers: by hand, and against scipy's k-means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans

from tdcompress.onnxfile.levels import codebook, grid_scale, nearest_level


def test_a_codebook_by_hand() -> None:
    # 1 2 3 and 10 11 12 have the means 2 and 11
    assert codebook(np.array([12, 1, 10, 3, 11, 2], np.float32), 2).tolist() == [2, 11]
    # of 0 0 0 1 and 7 8 the means are 0.25 and 7.5
    assert codebook(np.array([0, 0, 0, 1, 7, 8], np.float32), 2).tolist() == [0.25, 7.5]
    assert codebook(np.array([5, -1, 5], np.float32), 16).tolist() == [-1, 5]
    assert nearest_level(np.array([-9, 0, 3, 4, 7, 99]), np.array([2.0, 4.0, 10.0])).tolist() == [0, 0, 0, 1, 1, 2]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(17, 2000), st.sampled_from([2, 16]))
def test_lloyds_iteration_leaves_a_codebook_as_it_is(seed: int, size: int, entries: int) -> None:
    """scipy's k-means started from it stays there, every value has its nearest level, and the order of values changes nothing."""
    random = np.random.default_rng(seed)
    values = (random.standard_normal(size) * 10.0 ** random.integers(-20, 20)).astype(np.float32)
    levels = codebook(values, entries)
    assert levels.dtype == np.float32
    assert levels.size == entries
    assert np.all(np.diff(levels) > 0)
    scaled = (values / np.abs(values).max()).astype(np.float64)
    start = (levels / np.abs(values).max()).astype(np.float64)
    again, _ = kmeans(scaled[:, np.newaxis], start[:, np.newaxis], thresh=0.0)
    np.testing.assert_allclose(np.sort(again[:, 0]), start, rtol=1e-3, atol=1e-3)
    distances = np.abs(values[:, np.newaxis].astype(np.float64) - levels)
    chosen = np.take_along_axis(distances, nearest_level(values, levels)[:, np.newaxis], axis=1)[:, 0]
    np.testing.assert_array_equal(chosen, distances.min(axis=1))
    np.testing.assert_array_equal(codebook(random.permutation(values), entries), levels)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.floats(2.0**-99, 2.0**99, width=32), st.sampled_from([7, 127]))
def test_a_scale_is_found_again_from_exact_products(largest: float, top: int) -> None:
    scale = grid_scale(np.array([-largest, largest / 3], np.float32), top)
    products = np.arange(-top, top + 1).astype(np.float32) * scale
    assert [float(product) for product in products] == [k * float(scale) for k in range(-top, top + 1)]  # exact in float64
    assert grid_scale(products, top) == scale
    assert np.rint(np.float32(largest) / scale) == top
    assert float(scale) == pytest.approx(largest / top, rel=2**-16)


def test_a_scale_of_nothing_is_1() -> None:
    assert grid_scale(np.zeros(3, np.float32), 7) == grid_scale(np.empty(0, np.float32), 127) == 1
