"""How a budget is split over filters and layers, and what is selected then."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.sparsity.masks import unit_masks, weight_masks
from tdcompress.sparsity.scores import filter_rows, protect_largest, unit_extents, weight_extents
from tdcompress.sparsity.select import lowest_units
from tdcompress.sparsity.shares import Extent, Overall, PerFilter, PerLayer, selected_counts, unit_counts
from tdcompress.sparsity.units import Slot, UnitGroup

LAYERS = (Extent(name="a", rows=4, length=9, erk=13), Extent(name="b", rows=8, length=36, erk=18))
sizes = st.lists(
    st.builds(lambda o, i, k: (o, i, k, k), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3])),
    min_size=1,
    max_size=6,
)
fractions = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


def layers(shapes: list[tuple[int, ...]]) -> tuple[dict[str, torch.Tensor], tuple[Slot, ...]]:
    """Weights with many ties."""
    generator = torch.Generator().manual_seed(len(shapes))
    params = {f"w{index}": torch.randint(-3, 4, shape, generator=generator).float() for index, shape in enumerate(shapes)}
    return params, tuple(Slot(parameter=name) for name in params)


def test_filters_have_the_same_share_each_and_layers_the_same_of_all_their_weights():
    assert selected_counts(LAYERS, 0.5, "filter") == PerFilter(counts={"a": 4, "b": 18})
    assert selected_counts(LAYERS, 0.5, "layer") == PerLayer(counts={"a": 18, "b": 144})
    assert selected_counts(LAYERS, 0.29, "layer") == PerLayer(counts={"a": 10, "b": 83})  # 10.44, 83.52
    assert selected_counts(LAYERS, 0.29, "global") == Overall(count=93)  # 93.96


def test_one_weight_of_each_filter_stays():
    assert selected_counts(LAYERS, 1.0, "filter") == PerFilter(counts={"a": 8, "b": 35})
    assert selected_counts(LAYERS, 0.99, "filter") == PerFilter(counts={"a": 8, "b": 35})  # 8.91, 35.64
    assert selected_counts(LAYERS, 0.99, "layer") == PerLayer(counts={"a": 32, "b": 280})
    assert selected_counts(LAYERS, 1.0, "erk") == PerLayer(counts={"a": 32, "b": 280})
    assert selected_counts(LAYERS, 1.0, "global") == Overall(count=312)


def test_erk_keeps_in_proportion_to_the_sum_of_a_layers_dimensions():
    """31 of 324 stay, 13 : 18; at 62 the small layer keeps 26 of its 36."""
    assert selected_counts(LAYERS, 293 / 324, "erk") == PerLayer(counts={"a": 36 - 13, "b": 288 - 18})
    assert selected_counts(LAYERS, 0.809, "erk") == PerLayer(counts={"a": 36 - 26, "b": 288 - 36})


def test_erk_leaves_a_layer_dense_that_would_keep_more_than_it_has_and_shares_the_rest_again():
    extents = (*LAYERS, Extent(name="c", rows=8, length=36, erk=9))
    # 306 stay of 612: 99.45 of 36, 137.7 and 68.85; with a whole, 270 are 180 and 90
    assert selected_counts(extents, 0.5, "erk") == PerLayer(counts={"a": 0, "b": 108, "c": 198})


def test_erk_gives_what_is_left_over_to_the_largest_remainder_then_to_the_first():
    extents = tuple(Extent(name=name, rows=1, length=10, erk=1) for name in "abc")
    assert selected_counts(extents, 0.5, "erk") == PerLayer(counts={"a": 5, "b": 5, "c": 5})
    assert selected_counts(extents, 0.46, "erk") == PerLayer(counts={"a": 4, "b": 4, "c": 5})  # 17 stay: 6, 6, 5
    uneven = (Extent(name="a", rows=1, length=10, erk=1), Extent(name="b", rows=1, length=10, erk=2))
    assert selected_counts(uneven, 0.75, "erk") == PerLayer(counts={"a": 8, "b": 7})  # 5 stay: 1.67, 3.33


@settings(derandomize=True, deadline=None, max_examples=150)
@given(sizes, fractions)
def test_erk_selects_the_total_exactly_within_its_bounds_and_in_proportion(shapes, fraction):
    params, slots = layers(shapes)
    extents = weight_extents(params, slots)
    counts = selected_counts(extents, fraction, "erk")
    assert isinstance(counts, PerLayer)
    total = sum(each.entries for each in extents)
    wanted = min(int(Fraction(str(fraction)) * total), sum(each.most for each in extents))
    assert sum(counts.counts.values()) == wanted
    kept = {each.name: each.entries - counts.counts[each.name] for each in extents}
    assert all(each.rows <= kept[each.name] <= each.entries for each in extents)
    # against the definition, solved by bisection for the one factor: clamp(factor * dimensions, rows, entries)
    low, high = 0.0, 2.0 * total
    for _ in range(200):
        factor = (low + high) / 2
        sums = sum(min(each.entries, max(each.rows, factor * float(each.erk))) for each in extents)
        low, high = (factor, high) if sums < total - wanted else (low, factor)
    for each in extents:
        assert abs(kept[each.name] - min(each.entries, max(each.rows, high * float(each.erk)))) < 1 + 1e-6


def test_units_of_a_group_are_one_row_whose_density_is_that_of_its_filters():
    params = {"a": torch.ones(4, 2, 3, 3), "b": torch.ones(4, 2, 1, 1), "c": torch.ones(6, 5)}
    thirds = tuple((2 * unit, 2 * unit + 1) for unit in range(3))
    groups = (
        UnitGroup(name="g", size=4, filters=(Slot(parameter="a"), Slot(parameter="b"))),
        UnitGroup(name="h", size=3, filters=(Slot(parameter="c", positions=thirds),)),
    )
    g, h = unit_extents(params, groups)
    assert (g.rows, g.length, g.erk) == (1, 4, Fraction(4 * (12 + 8), 72 + 8))
    assert (h.rows, h.length, h.erk) == (1, 3, Fraction(3 * 11, 30))
    assert unit_counts((g, h), 0.6, "erk") == PerLayer(counts={"g": 3, "h": 1})  # 3 stay: 1.43, 1.57
    with pytest.raises(ValueError, match='shares: "filter" is a share of the weights'):
        unit_counts((g, h), 0.5, "filter")


def test_the_largest_weight_of_each_filter_is_protected_the_last_of_equal_ones():
    scores = torch.tensor([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0], [5.0, 1.0, 2.0]])
    infinite = [[False, False, True], [False, False, True], [True, False, False]]
    assert protect_largest(scores).isinf().tolist() == infinite
    assert not scores.isinf().any()
    assert torch.equal(protect_largest(scores)[0], torch.tensor([1.0, 3.0, math.inf]))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(sizes, fractions, st.sampled_from(["layer", "erk", "global"]))
def test_what_is_pruned_equals_a_sort_of_the_unprotected(shapes, fraction, shares):
    params, slots = layers(shapes)
    masks = weight_masks(params, slots, fraction=fraction, shares=shares)
    counts = selected_counts(weight_extents(params, slots), fraction, shares)
    ranked: list[tuple[float, int, str, int]] = []  # score, layer, name, place
    for layer, slot in enumerate(slots):
        rows = filter_rows(params[slot.parameter].abs(), slot).tolist()
        for index, row in enumerate(rows):
            spared = max(range(len(row)), key=lambda place, row=row: (row[place], place))
            ranked += [
                (value, layer, slot.parameter, index * len(row) + place) for place, value in enumerate(row) if place != spared
            ]
    ranked.sort()
    left = dict(counts.counts) if isinstance(counts, PerLayer) else dict.fromkeys(params, counts.count)  # type: ignore[union-attr]
    expected = {name: set() for name in params}
    for done, (_, _, name, place) in enumerate(ranked):
        if isinstance(counts, Overall) and done >= counts.count:
            break
        if len(expected[name]) < left[name]:
            expected[name].add(place)
    assert {name: set((~mask).flatten().nonzero().flatten().tolist()) for name, mask in masks.items()} == expected
    assert all(bool(mask.flatten(1).any(1).all()) for mask in masks.values())


def test_all_groups_are_ranked_together_and_keep_their_largest_unit():
    scores = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([0.1, 0.2, 0.1, 0.2])}
    chosen = lowest_units(scores, Overall(count=4))
    assert chosen["a"].tolist() == [True, False, False]
    assert chosen["b"].tolist() == [True, True, True, False]
    aligned = lowest_units(scores, Overall(count=4), align=2)
    assert aligned["a"].tolist() == [True, False, False]
    assert aligned["b"].tolist() == [True, False, True, False]  # two stay: the 0.2s


def test_units_have_the_shares_of_their_groups():
    params = {"a": torch.tensor([[1.0], [2.0], [3.0], [4.0]]), "b": torch.tensor([[0.1], [0.2]])}
    groups = tuple(UnitGroup(name=name, size=len(param), filters=(Slot(parameter=name),)) for name, param in params.items())
    layer = unit_masks(params, groups, fraction=0.5)
    assert [mask.flatten().tolist() for mask in layer.values()] == [[False, False, True, True], [False, True]]
    together = unit_masks(params, groups, fraction=0.5, shares="global")
    assert [mask.flatten().tolist() for mask in together.values()] == [[False, False, True, True], [False, True]]
    most = unit_masks(params, groups, fraction=0.34, shares="global")
    assert [mask.flatten().tolist() for mask in most.values()] == [[False, True, True, True], [False, True]]


def test_shares_and_a_count_per_filter_exclude_each_other():
    params, slots = layers([(2, 3, 1, 1)])
    with pytest.raises(ValueError, match="shares: 'erk' splits a fraction"):
        weight_masks(params, slots, keep_per_filter=1, shares="erk")
    with pytest.raises(ValueError, match="one of filter, layer, erk, global"):
        selected_counts(LAYERS, 0.5, "even")  # type: ignore[arg-type]
