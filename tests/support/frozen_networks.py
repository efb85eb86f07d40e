"""A small network, steps of its training, and the entries of its parameters that masks prune."""

import torch
from torch import Tensor, nn


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 3),
        )


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 2, 4, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def loss_of(model: nn.Module, seed: int) -> Tensor:
    pixels, labels = batch(seed)
    return nn.functional.cross_entropy(model(pixels), labels)


def held(model: nn.Module, masks: dict[str, Tensor]) -> Tensor:
    parameters = dict(model.named_parameters())
    return torch.cat([parameters[name].detach()[~mask.expand_as(parameters[name])] for name, mask in masks.items()])


def zero_bits(values: Tensor) -> bool:
    """+0 everywhere, not -0."""
    return torch.equal(values.view(torch.int32), torch.zeros_like(values).view(torch.int32))


def trained_on(model: nn.Module, steps: int = 2) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for seed in range(steps):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
    return model
