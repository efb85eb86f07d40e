"""Shares and schedules for a training loop of one's own."""

import re
from typing import Any

import pytest
import torch
from torch import nn

import tdcompress as tdc
from tdcompress.errors import ArgumentError, UserError


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 4, 3))
    for index, parameter in enumerate(model.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    return model


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(16, 2, 6, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


@pytest.mark.parametrize(("granularity", "shares"), [("weight", "erk"), ("weight", "global"), ("unit", "global")])
def test_a_loop_of_ones_own_freezes_and_pruning_changes_nothing_afterwards(granularity: str, shares: str) -> None:
    pixels, labels = images()
    cubic = tdc.Cubic(epochs=10)
    net = tdc.TargetedDropout(
        network(), granularity=granularity, gamma=0.6, alpha=0.5, schedule=cubic, shares=shares, example_inputs=pixels[:2]
    )  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01)
    net.train()
    frozen = []
    for epoch in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(pixels), labels).backward()
        optimizer.step()
        net.step(epoch + 1, optimizer)
        if cubic.frozen(epoch + 1):
            frozen.append({name: mask.clone() for name, mask in net.method.dropped().items()})
    assert len(frozen) == 4
    assert all(torch.equal(each[name], frozen[0][name]) for each in frozen for name in each)
    before = {name: value.clone() for name, value in net.plain().state_dict().items()}
    masks = tdc.prune(net, granularity=granularity, fraction=0.6, shares=shares, example_inputs=pixels[:2])  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in net.plain().state_dict().items())
    assert sum(int((~mask).sum()) for mask in masks.values()) > 50


def test_a_schedule_needs_the_epoch_and_a_freeze_the_optimizer() -> None:
    net = tdc.TargetedDropout(network(), gamma=0.5, schedule=tdc.Cubic(epochs=10))
    with pytest.raises(UserError, match="needs to know the epoch"):
        net.step()
    net.step(3.0)
    with pytest.raises(UserError, match=r"net\.step\(epoch, optimizer\)"):
        net.step(7.0)
    tdc.TargetedDropout(network(), gamma=0.5).step()  # a constant one needs nothing


OF_FILTERS = 'shares: "filter" is a share of the weights of each filter; units have "layer", "erk" or "global"'
BY_COUNT = "shares: they split {}; keep_per_filter says how many weights of each filter stay"
NOTHING = 'shares: "2:4" prunes two of every four; there is nothing to split'
TWO = 'keep_per_filter: "2:4" keeps two of every four; give {} = 0.5'
OF_WEIGHTS = 'keep_per_filter: it counts weights of a filter; with granularity = "unit" give {}'
QUARTER = '{}: 0.25 is no share that "2:4" can give: two of four are 0.5, or 0 = nothing'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"share": 0.5, "granularity": "unit", "shares": "filter"}, OF_FILTERS),
        ({"keep_per_filter": 2, "shares": "erk"}, BY_COUNT),
        ({"keep_per_filter": 2, "shares": "filter"}, BY_COUNT),
        ({"share": 0.5, "granularity": "2:4", "shares": "filter"}, NOTHING),
        ({"share": 0.5, "granularity": "2:4", "shares": "global"}, NOTHING),
        ({"keep_per_filter": 2, "granularity": "2:4"}, TWO),
        ({"keep_per_filter": 2, "granularity": "unit"}, OF_WEIGHTS),
        ({"share": 0.25, "granularity": "2:4"}, QUARTER),
    ],
)
def test_training_and_pruning_refuse_the_same_by_the_arguments_name(arguments: dict[str, Any], said: str) -> None:
    example = {"example_inputs": images()[0]} if arguments.get("granularity") == "unit" else {}
    for function, share in ((tdc.prune, "fraction"), (tdc.TargetedDropout, "gamma")):
        given = {share if name == "share" else name: value for name, value in arguments.items()}
        split = "a fraction" if said is BY_COUNT and share == "fraction" else share
        with pytest.raises(ArgumentError) as raised:
            function(network(), **given, **example)  # type: ignore[operator]
        assert str(raised.value) == said.format(split)


@pytest.mark.parametrize("arguments", [{"granularity": "unit"}, {"granularity": "2:4"}, {"shares": "layer"}])
def test_where_nothing_else_fits_the_fraction_is_asked_for(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as raised:
        tdc.prune(network(), **arguments)
    assert str(raised.value) == "fraction: give fraction, the share that is pruned"
    with pytest.raises(ArgumentError, match=r"^fraction: give .*, or keep_per_filter, the weights of each filter that stay$"):
        tdc.prune(network())


@pytest.mark.parametrize("granularity", ["2:4", "1x4"])
def test_patterns_for_a_loop_of_ones_own(granularity: str) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    net = tdc.TargetedDropout(model, granularity=granularity, gamma=0.5, alpha=1.0)  # type: ignore[arg-type]
    dropped = {name: mask.clone() for name, mask in net.method.dropped().items()}
    masks = tdc.prune(net, granularity=granularity, fraction=0.5)  # type: ignore[arg-type]
    assert masks.keys() == {"0.weight", "2.weight"}
    assert all(torch.equal(~mask, dropped[name]) for name, mask in masks.items())
    assert all(int(mask.sum()) == mask.numel() // 2 for mask in masks.values())
    with pytest.raises(ValueError, match="granularity has to be 'weight', 'unit', '2:4' or '1x4', and is '4:2'"):
        tdc.prune(model, granularity="4:2", fraction=0.5)  # type: ignore[arg-type]


def test_neighbouring_seeds_do_not_draw_the_same_masks_one_step_apart() -> None:
    def drawn(seed: int) -> list[torch.Tensor]:
        net = tdc.TargetedDropout(network(), gamma=0.9, alpha=0.5, seed=seed)
        masks = []
        for epoch in range(3):
            net.step(float(epoch))
            masks.append(torch.cat([value.flatten() == 0 for value in net.method.effective(net.parameters_by_name()).values()]))
        return masks

    first, second = drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(0), strict=True))
    assert not any(torch.equal(a, b) for a in first for b in second)


@pytest.mark.parametrize("shares", ["filter", "layer", "erk", "global"])
@pytest.mark.parametrize("granularity", ["weight", "1x4"])
def test_a_fraction_of_one_leaves_one_weight_of_each_filter(granularity: str, shares: str) -> None:
    options = {"granularity": granularity, "shares": shares}
    largest = [layer.weight.detach().flatten(1).abs().argmax(1) for layer in (network()[0], network()[2])]
    net = tdc.TargetedDropout(network(), gamma=1.0, alpha=1.0, **options)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"^fraction = 1\.0: .* were to be pruned, .* stays$"):
        masks = tdc.prune(network(), fraction=1.0, **options)  # type: ignore[arg-type]
    for name, index in zip(("0.weight", "2.weight"), largest, strict=True):
        assert torch.equal(~net.method.dropped()[name], masks[name])
        assert masks[name].flatten(1).sum(1).tolist() == [1] * len(index)
        if granularity == "weight":
            assert masks[name].flatten(1).int().argmax(1).tolist() == index.tolist()


def test_a_share_that_cannot_go_is_told_where_it_was_asked_for() -> None:
    said = "fraction = 0.99: 427 of 432 weights were to be pruned, and 420 are (97.22%): one weight of each filter stays"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$") as told:
        masks = tdc.prune(network(), fraction=0.99, shares="global")
    assert [each.filename for each in told] == [__file__]
    assert sum(int((~mask).sum()) for mask in masks.values()) == 420
    said = "fraction = 0.95: 11 of 12 units were to be pruned, and 10 are (83.33%): one unit of each layer stays"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        tdc.prune(network(), granularity="unit", fraction=0.95, shares="global", example_inputs=images()[0])
    tdc.prune(network(), fraction=0.9, shares="global")  # a warning would be an error here
