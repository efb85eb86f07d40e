"""A network that stops being finite ends its training; nothing of it is saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tdcompress.errors import TrainingError
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Targets
from tdcompress.train import checkpoint
from tdcompress.train.finite import FiniteWatch
from tdcompress.train.loop import TrainingProgress


def infinite_at(net: SparseNet, step: int, name: str, value: float = float("inf")):
    """A progress function that spoils a tensor after some step, as an overflow does."""
    tensor = dict((*net.named_parameters(), *net.named_buffers()))[name]

    def spoil(now: TrainingProgress) -> None:
        if now.step == step:
            with torch.no_grad():
                tensor.view(-1)[0] = value

    return spoil


@pytest.mark.parametrize("path", ["reference", "fast"])
def test_a_running_variance_that_overflows_ends_the_training_with_its_layer(small, tmp_path: Path, path: str) -> None:
    """Its inputs are divided by their own deviation, so that the loss stays finite; the statistics of evaluation do not."""
    net = small.conv_net(dropout=0.0)
    with torch.no_grad():
        net.model[0].weight.mul_(1e25)
    settings = small.TrainSettings(epochs=3, batch_size=16, optimizer=small.SGD)
    with pytest.raises(TrainingError, match=r"step \d+, epoch 1: 1\.running_var is no longer finite; nothing of it was saved"):
        small.run(tmp_path, net, settings, path=path)
    assert checkpoint.read_newest(tmp_path / "checkpoints", dict[str, Any]) is None
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("step", [7, 18])
def test_what_was_saved_before_stays(small, tmp_path: Path, step: int) -> None:
    net = small.conv_net()
    spoil = infinite_at(net, step, "model.1.running_mean", float("nan"))
    with pytest.raises(TrainingError, match=r"1\.running_mean is no longer finite"):
        small.run(tmp_path, net, progress=spoil, checkpoint_seconds=0.0)
    found = checkpoint.read_newest(tmp_path / "checkpoints", dict[str, Any])
    assert found.step == step - 1
    assert all(bool(tensor.isfinite().all()) for tensor in found.tensors.values() if tensor.is_floating_point())


def test_a_parameter_after_the_last_step(small, tmp_path: Path) -> None:
    net = small.conv_net()
    with pytest.raises(TrainingError, match=r"step 18, epoch 3: 6\.bias is no longer finite"):
        small.run(tmp_path, net, progress=infinite_at(net, 18, "model.6.bias"))


def test_what_was_never_finite_is_not_looked_at() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
    model.register_buffer("scale", torch.ones(2))
    net = SparseNet(model, Method(Targets(weights=())))
    watch = FiniteWatch(net)
    watch.check("step 1")
    model.scale[1] = float("nan")
    with pytest.raises(TrainingError, match=r"step 2: scale is no longer finite"):
        watch.check("step 2")
    FiniteWatch(nn.Flatten()).check("step 1")
