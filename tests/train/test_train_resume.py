"""A stopped training goes on as if it had not stopped: the same bits for every optimizer and every method."""

import itertools
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from tdcompress.errors import ArtifactError, InterruptedRun
from tdcompress.methods.base import Method
from tdcompress.methods.registry import METHODS
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets, UnitGroup
from tdcompress.train.loop import TrainingProgress, TrainSettings
from tdcompress.train.optim import LrSchedule, OptimizerSettings


def test_a_second_start_of_a_finished_training_does_nothing(small, tmp_path: Path) -> None:
    first, again = small.conv_net(), small.conv_net(seed=9)
    small.run(tmp_path, first)
    (tmp_path / ".metrics.jsonl.ab12.tmp").write_text("what a killed run leaves")
    seen: list[TrainingProgress] = []
    result = small.run(tmp_path, again, progress=seen.append)
    assert result.resumed_from_step == result.steps == 18
    assert not seen
    assert small.same_bits(first, again)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoints", "metrics.jsonl"]


def test_stopped_between_any_two_steps_or_in_an_evaluation_it_ends_with_the_same_bits(small, tmp_path: Path) -> None:
    whole = small.conv_net()
    small.run(tmp_path / "whole", whole)
    # should_stop is asked before each step, at each epoch's end and before each batch of its evaluation: every 4th stops
    folder, starts, net, finished = tmp_path / "parts", 0, small.conv_net(), False
    while not finished:
        answers = iter([None, None, None, signal.SIGTERM])
        net = small.conv_net(seed=starts)  # what a later start begins with must not matter: there is a checkpoint
        starts += 1
        try:
            small.run(folder, net, should_stop=lambda answers=answers: next(answers))
            finished = True
        except InterruptedRun:
            finished = False
    assert starts > 5
    assert small.same_bits(whole, net)
    assert small.timeless(tmp_path / "whole") == small.timeless(folder)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimizer_resumes_exactly(small, tmp_path: Path, name: str) -> None:
    settings = TrainSettings(
        epochs=2,
        batch_size=16,
        optimizer=OptimizerSettings(name=name, weight_decay=1e-2),  # type: ignore[arg-type]
        lr_schedule=LrSchedule(name="cosine", warmup_epochs=0.5),
        accumulate=2,
    )
    nets = [small.conv_net(), small.conv_net()]
    small.run(tmp_path / "whole", nets[0], settings)
    remaining = iter([None] * 4 + [signal.SIGINT])
    with pytest.raises(InterruptedRun) as stop:
        small.run(tmp_path / "parts", small.conv_net(), settings, should_stop=lambda: next(remaining))
    assert stop.value.exit_code == 130
    small.run(tmp_path / "parts", nets[1], settings)
    assert small.same_bits(*nets)


METHOD_CASES = [
    *((name, granularity, "sgd") for name, granularity in itertools.product(METHODS, ("weight", "unit"))),
    *(("l0", "weight", name) for name in ("adam", "adamw")),
]
OPTIONS = {
    "l1": {"l1": 0.1},
    "l0": {"initial_drop": 0.3, "lr_scale": 50.0},
    "random_prune": {"fraction": 0.5},
    "targeted": {"gamma": 0.5, "schedule": "ramp", "ramp_epochs": (1.0, 1.0)},
    "variational": {"lr_scale": 50.0},
}


def method_net(small, name: str, granularity: str, seed: int) -> SparseNet:
    model = small.conv_net(seed).model
    units = UnitGroup(
        name="0", size=6, filters=(Slot(parameter="0.weight"),), tied=(Slot(parameter="1.weight"), Slot(parameter="1.bias"))
    )
    targets = Targets(weights=(Slot(parameter="0.weight"),), groups=(units,))
    settings = METHODS[name](granularity=granularity, **OPTIONS.get(name, {}))  # type: ignore[arg-type]
    return SparseNet(model, settings.build(targets, model, seed), l1=settings.l1)


@pytest.mark.parametrize(("method", "granularity", "optimizer"), METHOD_CASES)
def test_every_method_resumes_exactly(small, tmp_path: Path, method: str, granularity: str, optimizer: str) -> None:
    momentum = 0.9 if optimizer == "sgd" else None
    settings = TrainSettings(
        epochs=2,
        batch_size=16,
        optimizer=OptimizerSettings(name=optimizer, momentum=momentum),  # type: ignore[arg-type]
        lr_schedule=LrSchedule(name="cosine", warmup_epochs=0.5),
    )
    # the last begins with other weights, gates and masks: the checkpoint has to replace them
    whole, stopped, resumed = (method_net(small, method, granularity, seed) for seed in (0, 0, 3))
    small.run(tmp_path / "whole", whole, settings)
    remaining = iter([None] * 8 + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        small.run(tmp_path / "parts", stopped, settings, should_stop=lambda: next(remaining))
    assert small.run(tmp_path / "parts", resumed, settings).resumed_from_step > 4
    assert small.same_bits(whole, resumed)


@pytest.mark.parametrize("method", METHODS)
def test_the_line_of_an_epoch_tells_of_its_last_step_also_where_that_was_made_before_a_stop(
    small, tmp_path: Path, method: str
) -> None:
    settings = TrainSettings(epochs=2, batch_size=16)
    small.run(tmp_path / "whole", method_net(small, method, "weight", 0), settings)
    remaining = iter([None] * 6 + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        small.run(tmp_path / "parts", method_net(small, method, "weight", 0), settings, should_stop=lambda: next(remaining))
    assert not (tmp_path / "parts" / "metrics.jsonl").exists()
    small.run(tmp_path / "parts", method_net(small, method, "weight", 3), settings)
    assert small.timeless(tmp_path / "parts") == small.timeless(tmp_path / "whole")


def test_memory_order_of_the_weights_does_not_change_the_resumed_bits(small, tmp_path: Path) -> None:
    def channels_last() -> SparseNet:
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
        for index, parameter in enumerate(model.parameters()):
            nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(index))
        return SparseNet(model.to(memory_format=torch.channels_last), Method(Targets(weights=())))

    nets = [channels_last(), channels_last()]
    small.run(tmp_path / "whole", nets[0])
    remaining = iter([None] * 7 + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        small.run(tmp_path / "parts", channels_last(), should_stop=lambda: next(remaining))
    small.run(tmp_path / "parts", nets[1])
    assert small.same_bits(*nets)


def test_a_checkpoint_of_another_training_is_refused(small, tmp_path: Path) -> None:
    small.run(tmp_path)
    with pytest.raises(ArtifactError, match="another training"):
        small.run(tmp_path, settings=TrainSettings(epochs=4, batch_size=16, optimizer=small.SGD))
    net = small.conv_net()
    net.model[0] = nn.Conv2d(1, 6, 5, padding=2, bias=False)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=r"net/model\.0\.weight of shape"):
        small.run(tmp_path, net)
    with pytest.raises(ArtifactError, match="another training"):
        small.run(tmp_path, keep={"6.weight": torch.ones(2, 12, dtype=torch.bool)})
