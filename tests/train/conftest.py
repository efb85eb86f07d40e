"""A training small enough to be run many times: 18 steps of a convolutional network with a method of its own."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tdcompress.methods.base import Method
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.methods.wrapper import SparseNet
from tdcompress.sparsity.units import Slot, Targets
from tdcompress.tasks.images import TrainData
from tdcompress.train.loop import TrainResult, TrainSettings, train
from tdcompress.train.optim import OptimizerSettings

CPU = torch.device("cpu")
SGD = OptimizerSettings(name="sgd", lr=0.05, momentum=0.9, nesterov=True)
SETTINGS = TrainSettings(epochs=3, batch_size=16, optimizer=SGD, l2=1e-3, clip_norm=1.0, label_smoothing=0.1)


@pytest.fixture
def small() -> ModuleType:
    """This module: ``small.run(folder, small.conv_net())``."""
    return sys.modules[__name__]


class Standardise(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def flip(pixels: torch.Tensor, generator: torch.Generator, _mirrored: torch.Tensor | None = None) -> torch.Tensor:
    flipped = torch.rand(len(pixels), generator=generator, device=generator.device) < 0.5
    return torch.where(flipped[:, None, None, None], pixels.flip(2), pixels)


def images(count: int, seed: int = 0) -> TrainData:
    """8 x 8 images of two classes: bright above or bright below, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    pixels = torch.randint(0, 160, (count, 8, 8, 1), generator=generator)
    pixels[:, :4] += 90 * labels[:, None, None, None]
    pixels[:, 4:] += 90 * (1 - labels)[:, None, None, None]
    return TrainData(pixels=pixels.to(torch.uint8), labels=labels, preprocess=Standardise(), augment=flip)


def conv_net(seed: int = 0, dropout: float = 0.25) -> SparseNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(12, 2),
        )
    targets = Targets(weights=(Slot(parameter="0.weight"),))
    return SparseNet(model, TargetedSettings(gamma=0.5, alpha=0.5).build(targets, model))


def linear_net(seed: int = 0) -> SparseNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    return SparseNet(model, Method(Targets(weights=())))


def run(folder: Path, net: SparseNet | None = None, settings: TrainSettings = SETTINGS, **more: object) -> TrainResult:
    """Train on 100 images, test on 40 others; 6 steps an epoch with batches of 16."""
    net = conv_net() if net is None else net
    arguments = {"seed": 5, "device": CPU, "folder": folder, **more}
    return train(net, images(100), images(40, seed=1), settings, **arguments)  # type: ignore[arg-type]


def timeless(folder: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl without the two numbers that tell of time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
