"""How much of a fraction can go is told by arithmetic, and is what the masks prune."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.sparsity.masks import count_pruned_units, unit_masks, weight_masks
from tdcompress.sparsity.reach import Reach, unit_reach, weight_reach
from tdcompress.sparsity.units import Slot, UnitGroup

fractions = st.sampled_from([0.0, 0.29, 0.5, 0.9, 0.99, 1.0])


def weights(shapes: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(shapes))
    return {f"w{index}": torch.randn(shape, generator=generator) for index, shape in enumerate(shapes)}


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.sampled_from([4, 8]), st.integers(1, 5), st.sampled_from([1, 3])), min_size=1, max_size=4),
    fractions,
    st.sampled_from(["filter", "layer", "erk", "global"]),
    st.sampled_from([None, "1x4"]),
)
def test_so_many_weights_or_blocks_go(shapes, fraction, shares, pattern):
    params = weights(shapes)
    slots = [Slot(parameter=name) for name in params]
    budget = {"fraction": fraction, "shares": shares, "pattern": pattern}
    reach, masks = weight_reach(params, slots, **budget), weight_masks(params, slots, **budget)
    assert reach.reached * (4 if pattern else 1) == sum(int((~mask).sum()) for mask in masks.values())
    assert reach.reached <= reach.asked <= reach.total * fraction + 1e-9
    assert (str(reach) == "") == (reach.reached == reach.asked and (reach.reached > 0 or fraction == 0))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), fractions, st.sampled_from(["layer", "erk", "global"]))
def test_so_many_units_go(sizes, fraction, shares):
    params = weights([(size, 3) for size in sizes])
    groups = [UnitGroup(name=name, size=len(param), filters=(Slot(parameter=name),)) for name, param in params.items()]
    masks = unit_masks(params, groups, fraction=fraction, shares=shares)
    assert unit_reach(params, groups, fraction=fraction, shares=shares).reached == count_pruned_units(masks, groups)


def test_units_of_several_lines_and_writers_are_counted_once():
    params = {"a": torch.arange(12.0).view(6, 2), "b": torch.ones(2, 3)}
    group = UnitGroup(
        name="g", size=3, filters=(Slot(parameter="a", positions=((0, 1), (), (4, 5))), Slot(parameter="b", axis=1))
    )
    assert count_pruned_units(unit_masks(params, [group], fraction=0.7), [group]) == 2
    assert count_pruned_units(unit_masks(params, [group], fraction=0.7, align=2), [group]) == 1


def test_what_cannot_go_is_said_with_counts():
    params, slots = weights([(4, 9, 1), (8, 36, 1)]), [Slot(parameter="w0"), Slot(parameter="w1")]
    reach = Reach(what="weights", total=324, fraction=0.99, asked=320, reached=312)
    assert weight_reach(params, slots, fraction=0.99, shares="global") == reach
    assert reach.told("candidates").startswith("320 of 324 weights were to be candidates, and 312 are (96.30%): ")
    said = "320 of 324 weights were to be pruned, and 312 are (96.30%): one weight of each filter stays"
    assert str(weight_reach(params, slots, fraction=0.99, shares="global")) == said
    assert str(weight_reach(params, slots, fraction=0.99)) == ""  # the floor of each filter leaves one by itself
    kept = weight_reach(params, slots, fraction=None, keep_per_filter=3)
    assert (kept.asked, kept.reached, str(kept)) == (288, 288, "")
    blocks = weight_reach(params, slots, fraction=1.0, pattern="1x4")
    assert str(blocks) == "81 of 81 1x4 blocks were to be pruned, and 78 are (96.30%): one block of each four filters stays"
    groups = [UnitGroup(name=name, size=len(param), filters=(Slot(parameter=name),)) for name, param in params.items()]
    units = unit_reach(params, groups, fraction=0.95, shares="global")
    assert str(units) == "11 of 12 units were to be pruned, and 10 are (83.33%): one unit of each layer stays"
    assert str(unit_reach(params, groups, fraction=0.95)) == ""


@pytest.mark.parametrize("pattern", [None, "2:4"])
def test_a_share_that_can_go_says_nothing(pattern):
    params = weights([(4, 8)])
    assert str(weight_reach(params, [Slot(parameter="w0")], fraction=0.5, pattern=pattern)) == ""


def test_that_nothing_goes_is_said_where_something_was_asked_for():
    params, slot = weights([(4, 8)]), [Slot(parameter="w0")]
    rounded = "none of 32 weights are pruned: the share comes to less than one, and is rounded down"
    assert str(weight_reach(params, slot, fraction=0.1)) == rounded
    assert str(weight_reach(params, slot, fraction=0.1, shares="layer")) == ""  # three of the layer
    assert str(weight_reach(params, slot, fraction=0.0)) == ""
    assert str(weight_reach(params, slot, fraction=None, keep_per_filter=7)) == ""
    kept = "none of 32 weights are pruned: no filter has more than stay"
    assert str(weight_reach(params, slot, fraction=None, keep_per_filter=8)) == kept
    group = UnitGroup(name="w0", size=4, filters=(slot[0],))
    assert str(unit_reach(params, [group], fraction=0.2)).startswith("none of 4 units are pruned: the share comes to less")
    assert str(unit_reach(params, [], fraction=0.2)) == ""
