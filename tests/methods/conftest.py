"""A network with every kind of matrix that methods touch, its units, and a short training."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tdcompress.methods.base import MethodSettings, TrainStep
from tdcompress.methods.registry import METHODS
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets, UnitGroup, prunable_weights

NEEDED = {"targeted": {"gamma": 0.5}, "random_prune": {"fraction": 0.5}, "l1": {"l1": 0.1}}


class Toy(nn.Module):
    """Convolution, BatchNorm, transposed convolution, two linear layers; 3 x 6 x 6 images, 3 classes."""

    unprunable = ("head",)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.fc = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.relu(self.up(x)).mean((2, 3))
        return self.head(torch.relu(self.fc(x)))


GROUPS = (
    UnitGroup(
        name="conv",
        size=6,
        filters=(Slot(parameter="conv.weight"),),
        tied=(Slot(parameter="conv.bias"), Slot(parameter="bn.weight"), Slot(parameter="bn.bias")),
    ),
    UnitGroup(name="up", size=4, filters=(Slot(parameter="up.weight", axis=1),), tied=(Slot(parameter="up.bias"),)),
    UnitGroup(name="fc", size=8, filters=(Slot(parameter="fc.weight"),), tied=(Slot(parameter="fc.bias"),)),
)


def toy(seed: int = 0) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Toy()


@pytest.fixture
def toy_network() -> Callable[..., Toy]:
    return toy


@pytest.fixture
def targets() -> Targets:
    return Targets(weights=prunable_weights(toy()), groups=GROUPS)


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., MethodSettings]:
    """A method's settings by name, with values for the keys that have no default."""

    def make(name: str, granularity: str = "weight", **options: object) -> MethodSettings:
        return METHODS[name](granularity=granularity, **(NEEDED.get(name, {}) | options))

    return make


@pytest.fixture
def make_net(targets: Targets, make_settings) -> Callable[..., SparseNet]:
    def make(name: str, granularity: str = "weight", *, seed: int = 0, **options: object) -> SparseNet:
        model = toy()
        settings = make_settings(name, granularity, **options)
        return SparseNet(model, settings.build(targets, model, seed), l1=settings.l1)

    return make


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(12, 3, 6, 6, generator=generator), torch.randint(0, 3, (12,), generator=generator)


@pytest.fixture
def check_gradients() -> Callable[..., int]:
    """Compare every few entries of gradients with central differences, in float64; returns how many."""

    def check(
        loss: Callable[[], torch.Tensor], parameters: dict[str, torch.Tensor], *, every: int = 7, step: float = 1e-6
    ) -> int:
        slopes = torch.autograd.grad(loss(), list(parameters.values()))
        checked = 0
        for (name, parameter), slope in zip(parameters.items(), slopes, strict=True):
            entries = parameter.data.view(-1)
            for index in range(0, len(entries), every):
                value, ends = float(entries[index]), []
                for shifted in (value + step, value - step):
                    entries[index] = shifted
                    ends.append(float(loss().detach()))
                entries[index] = value
                difference = (ends[0] - ends[1]) / (2 * step)
                assert float(slope.view(-1)[index]) == pytest.approx(difference, rel=1e-5, abs=1e-7), (name, index)
                checked += 1
        return checked

    return check


@pytest.fixture
def run_steps(images) -> Callable[..., list[float]]:
    """Optimizer steps as the training loop makes them; returns the losses."""

    def run(net: SparseNet, optimizer: torch.optim.Optimizer, generator: torch.Generator, steps: range, bf16: bool = False):
        pixels, labels = images
        losses = []
        net.train()
        for index in steps:
            net.begin_step(TrainStep(epoch=index / 4, share=min(1.0, index / 8), train_size=12), generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = net(pixels).float()
            loss, penalty = nn.functional.cross_entropy(logits, labels), net.penalty()
            total = loss if penalty is None else loss + penalty
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            net.end_step()
            losses.append(float(total.detach()))
        return losses

    return run
