import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tdcompress.errors import ModelError
from tdcompress.sparsity.masks import (
    apply_masks,
    count_zeros,
    merge_selected,
    unit_masks,
    weight_masks,
    widen,
)
from tdcompress.sparsity.scores import filter_rows, unit_scores
from tdcompress.sparsity.select import lowest_units
from tdcompress.sparsity.shares import Extent, unit_counts
from tdcompress.sparsity.units import Slot, UnitGroup


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_filter_rows_of_a_linear_a_convolution_and_a_transposed_one():
    along, across = Slot(parameter="w"), Slot(parameter="w", axis=1)
    assert filter_rows(numbers(3, 4), along).shape == (3, 4)
    conv, transposed = numbers(3, 2, 5, 5), numbers(2, 3, 5, 5)
    assert torch.equal(filter_rows(conv, along)[1], conv[1].flatten())
    assert torch.equal(filter_rows(transposed, across)[1], transposed[:, 1].flatten())


def weights_of(scores: torch.Tensor, axis: int, **share: float) -> torch.Tensor:
    """True = pruned, in one matrix ranked by these scores."""
    return ~weight_masks({"w": scores}, (Slot(parameter="w", axis=axis),), scores={"w": scores}, **share)["w"]


def units_of(scores: torch.Tensor, fraction: float, align: int = 1) -> torch.Tensor:
    """True = pruned, in one group ranked by these scores."""
    counts = unit_counts([Extent(name="g", rows=1, length=len(scores))], fraction, "layer")
    return lowest_units({"g": scores}, counts, align=align)["g"]


def test_lowest_weights_counts_inside_each_filter():
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 40.0, 30.0, 20.0]])
    assert weights_of(weight, 0, fraction=0.5).tolist() == [[True, True, False, False], [True, False, False, True]]
    assert weights_of(weight, 0, keep_per_filter=1).tolist() == [[True, True, True, False], [True, False, True, True]]
    assert not weights_of(weight, 0, keep_per_filter=9).any()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_lowest_weights_equals_a_sort_of_each_filter(data):
    """For any position of the output axis; scores with ties."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    axis = data.draw(st.integers(0, 1))
    fraction = data.draw(st.sampled_from([0.0, 0.25, 0.29, 0.5, 0.9, 1.0]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = torch.randint(0, 4, shape, generator=generator).float()
    selected = weights_of(scores, axis, fraction=fraction)
    assert selected.shape == scores.shape
    for index in range(shape[axis]):
        row, chosen = scores.select(axis, index).flatten(), selected.select(axis, index).flatten()
        k = min(int(len(row) * fraction + 1e-9), len(row) - 1)
        order = sorted(range(len(row)), key=lambda i: (float(row[i]), i))
        assert chosen.nonzero().flatten().tolist() == sorted(order[:k])


@pytest.mark.parametrize(
    ("size", "fraction", "align", "kept"),
    [
        (10, 0.5, 1, 5),
        (10, 0.29, 1, 8),  # floor(2.9) = 2 go
        (10, 1.0, 1, 1),  # never all
        (1, 0.9, 1, 1),
        (100, 0.71, 16, 32),  # 29 stay, rounded up to 32
        (100, 0.0, 16, 100),
        (20, 0.1, 16, 20),  # 18 would be 32, more than there are
        (64, 0.99, 16, 16),
    ],
)
def test_how_many_units_stay(size: int, fraction: float, align: int, kept: int):
    selected = units_of(numbers(size).abs(), fraction=fraction, align=align)
    assert size - int(selected.sum()) == kept


def test_units_that_stay_are_the_largest():
    assert units_of(torch.tensor([3.0, 1.0, 2.0, 1.0]), fraction=0.5).tolist() == [False, True, False, True]
    assert units_of(torch.zeros(4), fraction=1.0).tolist() == [True, True, True, False]


def test_unit_scores_are_the_norms_over_all_writers():
    params = {"a.weight": torch.tensor([[3.0, 0.0], [0.0, 1.0]]), "b.weight": torch.tensor([[4.0], [0.0]])}
    group = UnitGroup(name="a", size=2, filters=(Slot(parameter="a.weight"), Slot(parameter="b.weight")))
    assert unit_scores(params, group).tolist() == [5.0, 1.0]
    transposed = UnitGroup(name="a", size=2, filters=(Slot(parameter="a.weight", axis=1),))
    assert unit_scores(params, transposed).tolist() == [3.0, 1.0]


def test_positions_say_which_indices_are_a_units():
    """Two units of three rows each, interleaved: 0 2 4 and 1 3 5."""
    params = {"w": torch.tensor([[1.0], [0.0], [2.0], [0.0], [2.0], [7.0]]), "bn": torch.ones(6)}
    rows = ((0, 2, 4), (1, 3, 5))
    group = UnitGroup(
        name="g", size=2, filters=(Slot(parameter="w", positions=rows),), tied=(Slot(parameter="bn", positions=rows),)
    )
    assert unit_scores(params, group).tolist() == [3.0, 7.0]
    widened = widen(group, torch.tensor([True, False]), params)
    assert widened["w"].shape == (6, 1)
    assert widened["bn"].tolist() == [True, False, True, False, True, False]
    masks = unit_masks(params, (group,), fraction=0.5)
    assert masks["bn"].tolist() == [False, True, False, True, False, True]


def test_units_need_not_have_as_many_entries_each():
    """Of three units the first has rows 0 and 2, the second none, the third row 1: as in a stream that not all writers fill."""
    params = {"w": torch.tensor([[3.0], [1.0], [4.0]]), "v": torch.tensor([[0.0], [2.0], [0.0]])}
    group = UnitGroup(name="g", size=3, filters=(Slot(parameter="w", positions=((0, 2), (), (1,))), Slot(parameter="v")), tied=())
    assert unit_scores(params, group).tolist() == [5.0, 2.0, 1.0]
    widened = widen(group, torch.tensor([True, False, False]), params)
    assert widened["w"].flatten().tolist() == [True, False, True]
    assert unit_masks(params, (group,), fraction=0.4)["w"].flatten().tolist() == [True, False, True]


def test_widen_covers_the_filter_and_what_is_tied_to_it():
    params = {"conv.weight": numbers(2, 3, 3, 3), "conv.bias": numbers(2), "up.weight": numbers(4, 2, 2, 2)}
    group = UnitGroup(
        name="conv",
        size=2,
        filters=(Slot(parameter="conv.weight"), Slot(parameter="up.weight", axis=1)),
        tied=(Slot(parameter="conv.bias"),),
    )
    widened = widen(group, torch.tensor([False, True]), params)
    assert {name: tuple(entries.shape) for name, entries in widened.items()} == {
        "conv.weight": (2, 1, 1, 1),
        "up.weight": (1, 2, 1, 1),
        "conv.bias": (2,),
    }
    assert widened["up.weight"].flatten().tolist() == [False, True]


def test_merged_selections_are_the_union():
    into = {"a": torch.tensor([True, False, False])}
    merge_selected(into, "a", torch.tensor([False, False, True]))
    merge_selected(into, "b", torch.tensor([True]))
    assert into["a"].tolist() == [True, False, True]
    assert into["b"].tolist() == [True]


def test_two_groups_in_one_parameter():
    """A BatchNorm after a concatenation sees the units of two layers."""
    params = {"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([[5.0], [4.0]]), "bn": torch.ones(4)}
    groups = (
        UnitGroup(name="a", size=2, filters=(Slot(parameter="a"),), tied=(Slot(parameter="bn", positions=((0,), (1,))),)),
        UnitGroup(name="b", size=2, filters=(Slot(parameter="b"),), tied=(Slot(parameter="bn", positions=((2,), (3,))),)),
    )
    masks = unit_masks(params, groups, fraction=0.5)
    assert masks["bn"].tolist() == [False, True, True, False]
    assert masks["a"].flatten().tolist() == [False, True]


def test_weight_masks_prune_the_same_share_of_every_filter():
    params = {"a.weight": numbers(5, 10), "b.weight": numbers(4, 3, 2, 2, seed=1)}
    slots = (Slot(parameter="a.weight"), Slot(parameter="b.weight", axis=1))
    masks = weight_masks(params, slots, fraction=0.75)
    assert masks["a.weight"].sum(1).tolist() == [3] * 5
    assert masks["b.weight"].sum((0, 2, 3)).tolist() == [4] * 3
    kept, gone = params["a.weight"][0].abs()[masks["a.weight"][0]], params["a.weight"][0].abs()[~masks["a.weight"][0]]
    assert kept.min() >= gone.max()
    xtreme = weight_masks(params, slots, keep_per_filter=3)
    assert xtreme["b.weight"].sum((0, 2, 3)).tolist() == [3] * 3


def test_scores_of_a_method_come_before_magnitude():
    params = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[1.0, 2.0]])}
    masks = weight_masks(
        params, (Slot(parameter="a"), Slot(parameter="b")), scores={"a": torch.tensor([[9.0, 0.0]])}, fraction=0.5
    )
    assert masks["a"].tolist() == [[True, False]]
    assert masks["b"].tolist() == [[False, True]]
    group = UnitGroup(name="g", size=2, filters=(Slot(parameter="a", axis=1),))
    assert unit_masks(params, (group,), scores={"g": torch.tensor([9.0, 0.0])}, fraction=0.5)["a"].tolist() == [[True, False]]
    assert unit_masks(params, (group,), scores={"other": torch.tensor([9.0, 0.0])}, fraction=0.5)["a"].tolist() == [[False, True]]


def test_masks_keep_the_parameters_shape_and_own_their_memory():
    params = {"w": numbers(3, 2, 2, 2)}
    (mask,) = unit_masks(params, (UnitGroup(name="g", size=3, filters=(Slot(parameter="w"),)),), fraction=0.5).values()
    assert mask.shape == params["w"].shape
    assert mask.is_contiguous()
    mask[0, 0, 0, 0] = not mask[0, 0, 0, 0]  # no expanded view: one entry changes, not a filter
    assert int((mask[0] == mask[0, 0, 0, 0]).sum()) == 1


def test_applied_in_place_as_exact_zeros():
    model = nn.Linear(3, 2)
    masks = {"weight": torch.tensor([[True, False, True], [False, False, True]])}
    before = model.weight.detach().clone()
    apply_masks(model, masks)
    assert torch.equal(model.weight.detach(), before * masks["weight"])
    assert not torch.signbit(model.weight[~masks["weight"]]).any()
    assert count_zeros(model.parameters())[0] >= 3


def test_a_tied_weight_is_masked_once_and_stays_tied():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    apply_masks(model, {"0.weight": torch.tensor([[True, False], [False, True]])})
    assert model[1].weight is model[0].weight
    assert count_zeros(model.parameters()) == (2, 4)


def test_a_mask_for_no_parameter_is_an_error():
    with pytest.raises(KeyError):
        apply_masks(nn.Linear(2, 2), {"other": torch.ones(2, 2, dtype=torch.bool)})


def test_zeros_are_counted():
    assert count_zeros([torch.tensor([0.0, -0.0, 1.0]), torch.zeros(2, 2)]) == (6, 7)
    assert count_zeros([]) == (0, 0)


def test_weights_that_have_no_rank_are_refused():
    params = {"conv.weight": numbers(3, 2, 3, 3)}
    params["conv.weight"][1, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"conv\.weight has weights that are NaN"):
        weight_masks(params, [Slot(parameter="conv.weight")], fraction=0.5)
    group = UnitGroup(name="conv", size=3, filters=(Slot(parameter="conv.weight"),))
    with pytest.raises(ModelError, match="conv has weights that are NaN"):
        unit_masks(params, [group], fraction=0.5)
