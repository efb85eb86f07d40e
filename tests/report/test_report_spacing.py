import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from tdcompress.report.spacing import space_out


def test_by_hand():
    assert space_out([], []) == []
    assert space_out([5.0], [1.0]) == [5.0]
    assert space_out([0.0, 10.0], [2.0, 2.0]) == [0.0, 10.0]
    assert space_out([5.0, 5.0], [2.0, 2.0]) == [4.0, 6.0]
    assert space_out([6.0, 5.0], [2.0, 2.0]) == [6.5, 4.5]  # order is kept


LABELS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 10)), min_size=1, max_size=8)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(labels=LABELS)
def test_nothing_touches_and_nothing_moves_further_than_needed(labels):
    wanted, needed = (list(values) for values in zip(*labels, strict=True))
    centres = np.array(space_out(wanted, needed))
    order = np.argsort(wanted, kind="stable")
    sizes = np.array(needed)[order]
    offsets = np.concatenate([[0], np.cumsum((sizes[:-1] + sizes[1:]) / 2)])
    nearest = isotonic_regression(np.array(wanted)[order] - offsets).x + offsets
    assert centres[order] == pytest.approx(nearest, abs=1e-9)
    assert (np.diff(centres[order]) >= (sizes[:-1] + sizes[1:]) / 2 - 1e-9).all()
