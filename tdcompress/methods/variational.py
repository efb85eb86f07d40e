"""Variational dropout that sparsifies (Molchanov, Ashukha and Vetrov 2017, arXiv 1701.05369)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from tdcompress.errors import UnsupportedError
from tdcompress.methods.base import Granularity, Method, Parameters, TrainedMethodSettings, TrainStep
from tdcompress.methods.gates import shapes, state_name, weights_behind, without
from tdcompress.sparsity.masks import lay_along
from tdcompress.sparsity.scores import squares, unit_squares
from tdcompress.sparsity.units import Targets, is_matrix

INITIAL_LOG_SIGMA2 = -10.0
LOG_ALPHA_LIMIT = 8.0
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695
_RELEASED_START = 0.01  # of the exponential warm-up
_TINY = 1e-8  # keeps the logarithm of a zero weight and the root of a zero variance finite, as the released code does


def kl_divergence(log_alpha: Tensor) -> Tensor:
    """Molchanov's approximation of KL(posterior || log-uniform prior) of each weight, in nats (Equation 14 there).

    It is 0 for alpha = inf, and of the shape of ``log_alpha``.
    """
    return _K1 - _K1 * torch.sigmoid(_K2 + _K3 * log_alpha) + 0.5 * nn.functional.softplus(-log_alpha)


class Variational(Method):
    """Each weight is N(w, alpha w^2); alpha is learnt, and what has a large one is noise alone.

    In training the noise is added where a layer's output is made (local reparameterisation). Each sample has its own noise,
    unlike the masks of the other methods, which hold for a step. For units the released code shares one sigma^2 along a filter.
    Here a filter shares one alpha, so that a unit has one importance: log_alpha = log_sigma2 - log(mean of the unit's w^2). Its
    KL counts once for each of its weights.

    Args:
        targets: what gets noise.
        model: the network.
        settings: the recipe's [sparsity].
    """

    def __init__(self, targets: Targets, model: nn.Module, settings: "VariationalSettings") -> None:
        super().__init__(targets)
        self.settings = settings
        self.lr_scale = settings.lr_scale
        self.granularity: Granularity = settings.granularity
        self.step = TrainStep()
        self.generator: torch.Generator | None = None
        _refuse_attention(model, targets)
        params = dict(model.named_parameters())
        like = params[targets.weights[0].parameter]
        self.weights = weights_behind(targets, self.granularity, params)
        for name, shape in shapes(targets, self.granularity, params).items():
            start = torch.full(shape, INITIAL_LOG_SIGMA2).to(like)
            self.register_parameter(state_name("log_sigma2", name), nn.Parameter(start))

    def raw_log_alpha(self, params: Parameters) -> dict[str, Tensor]:
        """log(sigma^2 / w^2) by parameter (of its shape) or group (O,), not clipped."""
        if self.granularity == "weight":
            means = {name: squares(params[name]) for name in self.weights}
        else:
            means = {group.name: unit_squares(params, group) / self.weights[group.name] for group in self.targets.groups}
        return {name: self.held(state_name("log_sigma2", name)) - (mean + _TINY).log() for name, mean in means.items()}

    def log_alpha(self, params: Parameters) -> dict[str, Tensor]:
        """log(sigma^2 / w^2), clipped to -8..8, which stops the gradient outside."""
        return {name: value.clamp(-LOG_ALPHA_LIMIT, LOG_ALPHA_LIMIT) for name, value in self.raw_log_alpha(params).items()}

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        self.step, self.generator = step, _of_process(generator, step.process)

    def end_step(self, params: Parameters) -> None:  # noqa: D102
        self.generator = None

    def penalty(self, params: Parameters) -> Tensor | None:
        """The KL times beta / (training samples), and the warm-up's factor."""
        terms = [kl_divergence(value).sum() * self.weights[name] for name, value in self.log_alpha(params).items()]
        return torch.stack(terms).sum() * (self.kl_share(self.step) * self.settings.beta / self.step.train_size)

    def deployed(self, params: Parameters) -> dict[str, Tensor]:
        """Zero where log_alpha has reached the threshold."""
        noise = {name: value.detach() >= self.settings.threshold for name, value in self.log_alpha(params).items()}
        return without(params, self.targets, self.granularity, noise)

    def scores(self, params: Parameters) -> dict[str, Tensor]:
        """Minus log_alpha: the largest is pruned first. Not clipped, which keeps its order and has no ties."""
        return {name: -value.detach() for name, value in self.raw_log_alpha(params).items()}

    def metrics(self, step: TrainStep) -> dict[str, float]:
        """How far the KL's warm-up is."""
        return {"kl_share": self.kl_share(step)}

    def kl_share(self, step: TrainStep) -> float:
        """The warm-up's factor in a step."""
        if not self.settings.warmup:
            return 1.0
        passed = step.share / self.settings.warmup
        return min(1.0, passed) if self.settings.warmup_curve == "linear" else _RELEASED_START ** (1.0 - passed)

    def instrument(self, model: nn.Module, params: Parameters) -> list[RemovableHandle]:
        """Hooks that add the noise to the outputs of the prunable layers; between ``begin_step`` and ``end_step`` only."""
        if self.generator is None:
            return []
        variances = self.variances(params)
        return [
            module.register_forward_hook(_Noise(variances[name], self.generator), with_kwargs=True)
            for name, module in _layers(model, params, variances)
        ]

    def variances(self, params: Parameters) -> dict[str, Tensor]:
        """The variance alpha * w^2 of every prunable weight, by parameter name; differentiable; 0 for what belongs to no unit."""
        log_alpha = self.log_alpha(params)
        if self.granularity == "weight":
            return {name: value.exp() * params[name].square() for name, value in log_alpha.items()}
        alphas: dict[str, Tensor] = {}
        for group in self.targets.groups:
            for slot in group.filters:
                alpha = lay_along(log_alpha[group.name].exp(), slot, params[slot.parameter].shape, absent=0.0)
                alphas[slot.parameter] = alphas[slot.parameter] + alpha if slot.parameter in alphas else alpha
        return {name: alpha * params[name].square() for name, alpha in alphas.items()}


def _of_process(generator: torch.Generator, process: int) -> torch.Generator:
    """A generator of this process's own: each adds noise to the outputs for other samples, so equal noise would not do."""
    if process == 0:
        return generator
    seed = (generator.initial_seed() + process * 0x9E3779B97F4A7C15) % 2**63  # far apart, also in the low 32 bits
    return torch.Generator(generator.device).manual_seed(seed)


class _Noise:
    """A forward hook: adds Gaussian noise of the variance that noisy weights give a layer's output (Equation 12 there)."""

    def __init__(self, variance: Tensor, generator: torch.Generator) -> None:
        self.variance = variance
        self.generator = generator
        self.measuring = False

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any], output: Tensor) -> Tensor | None:
        if self.measuring:
            return None
        # the same layer on squared inputs, with variances for weights and no bias: right for any convolution and padding
        swapped = {"weight": self.variance}
        if isinstance(module.bias, Tensor):
            swapped["bias"] = torch.zeros_like(module.bias)
        self.measuring = True
        variance: Tensor = functional_call(module, swapped, *_squared(inputs, keywords))
        self.measuring = False
        variance = variance.to(torch.promote_types(variance.dtype, torch.float32))  # under autocast it comes in bfloat16
        deviation = (variance.clamp(min=0.0) + _TINY).sqrt()  # fast convolutions may end a little below 0
        # drawn as one line of memory and laid out like the layer's output: three times as quick on a CPU in channels_last
        line = torch.randn(deviation.numel(), generator=self.generator, device=deviation.device)
        noise = line.as_strided(deviation.shape, deviation.stride())
        return output + (noise * deviation).to(output.dtype)


def _squared(inputs: tuple[Tensor, ...], keywords: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """A layer's arguments with the square of its input, which may come by position or by keyword."""
    if inputs:
        return (inputs[0].square(), *inputs[1:]), keywords
    name, x = next((name, value) for name, value in keywords.items() if isinstance(value, Tensor))
    return inputs, {**keywords, name: x.square()}


def _layers(model: nn.Module, params: Parameters, names: Iterable[str]) -> list[tuple[str, nn.Module]]:
    """The layers that apply these weights; a tied weight has several."""
    by_identity = {id(params[name]): name for name in names}
    # to ask a parametrization for its weight would change what that has stored
    applied = ((id(module._parameters.get("weight")), module) for module in model.modules() if is_matrix(module))
    return [(by_identity[weight], module) for weight, module in applied if weight in by_identity]


def _refuse_attention(model: nn.Module, targets: Targets) -> None:
    params = dict(model.named_parameters())
    prunable = {id(params[slot.parameter]) for slot in targets.weights}
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) and id(module.out_proj._parameters.get("weight")) in prunable:
            raise UnsupportedError(
                f"{path}: nn.MultiheadAttention applies its matrices itself, so variational dropout cannot add its noise to "
                f"their outputs; exclude {path!r} or choose another method"
            )


@dataclass(frozen=True, kw_only=True)
class VariationalSettings(TrainedMethodSettings):
    """``method = "variational"``; the largest alpha is pruned first. The papers train it without L2.

    Attributes:
        beta: the KL counts beta / (training samples).
        warmup: share of the training until it counts in full. The released code's 50,000 steps are half of 256 epochs.
        warmup_curve: how it rises until then: "linear", from 0, and no further; or "exponential", from 0.01, and on at the same
            rate, so to 100 after twice the warm-up. The latter is the released code's for LeNet-5.
        threshold: what has log_alpha at or above this is zero in evaluation and deployment.
    """

    name: ClassVar[str] = "variational"
    own_scale: ClassVar[bool] = True
    beta: float = 0.01
    warmup: float = 0.5
    warmup_curve: Literal["linear", "exponential"] = "linear"
    threshold: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta: {self.beta} is not a cost of 0 or above")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup: {self.warmup} is not in 0..1")
        if not -LOG_ALPHA_LIMIT < self.threshold <= LOG_ALPHA_LIMIT:
            raise ValueError(f"threshold: {self.threshold} is not in -8 < threshold <= 8, where log_alpha lies")

    @cached_property
    def idle(self) -> Mapping[str, str]:
        """The curve of a warm-up that there is not."""
        return {} if self.warmup else {"warmup_curve": "warmup above 0"}

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return Variational(targets, model, self)
