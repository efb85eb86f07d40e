"""Random pruning before training (section 6): the control that asks whether any subnetwork would do."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tdcompress.methods.base import Granularity, Method, MethodSettings, Parameters
from tdcompress.methods.gates import state_generator, state_name, without
from tdcompress.sparsity.reach import reach_of
from tdcompress.sparsity.scores import unit_extents, unit_scores, weight_extents
from tdcompress.sparsity.select import lowest_units, lowest_weights
from tdcompress.sparsity.shares import selected_counts, unit_counts
from tdcompress.sparsity.units import Targets


class RandomPrune(Method):
    """A share of the weights, or units, is zero from the first step to deployment; split as the settings' ``shares`` say.

    Args:
        targets: what is pruned.
        model: the network.
        settings: the recipe's [sparsity].
        seed: of the choice.
    """

    def __init__(self, targets: Targets, model: nn.Module, settings: "RandomPruneSettings", seed: int) -> None:
        super().__init__(targets)
        self.granularity: Granularity = settings.granularity
        params = dict(model.named_parameters())
        device = params[targets.weights[0].parameter].device
        generator = state_generator(seed)
        if self.granularity == "weight":
            orders = {s.parameter: torch.rand(params[s.parameter].shape, generator=generator) for s in targets.weights}
            extents = weight_extents(params, targets.weights)
            pruned = lowest_weights(orders, targets.weights, selected_counts(extents, settings.fraction, settings.split))
        else:
            orders = {group.name: torch.rand(group.size, generator=generator) for group in targets.groups}
            extents = unit_extents(params, targets.groups)
            pruned = lowest_units(orders, unit_counts(extents, settings.fraction, settings.split))
        self.settings, self.extents = settings, extents
        self.names = tuple(pruned)
        for name, entries in pruned.items():
            self.register_buffer(state_name("pruned", name), entries.contiguous().to(device))

    def unreached(self) -> str | None:  # noqa: D102
        fraction, shares = self.settings.fraction, self.settings.split
        said = str(reach_of(self.extents, self.granularity, fraction=fraction, shares=shares))
        return f'fraction = {fraction:g}, shares = "{shares}": {said}' if said else None

    def pruned(self, name: str) -> Tensor:
        """True = pruned before training; of a parameter's shape, or (O,) for a group."""
        return self.held(state_name("pruned", name))

    def effective(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return without(params, self.targets, self.granularity, {name: self.pruned(name) for name in self.names})

    def deployed(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return self.effective(params)

    def scores(self, params: Parameters) -> dict[str, Tensor]:
        """Magnitude, with what is pruned already below everything: the same fraction removes exactly that."""
        if self.granularity == "weight":
            magnitudes = {name: params[name].detach().abs() for name in self.names}
        else:
            magnitudes = {group.name: unit_scores(params, group) for group in self.targets.groups}
        return {name: magnitude.masked_fill(self.pruned(name), -1.0) for name, magnitude in magnitudes.items()}


@dataclass(frozen=True, kw_only=True)
class RandomPruneSettings(MethodSettings):
    """``method = "random_prune"``; prune afterwards at the same fraction.

    Attributes:
        fraction: the share that is pruned before training.
    """

    name: ClassVar[str] = "random_prune"
    splits: ClassVar[bool] = True
    fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction < 1:
            raise ValueError(f"fraction: {self.fraction} is not in 0 <= fraction < 1")

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return RandomPrune(targets, model, self, seed)
