"""Distillation: the published loss, one step by hand, both paths, micro-batches, and resume with the teacher it began with."""

import dataclasses
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tdcompress.errors import ArtifactError, InterruptedRun
from tdcompress.train.distill import DistillSettings, Teacher, distillation_loss
from tdcompress.train.loop import TrainSettings, train
from tdcompress.train.optim import OptimizerSettings


def teacher(small, seed: int = 7, **settings: float) -> Teacher:
    return Teacher(small.conv_net(seed).model, DistillSettings(**settings))


def logits(seed: int, rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_the_loss_is_the_softened_divergence_times_the_squared_temperature() -> None:
    ours, theirs = logits(0), logits(1)
    p, q = torch.softmax(theirs / 2.5, 1), torch.softmax(ours / 2.5, 1)
    expected = 2.5**2 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(distillation_loss(ours, theirs, 2.5), expected)
    assert float(distillation_loss(theirs, theirs, 2.5)) == pytest.approx(0.0, abs=1e-12)


def test_its_gradient_is_that_of_the_published_cross_entropy() -> None:
    """Equation 2 of the paper: T (q - p) for each sample, with T^2 counted in."""
    ours = logits(0).requires_grad_()
    (found,) = torch.autograd.grad(distillation_loss(ours, logits(1), 4.0), ours)
    apart = torch.softmax(ours.detach() / 4.0, 1) - torch.softmax(logits(1) / 4.0, 1)
    torch.testing.assert_close(found, 4.0 * apart / len(ours))


def test_a_teacher_is_evaluated_and_never_changes(small, tmp_path: Path) -> None:
    asked = teacher(small, temperature=4.0, weight=0.7)
    before = {name: value.clone() for name, value in asked.state_dict().items()}
    small.run(tmp_path, teacher=asked)
    assert not any(module.training for module in asked.model.modules())
    assert all(torch.equal(before[name], value) for name, value in asked.state_dict().items())
    images, hard = torch.randn(4, 1, 8, 8), torch.tensor(2.0)
    said = asked.model(images)
    loss = asked.mixed(hard, torch.zeros(4, 2), asked.outputs((images,), "float32"))
    torch.testing.assert_close(loss, 0.3 * hard + 0.7 * distillation_loss(torch.zeros(4, 2), said, 4.0))


def test_one_step_by_hand(small, tmp_path: Path) -> None:
    net, asked = small.linear_net(), teacher(small, temperature=3.0, weight=0.6)
    data = dataclasses.replace(small.images(16), augment=None)
    weight = net.model[1].weight.detach().double().clone().requires_grad_()  # type: ignore[operator]
    bias = net.model[1].bias.detach().double().clone().requires_grad_()  # type: ignore[operator]
    x = data.preprocess(data.pixels)
    ours = F.linear(x.flatten(1).double(), weight, bias)
    hard = F.cross_entropy(ours, data.labels)
    with torch.no_grad():
        theirs = asked.model(x).double()
    loss = 0.4 * hard + 0.6 * distillation_loss(ours, theirs, 3.0)
    expected = [p - 0.05 * g for p, g in zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True)]

    settings = TrainSettings(batch_size=16, optimizer=OptimizerSettings(lr=0.05))
    result = train(net, data, data, settings, seed=0, device=small.CPU, folder=tmp_path, teacher=asked)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for parameter, value in zip(net.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value.detach(), rtol=1e-5, atol=1e-6)


def test_micro_batches_and_the_fast_path_give_the_same_training(small, tmp_path: Path) -> None:
    nets = []
    for name, more in (("plain", {}), ("parts", {"accumulate": 4}), ("fast", {})):
        net = small.linear_net()
        settings = dataclasses.replace(small.SETTINGS, **more)
        data = {"path": "fast" if name == "fast" else "reference"}
        small.run(tmp_path / name, net, settings, teacher=teacher(small), **data)
        nets.append(net)
    for other in nets[1:]:
        torch.testing.assert_close(other.state_dict(), nets[0].state_dict(), rtol=1e-4, atol=1e-5)
    alone = small.linear_net()
    small.run(tmp_path / "alone", alone)
    assert not small.same_bits(alone, nets[0])


def test_it_resumes_exactly_and_with_no_other_teacher(small, tmp_path: Path) -> None:
    nets = [small.conv_net(), small.conv_net(3)]
    small.run(tmp_path / "whole", nets[0], teacher=teacher(small))
    remaining = iter([None] * 8 + [signal.SIGINT])
    with pytest.raises(InterruptedRun):
        small.run(tmp_path / "parts", teacher=teacher(small), should_stop=lambda: next(remaining))
    for other in (teacher(small, seed=8), teacher(small, weight=0.5), None):
        with pytest.raises(ArtifactError, match="another training"):
            small.run(tmp_path / "parts", teacher=other)
    small.run(tmp_path / "parts", nets[1], teacher=teacher(small))
    assert small.same_bits(*nets)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"temperature": 0.0}, "temperature: 0.0 is out of range"),
        ({"temperature": 1e30}, r"temperature: 1e\+30 is out of range"),
        ({"temperature": float("nan")}, "temperature: nan is out of range"),
        ({"weight": 0.0}, "weight: 0.0 is out of range"),
        ({"weight": 1.1}, "weight: 1.1 is out of range"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillSettings(**keys)


@pytest.mark.parametrize("temperature", [1e-3, 1e4])
def test_at_the_ends_of_the_range_the_gradient_is_that_of_float64(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, taught = 4 * torch.randn(2, 64, 10, generator=generator)
    single, double = student.requires_grad_(), student.detach().double().requires_grad_()
    distillation_loss(single, taught, temperature).backward()
    distillation_loss(double, taught.double(), temperature).backward()
    assert (single.grad - double.grad).norm() < 0.02 * double.grad.norm()


def test_a_teacher_of_other_weights_has_another_digest() -> None:
    model = nn.Linear(2, 2)
    first = Teacher(model, DistillSettings()).digest()
    assert first == Teacher(model, DistillSettings()).digest()
    with torch.no_grad():
        model.bias.add_(1.0)
    assert Teacher(model, DistillSettings()).digest() != first
