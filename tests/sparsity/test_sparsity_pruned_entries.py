"""Which zeros of a network tell of pruning, without its masks, and which do not."""

import torch
from frozen_networks import batch, network, trained_on
from torch import nn

import tdcompress as tdc
from tdcompress.sparsity.freeze import pruned_entries


def found_in(model: nn.Module) -> dict[str, list[bool]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: zeros.flatten().tolist() for p, zeros in pruned_entries(model)}


def test_zeros_that_tell_of_pruning_and_those_that_do_not() -> None:
    layer, norm, started = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
    head = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))  # that of the first filter has just begun at 0
        norm.weight.copy_(torch.tensor([1.0, 0.0, 0.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        started.weight.zero_()
        started.bias.zero_()
    assert found_in(nn.Sequential(layer, norm, started, head)) == {
        "0.weight": [False, True, True, True, False, False],
        "0.bias": [False, True, False],
        "1.weight": [False, True, False],
        "1.bias": [False, True, False],
    }
    residual = nn.BatchNorm1d(3)  # its scale begins at 0, so that the block begins as the identity
    nn.init.zeros_(residual.weight)
    assert found_in(nn.Sequential(nn.Linear(3, 3), residual)) == {}


def test_the_dead_filters_of_a_grouped_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(4, 6, 2, groups=2)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight[:2, 1] = 0.0  # output 1 of the first group
        layer.weight[2:, 2] = 0.0  # output 2 of the second: 3 + 2
        layer.weight[3, 0] = 0.0  # a part of output 3
    assert found_in(layer)["bias"] == [False, True, False, False, False, True]


def test_all_that_pruning_units_made_zero_is_found_without_its_masks() -> None:
    model = network()
    trained_on(model)
    masks = tdc.prune(model, granularity="unit", fraction=0.5, example_inputs=batch(0)[0])
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: zeros for p, zeros in pruned_entries(model)}
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[name], ~mask) for name, mask in masks.items())


def test_of_what_layers_share_the_zeros_that_tell_of_pruning_in_each() -> None:
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    other.bias, second.weight = one.bias, first.weight
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
        other.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
        one.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        first.weight.copy_(torch.tensor([0.0, 0.0, 1.0]))
        first.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        second.bias.copy_(torch.tensor([0.0, 1.0, 1.0]))
    found = found_in(nn.Sequential(one, other, first, second))
    assert found["0.bias"] == [True, False, False]
    assert found["2.weight"] == [True, False, False]
    assert (found["2.bias"], found["3.bias"]) == ([True, True, False], [True, False, False])


def test_masks_by_several_names_of_one_parameter_hold_together() -> None:
    layer = nn.Linear(1, 3)
    nn.init.ones_(layer.weight)
    keep = torch.tensor([[False], [True], [True]]), torch.tensor([[True], [False], [True]])
    tdc.freeze(nn.Sequential(layer, layer), {"0.weight": keep[0], "1.weight": keep[1]})
    assert layer.weight.flatten().tolist() == [0.0, 0.0, 1.0]
