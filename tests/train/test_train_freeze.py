"""Masks that are frozen for the last part of a training: the same in every step, exact zeros, and exact on resume."""

import signal
from pathlib import Path

import pytest
import torch

from tdcompress.errors import InterruptedRun
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.masks import unit_masks, weight_masks
from tdcompress.sparsity.units import Slot, Targets, UnitGroup
from tdcompress.train.loop import TrainingProgress, TrainSettings
from tdcompress.train.optim import OptimizerSettings

UNITS = UnitGroup(
    name="0", size=6, filters=(Slot(parameter="0.weight"),), tied=(Slot(parameter="1.weight"), Slot(parameter="1.bias"))
)
TARGETS = Targets(weights=(Slot(parameter="0.weight"), Slot(parameter="6.weight")), groups=(UNITS,))
CASES = [
    ("weight", "filter", "sgd"),
    ("weight", "layer", "adam"),
    ("weight", "erk", "adamw"),
    ("weight", "global", "sgd"),
    ("unit", "layer", "sgd"),
    ("unit", "global", "adam"),
]


def net_of(small, granularity: str, shares: str, seed: int = 0) -> SparseNet:
    model = small.conv_net(seed).model
    settings = TargetedSettings(granularity=granularity, shares=shares, gamma=0.5, alpha=0.7, schedule="cubic")  # type: ignore[arg-type]
    method = settings.for_training(4).build(TARGETS, model)
    return SparseNet(model, method)


def training(optimizer: str) -> TrainSettings:
    momentum = 0.9 if optimizer == "sgd" else None
    chosen = OptimizerSettings(name=optimizer, lr=0.05, momentum=momentum, weight_decay=0.01)  # type: ignore[arg-type]
    return TrainSettings(epochs=4, batch_size=16, optimizer=chosen, l2=0.01, clip_norm=1.0)


@pytest.mark.parametrize(("granularity", "shares", "optimizer"), CASES)
def test_from_the_freeze_on_masks_are_the_same_and_zeros_stay(small, tmp_path: Path, granularity, shares, optimizer) -> None:
    net = net_of(small, granularity, shares)
    seen: list[dict[str, torch.Tensor]] = []

    def look(now: TrainingProgress) -> None:
        if net.method.frozen((now.step - 1) / 6):  # this step began frozen
            dropped = {name: each.clone() for name, each in net.method.dropped().items()}
            for name, param in net.parameters_by_name().items():
                if name in dropped:
                    assert bool(((param == 0) == dropped[name].expand_as(param)).all())
            seen.append(dropped)

    small.run(tmp_path, net, training(optimizer), progress=look)
    assert len(seen) == 7  # of 24 steps, from 16.8 on
    assert all(torch.equal(each[name], seen[0][name]) for each in seen for name in seen[0])
    params = {name: value.detach() for name, value in net.parameters_by_name().items()}
    if granularity == "weight":
        masks = weight_masks(params, TARGETS.weights, fraction=0.5, shares=shares)
    else:
        masks = unit_masks(params, TARGETS.groups, fraction=0.5, shares=shares)
    for name, mask in masks.items():
        assert torch.equal(mask, params[name] != 0)  # pruning changes nothing any more
        assert not torch.signbit(params[name][~mask]).any()


@pytest.mark.parametrize(("granularity", "shares", "optimizer"), [CASES[3], CASES[4], CASES[1]])
@pytest.mark.parametrize("steps", [15, 20])
def test_stopped_before_and_inside_the_freeze_it_resumes_exactly(
    small, tmp_path: Path, granularity, shares, optimizer, steps: int
) -> None:
    whole, resumed = net_of(small, granularity, shares), net_of(small, granularity, shares, seed=3)
    small.run(tmp_path / "whole", whole, training(optimizer))
    remaining = iter([None] * steps + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        small.run(
            tmp_path / "parts", net_of(small, granularity, shares), training(optimizer), should_stop=lambda: next(remaining)
        )
    assert small.run(tmp_path / "parts", resumed, training(optimizer)).resumed_from_step > 10
    assert small.same_bits(whole, resumed)
    assert small.timeless(tmp_path / "whole") == small.timeless(tmp_path / "parts")


def test_the_metrics_say_that_every_candidate_is_dropped(small, tmp_path: Path) -> None:
    result = small.run(tmp_path, net_of(small, "weight", "filter"), training("sgd"))
    assert [line["gamma"] for line in result.history][2:] == [0.5, 0.5]
    assert result.history[-1]["alpha"] == 1.0
    assert 0 < result.history[0]["alpha"] < 0.7
