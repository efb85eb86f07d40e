"""Targeted dropout (section 4): drop at random among the weights or units that would be pruned first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from tdcompress.methods.base import Method, MethodSettings, Parameters, Step
from tdcompress.sparsity.masks import lowest_units, lowest_weights, merge_selected, unit_scores, widen
from tdcompress.sparsity.schedule import Constant, Ramp, Schedule
from tdcompress.sparsity.select import pruned_count
from tdcompress.sparsity.units import Targets

PAPER_EPOCHS = 256  # the length of training that the papers' ramp of 49 + 49 epochs belongs to


class Targeted(Method):
    """What both granularities share: a straight mask, the same in forward and backward.

    No 1/(1 - alpha) rescaling; the dense weights stay the trained parameters and can win their place back.
    """

    def __init__(self, targets: Targets, settings: "TargetedSettings") -> None:
        super().__init__(targets)
        self.settings = settings
        self.schedule = settings.make_schedule()
        self.keep: dict[str, Tensor] = {}

    def effective(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return {name: params[name] * keep for name, keep in self.keep.items()}

    def drop(self, params: Parameters, dropped: Mapping[str, Tensor]) -> None:
        """Set the masks of this step: 1 where kept, of the parameters' type (masked_fill takes four times as long on a CPU)."""
        self.keep = {name: (~entries).to(params[name].dtype) for name, entries in dropped.items()}

    def numbers(self, epoch: float) -> dict[str, float]:  # noqa: D102
        gamma, alpha = self.rates(epoch)
        return {"alpha": alpha} if gamma is None else {"gamma": gamma, "alpha": alpha}

    def rates(self, epoch: float) -> tuple[float | None, float]:
        """(gamma, alpha) that hold at a moment of training; gamma is None for Xtreme."""
        gamma = self.settings.gamma
        return (
            None if gamma is None else gamma * self.schedule.gamma_share(epoch),
            self.settings.alpha * self.schedule.alpha_share(epoch),
        )


class TargetedWeights(Targeted):
    """Candidates are the bottom gamma share of |w| in each filter (section 4.1), or all but k of it (Xtreme, section 5.6)."""

    def begin_step(self, params: Parameters, step: Step, generator: torch.Generator) -> None:  # noqa: D102
        gamma, alpha = self.rates(step.epoch)
        dropped = {}
        for slot in self.targets.weights:
            weight = params[slot.parameter]
            keep = self.kept(weight.numel() // weight.shape[slot.axis], step.epoch)
            candidates = lowest_weights(weight.detach().abs(), slot.axis, fraction=gamma, keep_per_filter=keep)
            dropped[slot.parameter] = candidates.logical_and_(_chance(weight, alpha, generator))
        self.drop(params, dropped)

    def kept(self, fan_in: int, epoch: float) -> int | None:
        """Xtreme's weights of a filter that are no candidates at a moment of training; None without Xtreme.

        Xtreme is a variation of ramping (section 5.6), so with a ramp the number of candidates rises to all but k.
        """
        k = self.settings.keep_per_filter
        return None if k is None else fan_in - pruned_count(max(0, fan_in - k), fraction=self.schedule.gamma_share(epoch))


class TargetedUnits(Targeted):
    """Candidates are the gamma share of units with the lowest L2 norm in each group (section 4.1).

    The paper drops whole units; the released code draws for every weight inside the candidate units (``draw = "weight"``).
    """

    def begin_step(self, params: Parameters, step: Step, generator: torch.Generator) -> None:  # noqa: D102
        gamma, alpha = self.rates(step.epoch)
        assert gamma is not None
        dropped: dict[str, Tensor] = {}
        for group in self.targets.groups:
            scores = unit_scores(params, group)
            candidates = lowest_units(scores, fraction=gamma)
            if self.settings.draw == "unit":
                candidates = candidates & _chance(scores, alpha, generator)
            for name, entries in widen(group, candidates, params).items():
                if self.settings.draw == "weight":
                    entries = entries & _chance(params[name], alpha, generator)
                merge_selected(dropped, name, entries)
        self.drop(params, dropped)


def _chance(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """True with this probability, independently for each entry of a tensor of this shape."""
    # uniform numbers and a comparison: bernoulli_ takes four times as long on a CPU
    return torch.rand(like.shape, generator=generator, device=like.device) < probability


@dataclass(frozen=True, kw_only=True)
class TargetedSettings(MethodSettings):
    """``method = "targeted"``.

    Attributes:
        gamma: targeting proportion, the share of each filter's weights (or each group's units) that are candidates.
        keep_per_filter: Xtreme (section 5.6): candidates are all but this many weights of each filter; instead of gamma.
        alpha: drop rate of a candidate.
        schedule: "constant", or "ramp" (section 5.5).
        ramp_epochs: lengths of the two parts of the ramp.
        ramp_scale: shorten the ramp for a shorter training, in proportion to the papers' 256 epochs.
        draw: for units: drop whole "unit"s, as the paper says, or draw for each "weight" inside them, as the released code does.
    """

    name: ClassVar[str] = "targeted"
    headline: ClassVar[tuple[str, ...]] = ("gamma", "alpha")
    gamma: float | None = None
    keep_per_filter: int | None = None
    alpha: float = 0.5
    schedule: Literal["constant", "ramp"] = "constant"
    ramp_epochs: tuple[float, float] = (49.0, 49.0)
    ramp_scale: bool = False
    draw: Literal["unit", "weight"] = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.gamma is None) == (self.keep_per_filter is None):
            raise ValueError('gamma: method = "targeted" needs either gamma or keep_per_filter')
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: {self.gamma} is not in 0..1")
        if self.keep_per_filter is not None and self.keep_per_filter < 1:
            raise ValueError(f"keep_per_filter: {self.keep_per_filter} is below 1")
        if self.keep_per_filter is not None and self.granularity == "unit":
            raise ValueError('keep_per_filter: it counts weights of a filter; with granularity = "unit" give gamma')
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: {self.alpha} is not in 0..1")
        self.make_schedule()

    def make_schedule(self) -> Schedule:
        """The schedule object that the keys describe."""
        return Ramp(epochs=self.ramp_epochs) if self.schedule == "ramp" else Constant()

    def for_training(self, epochs: int) -> Self:
        """The settings for a training of this length.

        Raises:
            ValueError: the ramp is longer than the training and ``ramp_scale`` is off.
        """
        if self.schedule == "constant" or sum(self.ramp_epochs) <= epochs:
            return self
        if not self.ramp_scale:
            raise ValueError(
                f"ramp_epochs: the ramp takes {sum(self.ramp_epochs):g} epochs, the training has {epochs}; "
                "shorten it, or set ramp_scale = true"
            )
        factor = max(epochs, 1) / PAPER_EPOCHS  # without any training the ramp's length does not matter, but it has to have one
        first, second = self.ramp_epochs
        return replace(self, ramp_epochs=(first * factor, second * factor))

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return (TargetedUnits if self.granularity == "unit" else TargetedWeights)(targets, self)
