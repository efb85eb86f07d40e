"""Transposed convolutions with groups: a filter is what one output channel is made of, however the weight is stored."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tdcompress as tdc
from tdcompress.errors import ModelError
from tdcompress.methods.random_prune import RandomPruneSettings
from tdcompress.shrinking.groups import unit_groups
from tdcompress.sparsity.masks import weight_masks
from tdcompress.sparsity.patterns import PATTERNS
from tdcompress.sparsity.scores import as_stored, by_filter, unit_extents, unit_scores, weight_extents
from tdcompress.sparsity.units import Slot, Targets, prunable_weights, weight_slot

LAYERS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
sizes = st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))


def layer(dimensions: int, groups: int, inputs: int, outputs: int, kernel: int) -> nn.Module:
    """A layer of so many inputs and outputs for each group, its weights with many ties and never 0."""
    made = LAYERS[dimensions](groups * inputs, groups * outputs, kernel, groups=groups, bias=False)
    generator = torch.Generator().manual_seed(groups + 10 * inputs + 100 * outputs)
    with torch.no_grad():
        made.weight.copy_(torch.randint(1, 6, made.weight.shape, generator=generator))
    return made


def filters_of(made: nn.Module) -> list[np.ndarray]:
    """For each output channel the places in the flat weight that it depends on, as its derivative tells."""
    kernel = made.weight.shape[2:]
    outputs = made(torch.ones(1, made.in_channels, *(size + 1 for size in kernel)))[0]
    slopes = [torch.autograd.grad(output.sum(), made.weight, retain_graph=True)[0] for output in outputs]
    return [np.flatnonzero(slope.numpy()) for slope in slopes]


@settings(derandomize=True, deadline=None, max_examples=80)
@given(sizes, st.sampled_from([0.0, 0.29, 0.5, 0.9]))
def test_the_share_of_every_filter_goes_and_its_smallest_weights(size, fraction):
    made = layer(*size)
    slot = weight_slot(made, "w")
    (mask,) = weight_masks({"w": made.weight.detach()}, [slot], fraction=fraction).values()
    weight, expected = made.weight.detach().abs().numpy().ravel(), np.ones(mask.numel(), bool)
    for own in filters_of(made):
        order = own[np.argsort(weight[own], kind="stable")]
        expected[order[: math.floor(Fraction(str(fraction)) * len(own))]] = False
    assert np.array_equal(mask.numpy().ravel(), expected)
    filters = by_filter(made.weight, slot)
    assert [row.tolist() for row in filters.flatten(1)] == [made.weight.flatten()[own].tolist() for own in filters_of(made)]
    assert torch.equal(as_stored(filters, slot), made.weight)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(sizes, st.sampled_from([None, *PATTERNS]), st.sampled_from(["filter", "layer", "erk", "global"]))
def test_what_goes_is_what_goes_of_an_ordinary_convolution_with_these_filters(size, pattern, shares):
    dimensions, groups, inputs, outputs, kernel = size
    made = layer(
        dimensions, groups, 4 * inputs if pattern == "2:4" else inputs, 4 * outputs if pattern == "1x4" else outputs, kernel
    )
    shares = "filter" if pattern == "2:4" else shares
    other = torch.randint(1, 6, (4, 4, 3), generator=torch.Generator().manual_seed(1)).float()
    own = np.stack(filters_of(made))
    plain = made.weight.detach().flatten()[torch.from_numpy(own)].view(made.out_channels, -1, *made.weight.shape[2:])
    slots = weight_slot(made, "w"), Slot(parameter="w"), Slot(parameter="other")
    assert weight_extents({"w": made.weight}, slots[:1]) == weight_extents({"w": plain}, slots[1:2])
    options = {"fraction": 0.5, "shares": shares, "pattern": pattern}
    mask = weight_masks({"w": made.weight.detach(), "other": other}, [slots[0], slots[2]], **options)
    same = weight_masks({"w": plain, "other": other}, slots[1:], **options)
    assert np.array_equal(mask["w"].numpy().ravel()[own].ravel(), same["w"].numpy().ravel())
    assert torch.equal(mask["other"], same["other"])


def decoder() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        up = nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16, bias=False)
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), up, nn.ReLU(), nn.Conv2d(16, 3, 1))


@pytest.mark.parametrize("shares", ["filter", "layer", "erk", "global"])
@pytest.mark.parametrize("fraction", [0.9, 0.95])
@pytest.mark.filterwarnings("ignore:fraction = 0.95")  # of a layer less can go than that
def test_no_filter_of_a_depthwise_one_is_emptied(shares, fraction):
    model = decoder()
    tdc.prune(model, fraction=fraction, shares=shares)
    kept = (model[2].weight != 0).flatten(1).sum(1)
    assert int(kept.min()) >= 1
    if shares == "filter":
        assert kept.tolist() == [16 - math.floor(fraction * 16)] * 16


def test_two_of_eighteen_weights_stay_in_every_filter_of_four_groups():
    model = nn.Sequential(nn.ConvTranspose2d(8, 16, 3, groups=4), nn.Flatten(), nn.Linear(16 * 9, 3))
    tdc.prune(model, fraction=0.9)
    assert [int((model[0].weight.flatten()[own] != 0).sum()) for own in filters_of(model[0])] == [2] * 16
    net = tdc.TargetedDropout(model, gamma=0.9, alpha=1.0, shares="global")
    dropped = net.method.dropped()["0.weight"].flatten().numpy()
    assert not any(dropped[own].all() for own in filters_of(model[0]))


@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
def test_two_of_four_needs_four_input_channels_of_each_filter(make):
    model = nn.Sequential(make(8, 16, 3, groups=4), nn.Flatten(), nn.Linear(16, 3))
    said = r'"2:4": 0 has 2 input channels, which 4 does not divide; exclude = \["0"\]'
    with pytest.raises(ModelError, match=said):
        tdc.prune(model, granularity="2:4", fraction=0.5)
    with pytest.raises(ModelError, match=said):
        tdc.TargetedDropout(model, granularity="2:4", gamma=0.5)


def test_a_random_subnetwork_has_the_same_share_of_every_filter():
    model = nn.Sequential(nn.ConvTranspose2d(8, 16, 3, groups=4))
    method = RandomPruneSettings(fraction=0.5).build(Targets(weights=(weight_slot(model[0], "0.weight"),)), model)
    gone = method.pruned("0.weight").flatten().numpy()
    assert [int(gone[own].sum()) for own in filters_of(model[0])] == [9] * 16


@pytest.mark.parametrize(
    ("scope", "name", "erk"),
    [
        ("layer", "2", Fraction(4 * (16 + 2 + 3 + 3), 288)),
        ("group", "0", Fraction(4 * (8 + 3 + 1 + 1 + 16 + 2 + 3 + 3), 24 + 288)),  # with the layer whose channels it couples
    ],
)
def test_units_are_whole_groups_with_the_density_of_their_filters(scope, name, erk):
    """Of erk, as of a grouped convolution with filters (16, 2, 3, 3)."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 3, 1), nn.Flatten()
    )
    model.append(nn.Linear(3 * 36, 2))
    groups = unit_groups(model, torch.zeros(2, 3, 4, 4), prunable_weights(model), scope=scope)
    params = dict(model.named_parameters())
    group = next(each for each in groups if each.name == name)
    assert unit_extents(params, [group])[0].erk == erk
    squares = sum((params[slot.parameter].detach().numpy().reshape(4, -1) ** 2).sum(1) for slot in group.filters)
    np.testing.assert_allclose(unit_scores(params, group).numpy(), np.sqrt(squares), rtol=1e-6)


class Scaled(nn.Module):
    """Reads a layer's weight as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * self.up.weight.abs().sum())


def test_a_weight_that_is_read_as_numbers_has_its_groups_for_units_too():
    model = Scaled()
    (group,) = unit_groups(model, torch.zeros(2, 8), prunable_weights(model), include=["up"])
    assert (group.size, group.filters) == (2, (Slot(parameter="up.weight", positions=((0, 1), (2, 3)), groups=2),))
    assert unit_scores(dict(model.named_parameters()), group).shape == (2,)
