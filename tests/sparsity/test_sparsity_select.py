from decimal import ROUND_FLOOR, Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.sparsity.select import bottom_k
from tdcompress.sparsity.shares import pruned_count

few_values = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, 3.0])
any_values = st.floats(-1e6, 1e6, width=32)


def reference_bottom_k(rows: list[list[float]], k: int) -> list[list[bool]]:
    """Stable sort by (score, index), in plain Python."""
    selected = []
    for row in rows:
        order = sorted(range(len(row)), key=lambda i: (row[i], i))[:k]
        selected.append([i in order for i in range(len(row))])
    return selected


@pytest.mark.parametrize(
    ("size", "fraction", "expected"),
    [
        (100, 0.29, 29),  # floor(0.29 * 100) is 28 in floats
        (100, 0.57, 57),
        (100, 0.58, 58),
        (1000, 0.001, 1),
        (1000, 0.999, 999),
        (10, 0.1 + 0.2, 3),  # 0.30000000000000004
        (3, 0.99, 2),
        (500, 0.75, 375),
        (7, 0.0, 0),
        (7, 1.0, 7),
        (7, 0, 0),
        (7, 1, 7),
        (0, 0.5, 0),
        (10**6, 1e-6, 1),
    ],
)
def test_fraction_counts_as_the_decimal_it_is_written_as(size: int, fraction: float, expected: int):
    assert pruned_count(size, fraction=fraction) == expected


@settings(derandomize=True, deadline=None, max_examples=200)
@given(size=st.integers(0, 100_000), thousandths=st.integers(0, 1000))
def test_count_is_the_exact_floor(size: int, thousandths: int):
    fraction = float(f"{thousandths / 1000:.3f}")
    exact = (Decimal(thousandths) / 1000 * size).to_integral_value(rounding=ROUND_FLOOR)
    assert pruned_count(size, fraction=fraction) == int(exact)


@pytest.mark.parametrize(("size", "keep", "expected"), [(9, 3, 6), (3, 3, 0), (2, 3, 0), (1, 1, 0)])
def test_keep_per_filter(size: int, keep: int, expected: int):
    assert pruned_count(size, keep_per_filter=keep) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give fraction, the share that is pruned, or keep_per_filter"),
        ({"fraction": 0.5, "keep_per_filter": 3}, "drop keep_per_filter to prune a share, or drop fraction"),
        ({"keep_per_filter": 0}, "at least 1"),
        ({"fraction": -0.1}, r"0\.\.1"),
        ({"fraction": 1.1}, r"0\.\.1"),
        ({"fraction": float("nan")}, r"0\.\.1"),
    ],
)
def test_counts_out_of_range_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pruned_count(10, **arguments)


def test_selects_the_lowest_of_each_row():
    scores = torch.tensor([[3.0, 1.0, 2.0, 5.0], [0.1, 0.4, 0.3, 0.2]])
    assert bottom_k(scores, 2).tolist() == [[False, True, True, False], [True, False, False, True]]


def test_ties_go_to_the_lower_index_and_the_count_is_exact():
    assert bottom_k(torch.ones(5), 2).tolist() == [True, True, False, False, False]
    assert bottom_k(torch.tensor([2.0, 1.0, 2.0, 2.0]), 2).tolist() == [True, True, False, False]
    assert bottom_k(torch.tensor([2.0, 2.0, 1.0, 2.0]), 3).tolist() == [True, True, True, False]
    # what "w < threshold" would make of it: nothing
    assert int(bottom_k(torch.zeros(4), 3).sum()) == 3


def test_all_and_none():
    scores = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    assert not bottom_k(scores, 0).any()
    assert bottom_k(scores, 4).all()
    assert bottom_k(torch.empty(3, 0), 0).shape == (3, 0)


@pytest.mark.parametrize("k", [-1, 5])
def test_k_out_of_range_is_refused(k: int):
    with pytest.raises(ValueError, match="a row has 4 scores"):
        bottom_k(torch.zeros(2, 4), k)


def test_a_scalar_has_no_row():
    with pytest.raises(ValueError, match="a row has 0 scores"):
        bottom_k(torch.tensor(1.0), 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_floating_type(dtype: torch.dtype):
    scores = torch.tensor([[4.0, 1.0, 1.0, 0.0, 1.0]], dtype=dtype)
    assert bottom_k(scores, 3).tolist() == [[False, True, True, True, False]]


def test_leaves_the_scores_alone_and_takes_any_layout():
    scores = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).T
    before = scores.clone()
    assert bottom_k(scores, 2).tolist() == reference_bottom_k(scores.tolist(), 2)
    assert torch.equal(scores, before)
    assert bottom_k(torch.nn.Parameter(before), 2).tolist() == reference_bottom_k(before.tolist(), 2)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data())
def test_equals_a_stable_sort(data):
    rows, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    values = data.draw(st.sampled_from([few_values, any_values]))
    scores = data.draw(st.lists(st.lists(values, min_size=size, max_size=size), min_size=rows, max_size=rows))
    k = data.draw(st.integers(0, size))
    selected = bottom_k(torch.tensor(scores), k)
    assert selected.tolist() == reference_bottom_k(scores, k)
    assert selected.sum(-1).tolist() == [k] * rows


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_grows_with_k_and_ignores_scale(data):
    scores = torch.tensor(data.draw(st.lists(few_values, min_size=1, max_size=20)))
    k = data.draw(st.integers(0, len(scores) - 1))
    fewer, more = bottom_k(scores, k), bottom_k(scores, k + 1)
    assert bool((more | ~fewer).all())
    assert torch.equal(bottom_k(scores * 4, k), fewer)
