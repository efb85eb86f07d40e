"""Two of every four, and blocks over four filters: what is selected, and what is refused."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdcompress.errors import ModelError
from tdcompress.sparsity.masks import weight_masks
from tdcompress.sparsity.patterns import pattern_extents
from tdcompress.sparsity.shares import selected_counts
from tdcompress.sparsity.units import Slot

shapes = st.tuples(st.sampled_from([4, 8]), st.sampled_from([4, 8, 12]), st.sampled_from([1, 3])).map(
    lambda s: (s[0], s[1], s[2], s[2])
)


def ties(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def test_the_two_smallest_of_four_neighbouring_inputs_go():
    weight = torch.tensor([[4.0, -1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]])
    masks = weight_masks({"w": weight}, [Slot(parameter="w")], fraction=0.5, pattern="2:4")
    assert masks["w"].tolist() == [[True, False, False, True, False, False, True, True]]
    assert bool(weight_masks({"w": weight}, [Slot(parameter="w")], fraction=0, pattern="2:4")["w"].all())


@settings(derandomize=True, deadline=None, max_examples=60)
@given(shapes, st.integers(0, 99), st.integers(0, 1))
def test_two_of_four_equals_a_sort_of_each_group(shape, seed, axis):
    """Groups run along input channels, at one place of the kernel; also for transposed convolutions."""
    weight = ties(shape, seed) if axis == 0 else ties((shape[1], shape[0], *shape[2:]), seed)
    (mask,) = weight_masks({"w": weight}, [Slot(parameter="w", axis=axis)], fraction=0.5, pattern="2:4").values()
    scores, kept = weight.abs().transpose(0, axis), mask.transpose(0, axis)
    assert mask.shape == weight.shape
    for o, g, y, x in itertools.product(range(shape[0]), range(shape[1] // 4), range(shape[2]), range(shape[3])):
        group = scores[o, 4 * g : 4 * g + 4, y, x].tolist()
        gone = sorted(range(4), key=lambda i, group=group: (group[i], i))[:2]
        assert kept[o, 4 * g : 4 * g + 4, y, x].tolist() == [i not in gone for i in range(4)]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(shapes, st.integers(0, 99), st.integers(0, 1), st.sampled_from(["filter", "layer", "erk", "global"]))
def test_blocks_are_whole_and_as_many_as_the_shares_say(shape, seed, axis, shares):
    weight = ties(shape, seed) if axis == 0 else ties((shape[1], shape[0], *shape[2:]), seed)
    params, slots = {"w": weight}, [Slot(parameter="w", axis=axis)]
    (mask,) = weight_masks(params, slots, fraction=0.7, shares=shares, pattern="1x4").values()
    blocks = mask.transpose(0, axis).reshape(shape[0] // 4, 4, -1)
    assert torch.equal(blocks.all(1), blocks.any(1))
    counts = selected_counts(pattern_extents(params, slots, "1x4"), 0.7, shares)
    gone = int((~blocks[:, 0]).sum())
    if shares == "filter":
        assert (~blocks[:, 0]).sum(1).tolist() == [counts.counts["w"]] * (shape[0] // 4)
    else:
        assert gone == (counts.count if shares == "global" else counts.counts["w"])
        assert bool(blocks.flatten(1).any(1).all())  # four filters are never emptied
    norms = weight.transpose(0, axis).reshape(shape[0] // 4, 4, -1).norm(dim=1)
    if shares == "filter":
        for row, keep in zip(norms, blocks[:, 0], strict=True):
            assert keep.all() or float(row[~keep].max()) <= float(row[keep].min()) + 1e-6


def test_so_many_blocks_of_four_filters_can_be_kept():
    masks = weight_masks({"w": ties((8, 4, 3, 3), 0)}, [Slot(parameter="w")], keep_per_filter=3, pattern="1x4")
    assert masks["w"].flatten(1).sum(1).tolist() == [3] * 8


@pytest.mark.parametrize(
    ("shape", "pattern", "said"),
    [
        ((4, 6), "2:4", r'"2:4": fc has 6 input channels, which 4 does not divide; exclude = \["fc"\]'),
        ((4, 1, 3, 3), "2:4", "1 input channels"),
        ((6, 4), "1x4", "fc has 6 filters, which 4 does not divide"),
    ],
)
def test_layers_that_a_pattern_does_not_fit_are_refused(shape, pattern, said):
    with pytest.raises(ModelError, match=said):
        weight_masks({"fc.weight": torch.ones(shape)}, [Slot(parameter="fc.weight")], fraction=0.5, pattern=pattern)


@pytest.mark.parametrize("budget", [{"fraction": 0.75}, {"keep_per_filter": 2}, {"fraction": 0.5, "shares": "erk"}])
def test_shares_that_two_of_four_cannot_give_are_refused(budget):
    with pytest.raises(ValueError, match="2:4"):
        weight_masks({"w": torch.ones(4, 4)}, [Slot(parameter="w")], pattern="2:4", **budget)
