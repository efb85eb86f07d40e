import pytest
import torch

from tdcompress.methods.base import TrainStep
from tdcompress.methods.random_prune import RandomPruneSettings
from tdcompress.sparsity.masks import unit_masks, weight_masks


def test_the_same_share_of_every_filter(make_net):
    pruned = make_net("random_prune", fraction=0.75).method.pruned
    assert pruned("conv.weight").sum((1, 2, 3)).tolist() == [20] * 6  # floor(0.75 * 27)
    assert pruned("up.weight").sum((0, 2, 3)).tolist() == [18] * 4
    assert pruned("fc.weight").sum(1).tolist() == [3] * 8


def test_the_same_share_of_every_layers_units_but_never_all(make_net):
    pruned = make_net("random_prune", "unit", fraction=0.99).method.pruned
    assert [int(pruned(name).sum()) for name in ("conv", "up", "fc")] == [5, 3, 7]


def test_a_share_that_cannot_go_is_said(make_net):
    said = make_net("random_prune", fraction=0.99, shares="layer").method.unreached()
    counts = "286 of 290 weights were to be pruned, and 272 are (93.79%): one weight of each filter stays"
    assert said == f'fraction = 0.99, shares = "layer": {counts}'
    assert make_net("random_prune", fraction=0.9, shares="erk").method.unreached() is None


def test_the_seed_chooses_the_mask(make_net):
    first, same, other = (make_net("random_prune", seed=seed).method.pruned("conv.weight") for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_mask_is_random(make_net):
    share = torch.stack([make_net("random_prune", seed=seed).method.pruned("conv.weight").float() for seed in range(200)]).mean(0)
    assert float((share - 13 / 27).abs().max()) < 5 * (0.25 / 200) ** 0.5


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_the_mask_holds_in_training_and_deployment(make_net, run_steps, granularity: str):
    net = make_net("random_prune", granularity)
    before = {name: value.clone() for name, value in net.method.state_dict().items()}
    run_steps(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), torch.Generator().manual_seed(0), range(4))
    assert all(torch.equal(value, before[name]) for name, value in net.method.state_dict().items())
    params = net.parameters_by_name()
    effective, deployed = net.method.effective(params), net.method.deployed(params)
    assert all(torch.equal(effective[name], deployed[name]) for name in effective)
    if granularity == "weight":
        assert bool((deployed["conv.weight"] == 0).eq(net.method.pruned("conv.weight")).all())
    else:
        assert bool((deployed["conv.weight"] == 0).flatten(1).all(1).eq(net.method.pruned("conv")).all())
        assert bool((deployed["bn.weight"] == 0).eq(net.method.pruned("conv")).all())


def test_pruned_weights_get_no_gradient(make_net, images):
    net = make_net("random_prune")
    net.train()
    net.begin_step(TrainStep(), torch.Generator())
    net(images[0]).square().sum().backward()
    assert not net.model.fc.weight.grad[net.method.pruned("fc.weight")].any()


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_pruning_at_that_fraction_removes_exactly_what_was_masked(make_net, targets, fraction: float):
    """Also where a weight that stays is exactly zero by chance."""
    net = make_net("random_prune", fraction=fraction)
    with torch.no_grad():
        net.model.fc.weight[:, 0] = 0.0
    params = net.parameters_by_name()
    masks = weight_masks(params, targets.weights, scores=net.method.scores(params), fraction=fraction)
    assert all(torch.equal(~masks[slot.parameter], net.method.pruned(slot.parameter)) for slot in targets.weights)

    net = make_net("random_prune", "unit", fraction=fraction)
    params = net.parameters_by_name()
    masks = unit_masks(params, targets.groups, scores=net.method.scores(params), fraction=fraction)
    assert torch.equal(~masks["fc.bias"], net.method.pruned("fc"))
    assert torch.equal(~masks["bn.bias"], net.method.pruned("conv"))


@pytest.mark.parametrize("shares", ["layer", "erk", "global"])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_with_other_shares_too(make_net, targets, granularity: str, shares: str):
    net = make_net("random_prune", granularity, fraction=0.9, shares=shares)
    params = net.parameters_by_name()
    prune, slots = (weight_masks, targets.weights) if granularity == "weight" else (unit_masks, targets.groups)
    masks = prune(params, slots, scores=net.method.scores(params), fraction=0.9, shares=shares)
    deployed = net.method.deployed(params)
    assert all(torch.equal(deployed[name], params[name] * mask) for name, mask in masks.items())


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fractions_out_of_range_are_refused(fraction: float):
    with pytest.raises(ValueError, match=r"^fraction: "):
        RandomPruneSettings(fraction=fraction)
