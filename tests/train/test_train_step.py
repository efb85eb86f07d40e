"""One step inside a training: by hand, in micro-batches, in bfloat16, and when its numbers or the memory are not enough."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tdcompress.errors import TrainingError
from tdcompress.methods.base import Method
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Targets
from tdcompress.tasks.images import TrainData
from tdcompress.train.loop import TrainingProgress, TrainSettings, train
from tdcompress.train.step import seed_global_generators


def test_one_step_by_hand(small, tmp_path: Path) -> None:
    """Nesterov, L2 before clipping, against the formulas written out."""
    data = small.images(16)
    net = small.linear_net()
    weight, bias = (p.detach().clone().double() for p in net.model.parameters())
    settings = TrainSettings(epochs=1, batch_size=16, optimizer=small.SGD, l2=0.3, clip_norm=0.7)
    plain = TrainData(pixels=data.pixels, labels=data.labels, preprocess=small.Standardise())
    train(net, plain, plain, settings, seed=0, device=small.CPU, folder=tmp_path)

    x = small.Standardise()(data.pixels).flatten(1).double()
    share = torch.softmax(x @ weight.T + bias, 1) - nn.functional.one_hot(data.labels, 2)
    grads = [share.T @ x / 16 + 0.3 * weight, share.mean(0) + 0.3 * bias]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    assert norm > 0.7
    for parameter, start, grad in zip(net.model.parameters(), (weight, bias), grads, strict=True):
        clipped = grad * 0.7 / norm
        expected = start - 0.05 * (clipped + 0.9 * clipped)  # nesterov: grad + momentum * buffer, buffer = grad
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_micro_batches_give_the_same_training(small, tmp_path: Path) -> None:
    nets = []
    for accumulate in (1, 2, 8):
        net = small.linear_net()
        settings = TrainSettings(epochs=3, batch_size=16, optimizer=small.SGD, accumulate=accumulate, l2=1e-3, clip_norm=0.5)
        small.run(tmp_path / str(accumulate), net, settings)
        nets.append(net)
    for other in nets[1:]:
        torch.testing.assert_close(other.state_dict(), nets[0].state_dict(), rtol=1e-4, atol=1e-6)
    losses = [[line["loss"] for line in small.timeless(tmp_path / str(a))] for a in (1, 2, 8)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_masks_are_drawn_once_a_step_whatever_the_micro_batches(small, tmp_path: Path) -> None:
    net = small.conv_net()
    drawn: list[float] = []
    begin = net.method.begin_step

    def counted(params: object, step: object, generator: object) -> None:
        drawn.append(step.share)  # type: ignore[attr-defined]
        begin(params, step, generator)  # type: ignore[arg-type]

    net.method.begin_step = counted  # type: ignore[method-assign, assignment]
    small.run(tmp_path, net, TrainSettings(epochs=1, batch_size=16, optimizer=small.SGD, accumulate=4))
    assert drawn == pytest.approx([index / 6 for index in range(6)])


def test_what_a_network_draws_on_the_host_follows_from_the_seed_also_where_it_computes_on_a_gpu(monkeypatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    with torch.random.fork_rng(devices=[]):
        for kind, on_gpu in (("cpu", []), ("cuda", [7])):
            seed_global_generators(7, torch.device(kind))
            assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(7)))
            assert seeded == on_gpu


def test_bfloat16_trains_float32_weights(small, tmp_path: Path) -> None:
    net = small.conv_net(dropout=0.0)
    settings = TrainSettings(epochs=6, batch_size=16, optimizer=small.SGD, precision="bfloat16")
    assert small.run(tmp_path, net, settings).test_accuracy == 1.0
    assert {p.dtype for p in net.parameters()} == {torch.float32}


class Explodes(nn.Module):
    """Its output is finite but its gradient is not: sqrt at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)) + self.scale.sqrt()


def test_a_gradient_that_is_not_finite_stops_before_the_update(small, tmp_path: Path) -> None:
    net = SparseNet(Explodes(), Method(Targets(weights=())))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(TrainingError, match=r"step 1 \(epoch 1\): the gradient of model\.scale is not finite"):
        small.run(tmp_path, net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_loss_that_is_not_finite_names_its_step(small, tmp_path: Path) -> None:
    net = small.linear_net()
    poisoned = 8

    def poison(progress: TrainingProgress) -> None:
        if progress.step == poisoned:
            net.model[1].bias.data[0] = float("nan")  # type: ignore[index, union-attr]

    with pytest.raises(TrainingError, match=r"step 9 \(epoch 2\): the loss is nan; the update was not made"):
        small.run(tmp_path, net, progress=poison)
    assert torch.isfinite(net.model[1].weight).all()  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            {"batch_size": 16, "accumulate": 16},
            "train.batch_size = 16, in 16 parts (train.accumulate = 16) leaves a BatchNorm one",
        ),
        (
            {"batch_size": 1},
            "train.batch_size = 1 leaves a BatchNorm one value of each channel, which it cannot normalise by: raise",
        ),
    ],
)
def test_a_batch_of_one_value_of_each_channel_says_what_to_change(small, tmp_path: Path, sizes, said: str) -> None:
    net = SparseNet(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2)), Method(Targets(weights=())))
    with pytest.raises(TrainingError, match=re.escape(said)):
        small.run(tmp_path, net, TrainSettings(**sizes))


def test_batchnorm_takes_the_statistics_of_each_micro_batch(small, tmp_path: Path) -> None:
    means = []
    for accumulate in (1, 2):
        norm = nn.BatchNorm1d(64, momentum=None)
        net = SparseNet(nn.Sequential(nn.Flatten(), norm, nn.Linear(64, 2)), Method(Targets(weights=())))
        small.run(tmp_path / str(accumulate), net, TrainSettings(batch_size=16, accumulate=accumulate))
        assert int(norm.num_batches_tracked) == 6 * accumulate
        means.append((norm.running_mean, norm.running_var))
    torch.testing.assert_close(means[0][0], means[1][0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(means[0][1], means[1][1], rtol=1e-2)  # the micro-batches' means differ too


def test_no_memory_names_the_batch_size(small, tmp_path: Path) -> None:
    class Huge(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.empty(1 << 60, dtype=torch.uint8)
            raise AssertionError("that fitted")

    net = SparseNet(Huge(64, 2), Method(Targets(weights=())))
    with pytest.raises(TrainingError, match=r"train\.batch_size = 16"):
        small.run(tmp_path, net)
