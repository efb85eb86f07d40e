"""Helpers shared by the tests of shrinking."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from tdcompress.sparsity.units import UnitGroup

Prune = Callable[..., None]


@pytest.fixture
def settle() -> Callable[[nn.Module], nn.Module]:
    """Give every normalisation statistics and an affine far from 0 and 1, so that constants matter."""

    def apply(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
                module.weight.data = torch.rand(module.weight.shape, generator=generator) + 0.5
                module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.3
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        return model

    return apply


@pytest.fixture
def prune() -> Prune:
    """Set a random share of each group's units to zero, in filters and tied parameters alike; never all of them."""

    def apply(model: nn.Module, groups: Sequence[UnitGroup], fraction: float = 0.4, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        parameters = dict(model.named_parameters())
        for group in groups:
            count = min(int(fraction * group.size), group.size - 1)
            units = torch.randperm(group.size, generator=generator)[:count].tolist()
            for slot in (*group.filters, *group.tied):
                own = [i for u in units for i in ((u,) if slot.positions is None else slot.positions[u])]
                with torch.no_grad():
                    parameters[slot.parameter].index_fill_(slot.axis, torch.tensor(own, dtype=torch.int64), 0.0)

    return apply
