"""Targeted dropout (section 4): drop at random among the weights or units that would be pruned first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tdcompress.errors import ArgumentError
from tdcompress.methods.base import Method, Parameters, TrainStep
from tdcompress.methods.scheduled import ScheduledSettings
from tdcompress.sparsity.masks import merge_selected, widen
from tdcompress.sparsity.patterns import (
    check_fraction,
    check_pattern,
    lowest_in_pattern,
    pattern_extents,
    selected_entries,
)
from tdcompress.sparsity.reach import reach_of
from tdcompress.sparsity.schedule import Schedule
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
        schedule: how gamma and alpha change.
    """

    def __init__(self, targets: Targets, extents: Sequence[Extent], settings: "TargetedSettings", schedule: Schedule) -> None:
        super().__init__(targets)
        self.extents = tuple(extents)
        self.settings = settings
        self.schedule = schedule
        self.keep: dict[str, Tensor] = {}

    def effective(self, params: Parameters) -> dict[str, Tensor]:
        """Also of some of the parameters alone."""
        return {n: params[n] * keep.to(params[n].device, params[n].dtype) for n, keep in self.keep.items() if n in params}

    def drop(self, params: Parameters, dropped: Mapping[str, Tensor]) -> None:
        """Set the masks of this step: 1 where kept, of the parameters' type (masked_fill takes four times as long on a CPU).

        Args:
            params: by name, each of its own shape.
            dropped: by parameter name, bool, broadcasting to it: True where it is dropped.
        """
        self.keep = {name: (~entries).to(params[name].dtype) for name, entries in dropped.items()}

    def dropped(self) -> dict[str, Tensor]:  # noqa: D102
        return {name: keep == 0 for name, keep in self.keep.items()}

    def unreached(self) -> str | None:
        """Of the full gamma, or of Xtreme; gamma = 1 asks for no more than there are: all but one of each filter or group."""
        gamma, kept, shares = self.settings.gamma, self.settings.keep_per_filter, self.settings.split
        if gamma == 1:
            return None
        reach = reach_of(self.extents, self.settings.granularity, fraction=gamma, keep_per_filter=kept, shares=shares)
        asked = f"keep_per_filter = {kept}" if gamma is None else f'gamma = {gamma:g}, shares = "{shares}"'
        said = reach.told("candidates")
        return f"{asked}: {said}" if said else None

    def missed(self, steps_per_epoch: int, epochs: int) -> str | None:
        """That masks are never frozen, or nothing is ever dropped: what has not begun in the last step never does."""
        steps = steps_per_epoch * epochs
        if not steps:
            return None
        last = (steps - 1) / steps_per_epoch  # epochs done when the last step begins
        among = f"this training, which has {steps} step{'s' * (steps != 1)}"
        if self.frozen(epochs) and not self.frozen(last):
            return (
                f"freeze_share: {self.settings.freeze_share:g} is less than one step of {among}: its masks are never frozen; "
                "raise it, or set 0"
            )
        dropped = self.settings.alpha and self.settings.gamma != 0
        if dropped and not (self.gamma_share(last) and self.rates(last)[1]):
            return f'schedule: "{self.settings.schedule}" drops nothing in {among}; let it begin earlier, or train for longer'
        return None

    def frozen(self, epoch: float) -> bool:  # noqa: D102
        return self.schedule.frozen(epoch)

    def metrics(self, step: TrainStep) -> dict[str, float]:  # noqa: D102
        gamma, alpha = self.rates(step.epoch)
        return {"alpha": alpha} if gamma is None else {"gamma": gamma, "alpha": alpha}

    def rates(self, epoch: float) -> tuple[float | None, float]:
        """(gamma, alpha) that hold at a moment of training; gamma is None for Xtreme. Frozen masks drop every candidate."""
        gamma = self.settings.gamma
        return (
            None if gamma is None else gamma * self.gamma_share(epoch),
            1.0 if self.frozen(epoch) else self.settings.alpha * _share(self.schedule.alpha_share(epoch), "alpha_share", epoch),
        )

    def gamma_share(self, epoch: float) -> float:
        """Share (0..1) of the final gamma at a moment of training; frozen masks are those of all of it."""
        return 1.0 if self.frozen(epoch) else _share(self.schedule.gamma_share(epoch), "gamma_share", epoch)

    def counts(self, epoch: float) -> Counts:
        """How many candidates there are at a moment of training; on the host, from sizes alone.

        Xtreme is a variation of ramping (section 5.6), so with a ramp the number of candidates of a filter rises to all but k.
        """
        gamma, k = self.rates(epoch)[0], self.settings.keep_per_filter
        if gamma is not None:
            return selected_counts(self.extents, gamma, self.settings.split)
        assert k is not None
        share = self.gamma_share(epoch)
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
    """Candidates are the lowest of every four weights ("2:4"), or the lowest blocks ("1x4"); a block is drawn for as one."""

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        pattern = self.settings.granularity
        assert pattern != "weight"
        assert pattern != "unit"
        _, alpha = self.rates(step.epoch)
        scores = {slot.parameter: params[slot.parameter].detach().abs() for slot in self.targets.weights}
        candidates = lowest_in_pattern(scores, self.targets.weights, self.counts(step.epoch), pattern)
        dropped = {}
        for slot in self.targets.weights:
            rows = candidates[slot.parameter]
            rows = rows & _chance(rows, alpha, generator)
            dropped[slot.parameter] = selected_entries(rows, params[slot.parameter].shape, slot, pattern)
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


def _share(value: float, of: str, epoch: float) -> float:
    """What a schedule gives, which may be a user's own."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ArgumentError(f"schedule: its {of}({epoch:g}) is {value!r}, and a share is a number from 0 to 1")
    return value


def _chance(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """True with this probability, independently for each entry of a tensor of this shape."""
    # uniform numbers and a comparison: bernoulli_ takes four times as long on a CPU
    return torch.rand(like.shape, generator=generator, device=like.device) < probability


@dataclass(frozen=True, kw_only=True)
class TargetedSettings(ScheduledSettings):
    """``method = "targeted"``.

    Attributes:
        gamma: targeting proportion, the share of each filter's weights (or each group's units) that are candidates; at 1 all but
            one.
        keep_per_filter: Xtreme (section 5.6): candidates are all but this many weights of each filter; instead of gamma.
        alpha: drop rate of a candidate.
        draw: for units: drop whole "unit"s, as the paper says, or draw for each "weight" inside them, as the released code does.
    """

    name: ClassVar[str] = "targeted"
    patterned: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("gamma", "alpha")
    gamma: float | None = None
    keep_per_filter: int | None = None
    alpha: float = 0.5
    draw: Literal["unit", "weight"] = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma is None and self.keep_per_filter is None:
            counted = ", or keep_per_filter, the weights of each filter that are none"
            other = "" if self.granularity in ("unit", "2:4") else counted
            raise ValueError(f"gamma: give gamma, the share that are candidates{other}")
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

    @cached_property
    def idle(self) -> Mapping[str, str]:
        """The keys of other schedules, and what is drawn for where no units are."""
        foreign = super().idle
        return foreign if self.granularity == "unit" else {**foreign, "draw": 'granularity = "unit"'}

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return targeted_dropout(targets, model, self, self.make_schedule())


def targeted_dropout(targets: Targets, model: nn.Module, settings: TargetedSettings, schedule: Schedule) -> Targeted:
    """Targeted dropout of what the settings' granularity says, driven by a schedule.

    Args:
        targets: what is dropped.
        model: the network that holds it.
        settings: gamma, alpha and how candidates are ranked; its own schedule is left aside.
        schedule: how gamma and alpha change.

    Raises:
        ValueError: a granularity that a layer's shape does not allow.
    """
    params = dict(model.named_parameters())
    if settings.granularity == "unit":
        return TargetedUnits(targets, unit_extents(params, targets.groups), settings, schedule)
    if settings.granularity == "weight":
        return TargetedWeights(targets, weight_extents(params, targets.weights), settings, schedule)
    check_pattern(params, targets.weights, settings.granularity)
    extents = pattern_extents(params, targets.weights, settings.granularity)
    return TargetedPattern(targets, extents, settings, schedule)
