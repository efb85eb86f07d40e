"""L0 regularisation by hard concrete gates (Louizos, Welling and Kingma 2018, arXiv 1712.01312)."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tdcompress.methods.base import Method, Parameters, TrainedMethodSettings, TrainStep
from tdcompress.methods.gates import Gated, shapes, state_generator, state_name, weights_behind
from tdcompress.sparsity.units import Targets

TEMPERATURE = 2 / 3
STRETCH = (-0.1, 1.1)
INITIAL_SPREAD = 0.01  # standard deviation of the gate logits at the start
_NOISE_MARGIN = 1e-6  # uniform numbers stay this far from 0 and 1, where their logit is infinite


def sampled_gate(log_alpha: Tensor, logistic_noise: Tensor) -> Tensor:
    """A draw from the hard concrete distribution (Equations 10 and 11 there), in 0..1; differentiable in ``log_alpha``.

    Args:
        log_alpha: gate logits, of any shape.
        logistic_noise: log u - log(1 - u) of uniform numbers u, of the same shape.
    """
    low, high = STRETCH
    concrete = torch.sigmoid((logistic_noise + log_alpha) / TEMPERATURE)
    return (concrete * (high - low) + low).clamp(0.0, 1.0)


def estimated_gate(log_alpha: Tensor) -> Tensor:
    """The gate at test time (Equation 13 there), in 0..1, of the shape of ``log_alpha``; no temperature."""
    low, high = STRETCH
    return (torch.sigmoid(log_alpha) * (high - low) + low).clamp(0.0, 1.0)


def open_chance(log_alpha: Tensor) -> Tensor:
    """Probability, 0..1, that a gate is not exactly zero (Equation 12 there); of the shape of ``log_alpha``."""
    low, high = STRETCH
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-low / high))


class L0(Gated):
    """A gate for each weight or unit, drawn once per optimizer step; its logit ``log_alpha`` is trained beside the network.

    The cost is beta / (training samples) times the expected number of open gates; a unit counts with its number of weights.

    Args:
        targets: what gets gates.
        model: the network.
        settings: the recipe's [sparsity].
        seed: of the first gates.
    """

    def __init__(self, targets: Targets, model: nn.Module, settings: "L0Settings", seed: int) -> None:
        super().__init__(targets, settings.granularity)
        self.settings = settings
        self.lr_scale = settings.lr_scale
        self.noise: dict[str, Tensor] = {}
        self.train_size = 1
        params = dict(model.named_parameters())
        like = params[targets.weights[0].parameter]
        self.weights = weights_behind(targets, self.granularity, params)
        start = math.log((1 - settings.initial_drop) / settings.initial_drop)
        generator = state_generator(seed)
        for name, shape in shapes(targets, self.granularity, params).items():
            logits = start + INITIAL_SPREAD * torch.randn(shape, generator=generator)
            self.register_parameter(state_name("log_alpha", name), nn.Parameter(logits.to(like)))

    def log_alpha(self, name: str) -> Tensor:
        """The gate logits of one parameter (of its shape) or one group (O,)."""
        return self.held(state_name("log_alpha", name))

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        self.train_size = step.train_size
        for name in self.weights:
            logits = self.log_alpha(name)
            uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
            self.noise[name] = uniform.logit(eps=_NOISE_MARGIN)

    def effective(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return self.gated(params, {name: sampled_gate(self.log_alpha(name), noise) for name, noise in self.noise.items()})

    def deployed(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return self.gated_exactly(params, {name: estimated_gate(self.log_alpha(name)) for name in self.weights})

    def penalty(self, params: Parameters) -> Tensor | None:  # noqa: D102
        costs = [open_chance(self.log_alpha(name)).sum() * n for name, n in self.weights.items()]
        return torch.stack(costs).sum() * (self.settings.beta / self.train_size)

    def scores(self, params: Parameters) -> dict[str, Tensor]:
        """Nothing, so that |gate * weight| ranks; or the gates' logits (the order of their probabilities, without the ties)."""
        if self.settings.ranking == "magnitude":
            return {}
        return {name: self.log_alpha(name).detach() for name in self.weights}

    def metrics(self, step: TrainStep) -> dict[str, float]:
        """The share of gates that are open at test time."""
        counts = [(estimated_gate(self.log_alpha(name).detach()) > 0, n) for name, n in self.weights.items()]
        return {"open": sum(int(is_open.sum()) * n for is_open, n in counts) / sum(is_open.numel() * n for is_open, n in counts)}


@dataclass(frozen=True, kw_only=True)
class L0Settings(TrainedMethodSettings):
    """``method = "l0"``.

    Attributes:
        beta: the cost of an open gate is beta / (training samples). The papers searched 1e-6 to 10.
        initial_drop: drop rate p at the start; the logits begin near log((1 - p) / p).
        ranking: what pruning ranks by: the "magnitude" of the estimated final parameters, gate * weight (section 5.2 of the arXiv
            paper, which says the opposite in its list of methods), or the "gate" alone, as the released code does.
    """

    name: ClassVar[str] = "l0"
    own_scale: ClassVar[bool] = True
    beta: float = 0.1
    initial_drop: float = 0.001
    ranking: Literal["magnitude", "gate"] = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta: {self.beta} is not a cost of 0 or above")
        if not 0 < self.initial_drop < 1:
            raise ValueError(f"initial_drop: {self.initial_drop} is not in 0 < initial_drop < 1")

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return L0(targets, model, self, seed)
