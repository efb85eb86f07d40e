"""Targeted dropout (section 4): drop at random among the weights or units that would be pruned first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from tdcompress.errors import ArgumentError
from tdcompress.methods.base import Method, MethodSettings, Parameters, TrainStep
from tdcompress.sparsity.masks import merge_selected, widen
from tdcompress.sparsity.patterns import (
    Pattern,
    check_fraction,
    check_pattern,
    lowest_in_pattern,
    pattern_extents,
    selected_entries,
)
from tdcompress.sparsity.schedule import PAPER_EPOCHS, Constant, Cubic, Ramp, Schedule
from tdcompress.sparsity.scores import unit_extents, unit_scores, weight_extents
from tdcompress.sparsity.select import lowest_units, lowest_weights
from tdcompress.sparsity.shares import Counts, Extent, PerFilter, pruned_count, selected_counts
from tdcompress.sparsity.units import Targets


class Targeted(Method):
    """What both granularities share: a straight mask, the same in forward and backward.

    No 1/(1 - alpha) rescaling; the dense weights stay the trained parameters and can win their place back, until the schedule
    freezes the masks. It is composed of a schedule (`rates`), a distribution (`counts`), a score and the selection.

    Args:
        targets: what is dropped.
        extents: the sizes of what is ranked.
        settings: the recipe's [sparsity].
    """

    def __init__(self, targets: Targets, extents: Sequence[Extent], settings: "TargetedSettings") -> None:
        super().__init__(targets)
        self.extents = tuple(extents)
        self.settings = settings
        self.schedule = settings.make_schedule()
        self.keep: dict[str, Tensor] = {}

    def effective(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return {name: params[name] * keep for name, keep in self.keep.items()}

    def drop(self, params: Parameters, dropped: Mapping[str, Tensor]) -> None:
        """Set the masks of this step: 1 where kept, of the parameters' type (masked_fill takes four times as long on a CPU).

        Args:
            params: by name, each of its own shape.
            dropped: by parameter name, bool, broadcasting to it: True where it is dropped.
        """
        self.keep = {name: (~entries).to(params[name].dtype) for name, entries in dropped.items()}

    def dropped(self) -> dict[str, Tensor]:  # noqa: D102
        return {name: keep == 0 for name, keep in self.keep.items()}

    def frozen(self, epoch: float) -> bool:  # noqa: D102
        return self.schedule.frozen(epoch)

    def metrics(self, epoch: float) -> dict[str, float]:  # noqa: D102
        gamma, alpha = self.rates(epoch)
        return {"alpha": alpha} if gamma is None else {"gamma": gamma, "alpha": alpha}

    def rates(self, epoch: float) -> tuple[float | None, float]:
        """(gamma, alpha) that hold at a moment of training; gamma is None for Xtreme. Frozen masks drop every candidate."""
        gamma = self.settings.gamma
        return (
            None if gamma is None else gamma * self.schedule.gamma_share(epoch),
            1.0 if self.frozen(epoch) else self.settings.alpha * self.schedule.alpha_share(epoch),
        )

    def counts(self, epoch: float) -> Counts:
        """How many candidates there are at a moment of training; on the host, from sizes alone.

        Xtreme is a variation of ramping (section 5.6), so with a ramp the number of candidates of a filter rises to all but k.
        """
        gamma, k = self.rates(epoch)[0], self.settings.keep_per_filter
        if gamma is not None:
            return selected_counts(self.extents, gamma, self.settings.split)
        assert k is not None
        share = self.schedule.gamma_share(epoch)
        return PerFilter(counts={each.name: pruned_count(max(0, each.length - k), fraction=share) for each in self.extents})


class TargetedWeights(Targeted):
    """Candidates are the bottom gamma share of |w| in each filter (section 4.1), or all but k of it (Xtreme, section 5.6).

    With other shares than the papers', |w| is ranked in each layer, or in all of them.
    """

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        _, alpha = self.rates(step.epoch)
        scores = {slot.parameter: params[slot.parameter].detach().abs() for slot in self.targets.weights}
        candidates = lowest_weights(scores, self.targets.weights, self.counts(step.epoch))
        self.drop(params, {name: each.logical_and_(_chance(each, alpha, generator)) for name, each in candidates.items()})


class TargetedPattern(Targeted):
    """Candidates are the lowest of every four weights ("2:4"), or the lowest blocks ("1x4"); a block is drawn for as one.

    Args:
        targets: what is dropped.
        extents: sizes of the weights, as their shares need them.
        settings: the recipe's [sparsity].
        pattern: "2:4" or "1x4".
    """

    def __init__(self, targets: Targets, extents: Sequence[Extent], settings: "TargetedSettings", pattern: Pattern) -> None:
        super().__init__(targets, extents, settings)
        self.pattern: Pattern = pattern

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        _, alpha = self.rates(step.epoch)
        scores = {slot.parameter: params[slot.parameter].detach().abs() for slot in self.targets.weights}
        candidates = lowest_in_pattern(scores, self.targets.weights, self.counts(step.epoch), self.pattern)
        dropped = {}
        for slot in self.targets.weights:
            rows = candidates[slot.parameter]
            rows = rows & _chance(rows, alpha, generator)
            dropped[slot.parameter] = selected_entries(rows, params[slot.parameter].shape, slot.axis, self.pattern)
        self.drop(params, dropped)


class TargetedUnits(Targeted):
    """Candidates are the gamma share of units with the lowest L2 norm in each group (section 4.1), or in all groups.

    The paper drops whole units; the released code draws for every weight inside the candidate units (``draw = "weight"``).
    """

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        _, alpha = self.rates(step.epoch)
        counts = self.counts(step.epoch)
        assert not isinstance(counts, PerFilter)  # the settings refuse what would give such counts
        candidates = lowest_units({group.name: unit_scores(params, group) for group in self.targets.groups}, counts)
        dropped: dict[str, Tensor] = {}
        for group in self.targets.groups:
            units = candidates[group.name]
            if self.settings.draw == "unit":
                units = units & _chance(units, alpha, generator)
            for name, entries in widen(group, units, params).items():
                if self.settings.draw == "weight":
                    entries = entries & _chance(params[name], alpha, generator)
                merge_selected(dropped, name, entries)
        self.drop(params, dropped)


_SCHEDULE_KEYS = {
    "ramp": {"epochs": "ramp_epochs"},
    "cubic": {"epochs": "schedule_epochs", "gamma": "ramp_share", "alpha": "alpha_share", "freeze": "freeze_share"},
}
"""Schedule -> what a recipe calls the arguments of its class."""


_OF_SCHEDULE = {
    "ramp": ("ramp_epochs", "ramp_scale"),
    "cubic": ("ramp_share", "alpha_share", "freeze_share", "schedule_epochs"),
}
"""Schedule -> the keys of a recipe that belong to it."""


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
        schedule: "constant"; "ramp" (section 5.5); or "cubic", by share of the training: gamma rises along 1 - (1 - t)^3, alpha
            along a line, and masks are frozen at the end. With alpha = 1 and alpha_share = [0, 0], so that every candidate is
            always dropped, that is gradual magnitude pruning (Zhu and Gupta 2017).
        ramp_epochs: lengths of the two parts of the ramp.
        ramp_scale: shorten the ramp for a shorter training, in proportion to the papers' 256 epochs.
        ramp_share: cubic: where in the training, 0..1, gamma begins to rise, and where it is full.
        alpha_share: cubic: likewise for alpha.
        freeze_share: cubic: for this last share of the training, masks are fixed, every candidate is dropped, and what is zero
            stays zero; 0 = never.
        schedule_epochs: cubic: the epochs that the shares are of; None = train.epochs, and no other number fits.
        draw: for units: drop whole "unit"s, as the paper says, or draw for each "weight" inside them, as the released code does.
    """

    name: ClassVar[str] = "targeted"
    patterned: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("gamma", "alpha")
    gamma: float | None = None
    keep_per_filter: int | None = None
    alpha: float = 0.5
    schedule: Literal["constant", "ramp", "cubic"] = "constant"
    ramp_epochs: tuple[float, float] = (49.0, 49.0)
    ramp_scale: bool = False
    ramp_share: tuple[float, float] = (0.0, 0.45)
    alpha_share: tuple[float, float] = (0.0, 0.6)
    freeze_share: float = 0.3
    schedule_epochs: int | None = None
    draw: Literal["unit", "weight"] = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma is None and self.keep_per_filter is None:
            raise ValueError(
                "gamma: give gamma, the share that are candidates, or keep_per_filter, the weights of each filter that are none"
            )
        if self.gamma is not None and self.keep_per_filter is not None:
            raise ValueError(
                "keep_per_filter: given beside gamma, and each says how many are candidates; "
                "drop keep_per_filter to target a share, or drop gamma to target all but so many weights of each filter"
            )
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: {self.gamma} is not in 0..1")
        if self.keep_per_filter is not None and self.keep_per_filter < 1:
            raise ValueError(f"keep_per_filter: {self.keep_per_filter} is below 1")
        if self.keep_per_filter is not None and self.granularity == "unit":
            raise ValueError('keep_per_filter: it counts weights of a filter; with granularity = "unit" give gamma')
        if self.granularity == "2:4":
            if self.keep_per_filter is not None:
                raise ValueError('keep_per_filter: "2:4" keeps two of every four; give gamma = 0.5')
            try:
                check_fraction(self.gamma or 0, "2:4")
            except ValueError as error:
                raise ValueError(f"gamma: {error}") from None
        if self.keep_per_filter is not None and self.shares is not None:
            raise ValueError("shares: they split gamma; keep_per_filter says how many weights of each filter stay")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: {self.alpha} is not in 0..1")
        self.make_schedule()

    @property
    def silent(self) -> frozenset[str]:
        """The keys of "cubic" where that is not the schedule; and its epochs, which are the training's."""
        by_share = frozenset({"ramp_share", "alpha_share", "freeze_share"})
        return frozenset({"schedule_epochs"}) | (frozenset() if self.schedule == "cubic" else by_share)

    @cached_property
    def idle(self) -> Mapping[str, str]:
        """The keys of other schedules, and what is drawn for where no units are."""
        others = {key: owner for owner, keys in _OF_SCHEDULE.items() if owner != self.schedule for key in keys}
        foreign = {key: f'schedule = "{owner}"' for key, owner in others.items()}
        return foreign if self.granularity == "unit" else {**foreign, "draw": 'granularity = "unit"'}

    def make_schedule(self) -> Schedule:
        """The schedule object that the keys describe.

        Raises:
            ValueError: a number that it does not take; the message begins with its key.
        """
        try:
            if self.schedule == "ramp":
                return Ramp(epochs=self.ramp_epochs)
            if self.schedule == "cubic":
                epochs = 1 if self.schedule_epochs is None else self.schedule_epochs
                return Cubic(epochs=epochs, gamma=self.ramp_share, alpha=self.alpha_share, freeze=self.freeze_share)
        except ArgumentError as error:
            argument, _, said = str(error).partition(": ")
            raise ValueError(f"{_SCHEDULE_KEYS[self.schedule][argument]}: {said}") from None
        return Constant()

    def for_training(self, epochs: int) -> Self:
        """The settings for a training of this length.

        Raises:
            ValueError: the ramp is longer than the training and ``ramp_scale`` is off, or ``schedule_epochs`` is another length.
        """
        if self.schedule == "cubic":
            if self.schedule_epochs not in (None, epochs):
                raise ValueError(f"schedule_epochs: {self.schedule_epochs}, but the training has {epochs} epochs; leave it out")
            return replace(self, schedule_epochs=max(epochs, 1))
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
        if self.schedule == "cubic" and self.schedule_epochs is None:
            raise ValueError("schedule_epochs: a schedule by share of the training has to know its epochs")
        params = dict(model.named_parameters())
        if self.granularity == "unit":
            return TargetedUnits(targets, unit_extents(params, targets.groups), self)
        if self.granularity == "weight":
            return TargetedWeights(targets, weight_extents(params, targets.weights), self)
        check_pattern(params, targets.weights, self.granularity)
        return TargetedPattern(targets, pattern_extents(params, targets.weights, self.granularity), self, self.granularity)
