"""Smallify (Leclerc et al. 2018, arXiv 1806.03723): switches that are turned off for good when they cannot keep their sign."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tdcompress.methods.base import Method, Parameters, TrainedMethodSettings, TrainStep
from tdcompress.methods.gates import Gated, shapes, state_generator, state_name
from tdcompress.sparsity.units import Targets


class Smallify(Gated):
    """A trained switch multiplies each weight or unit; L1 draws the switches to zero.

    After every step two exponential averages are brought up to date: of a switch's sign, and of the squared deviation from it. A
    switch whose deviation passes the threshold is fixed at zero. The deviation is from the average before the update, and the
    averages start at the sign and at 0, as in the released code.

    Args:
        targets: what gets switches.
        model: the network.
        settings: the recipe's [sparsity].
        seed: of the first switches.
    """

    def __init__(self, targets: Targets, model: nn.Module, settings: "SmallifySettings", seed: int) -> None:
        super().__init__(targets, settings.granularity)
        self.settings = settings
        self.lr_scale = settings.lr_scale
        params = dict(model.named_parameters())
        like = params[targets.weights[0].parameter]
        gates = shapes(targets, self.granularity, params)
        self.names = tuple(gates)
        generator = state_generator(seed)
        for name, shape in gates.items():
            switch = torch.rand(shape, generator=generator).to(like)
            self.register_parameter(state_name("switch", name), nn.Parameter(switch))
            self.register_buffer(state_name("mean_sign", name), switch.sign())
            self.register_buffer(state_name("deviation", name), torch.zeros_like(switch))
            self.register_buffer(state_name("off", name), torch.zeros_like(switch, dtype=torch.bool))

    def switches(self) -> dict[str, Tensor]:
        """The switches by parameter or group name; exactly 0 where one is off."""
        return {name: self._state("switch", name).masked_fill(self._state("off", name), 0.0) for name in self.names}

    def effective(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return self.gated(params, self.switches())

    def deployed(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return self.gated_exactly(params, self.switches())

    def penalty(self, params: Parameters) -> Tensor | None:
        """The strength lambda times the sum of |switch|."""
        return torch.stack([switch.abs().sum() for switch in self.switches().values()]).sum() * self.settings.strength

    def end_step(self, params: Parameters) -> None:  # noqa: D102
        decay = self.settings.decay
        for name in self.names:
            switch, mean, deviation, off = (self._state(kind, name) for kind in ("switch", "mean_sign", "deviation", "off"))
            sign = switch.sign()
            deviation.lerp_((sign - mean).square_(), 1 - decay)
            mean.lerp_(sign, 1 - decay)
            off.logical_or_(deviation > self.settings.threshold)
            switch.masked_fill_(off, 0.0)  # an optimizer's momentum would move it on

    def metrics(self, step: TrainStep) -> dict[str, float]:
        """The share of switches that are off."""
        off = [self._state("off", name) for name in self.names]
        return {"off": sum(int(tensor.sum()) for tensor in off) / sum(tensor.numel() for tensor in off)}

    def _state(self, kind: str, name: str) -> Tensor:
        return self.held(state_name(kind, name))


@dataclass(frozen=True, kw_only=True)
class SmallifySettings(TrainedMethodSettings):
    """``method = "smallify"``; |weight * switch| ranks what is pruned.

    Attributes:
        strength: lambda, the cost of |switch|.
        decay: of the exponential averages.
        threshold: the deviation above which a switch is turned off.
    """

    name: ClassVar[str] = "smallify"
    strength: float = 1e-5
    decay: float = 0.9
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength: {self.strength} is not a strength of 0 or above")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay: {self.decay} is not in 0 <= decay < 1")
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold: {self.threshold} is not above 0")

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return Smallify(targets, model, self, seed)
