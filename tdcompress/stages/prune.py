"""Stage "prune": a trained network -> the same network with exact zeros, and its masks."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from tdcompress.codec import shallow
from tdcompress.errors import UserError
from tdcompress.lineage.measure import pruned_record
from tdcompress.lineage.network import MASKS, MODEL, save_tensors, trained_network, training_targets
from tdcompress.lineage.origin import Origin, learning_task_of, origin_of
from tdcompress.lineage.units import units_of
from tdcompress.lineage.versions import RECORDS, VERSIONS
from tdcompress.methods.base import Granularity, MethodSettings
from tdcompress.methods.targeted import TargetedSettings
from tdcompress.pipeline import Stage, Workspace
from tdcompress.records.stages import PrunedCount, PruneRecord
from tdcompress.sparsity.masks import Masks, apply_masks, count_pruned_units, unit_masks, weight_masks
from tdcompress.sparsity.reach import Reach, WeightShare, unit_reach, weight_reach
from tdcompress.sparsity.shares import USUAL, Shares
from tdcompress.sparsity.units import prunable_weights
from tdcompress.tasks.base import LearningTask
from tdcompress.train.recalibrate import layers_with_statistics, recalibrate


@dataclass(frozen=True, kw_only=True)
class Share:
    """What of [prune] is the same as written and as done.

    Attributes:
        fraction: pruned share, 0..1, of the weights or units, split as ``shares`` says; or
        keep_per_filter: weights that stay in each filter.
        align: kept units are rounded up to a multiple of this; onnxruntime computes channels in blocks of 16.
        evaluation: "plain", or "released": as the released code evaluates, all candidates of the training (the bottom gamma
            share) are pruned too.
        recalibrate: so many training samples, drawn from the seed, re-estimate the mean and variance of every BatchNorm layer
            after pruning; all where there are fewer; 0 = the training's stay.
        recalibrate_on: these samples as they are, "plain"; or "augmented", changed at random as the training's were, whose
            statistics the network has learnt with.
    """

    fraction: float | None = None
    keep_per_filter: int | None = None
    align: int = 1
    evaluation: Literal["plain", "released"] = "plain"
    recalibrate: int = 0
    recalibrate_on: Literal["plain", "augmented"] = "plain"

    def __post_init__(self) -> None:
        if self.recalibrate < 0:
            raise ValueError(f"recalibrate: {self.recalibrate} samples is out of range, 0 or more")
        if self.fraction is None and self.keep_per_filter is None:
            raise ValueError("fraction: give either fraction or keep_per_filter")
        if self.fraction is not None and self.keep_per_filter is not None:
            raise ValueError(
                "keep_per_filter: given beside fraction, and each says how much is pruned; "
                "drop keep_per_filter to prune a share, or drop fraction to keep so many weights of each filter"
            )
        if self.fraction is not None and not 0 <= self.fraction < 1:
            raise ValueError(f"fraction: {self.fraction} is out of range, 0 <= fraction < 1")
        if self.keep_per_filter is not None and self.keep_per_filter < 1:
            raise ValueError(f"keep_per_filter: {self.keep_per_filter} is out of range, 1 or more")
        if self.align < 1:
            raise ValueError(f"align: {self.align} is out of range, 1 or more")


@dataclass(frozen=True, kw_only=True)
class Settings(Share):
    """What is pruned, nothing left open.

    Attributes:
        granularity: weights, or units.
        scope: inside what units are ranked.
        unit: what a pruned unit is.
        shares: how the fraction is split.
        exclude: names of layers that stay dense, besides those that the model declares.
        include: names of layers that are pruned although no unit of theirs could ever leave.
    """

    granularity: Granularity
    scope: Literal["layer", "group"]
    unit: Literal["whole", "filter"]
    shares: Shares
    exclude: tuple[str, ...]
    include: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PruneTable(Share):
    """The [prune] table: what is set to zero after training.

    Attributes:
        granularity: None = the training's.
        scope: None = the training's.
        unit: None = the training's.
        shares: how the fraction is split, see [sparsity]; None = the training's where it is of the same granularity, else
            "filter" for weights and "layer" for units.
        exclude: names of layers that stay dense, besides those that the model declares; None = the training's.
        include: for units: names of layers to prune although no unit of theirs could ever leave; None = the training's. What the
            network returns stays whole by default, and so do streams that nothing can narrow: zeros there cost accuracy and save
            nothing.
    """

    granularity: Granularity | None = None
    scope: Literal["layer", "group"] | None = None
    unit: Literal["whole", "filter"] | None = None
    shares: Shares | None = None
    exclude: tuple[str, ...] | None = None
    include: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_per_filter is not None and self.shares is not None:
            raise ValueError("shares: they split a fraction; keep_per_filter says how many weights of each filter stay")

    def after(self, method: MethodSettings) -> Settings:
        """With what is left open as in the training."""
        left_open = [name for name in ("granularity", "scope", "unit", "exclude", "include") if getattr(self, name) is None]
        taken = {name: getattr(method, name) for name in left_open}
        if self.granularity not in (None, "unit") and "include" in taken:  # the training's are of units
            taken["include"] = ()
        return Settings(**(shallow(self) | taken | {"shares": self.shares or self.usual_shares(method)}))

    def usual_shares(self, method: MethodSettings) -> Shares:
        """How the fraction is split where [prune] leaves it open; weights kept by count have the same share of every filter."""
        granularity = self.granularity or method.granularity
        if self.keep_per_filter is not None:
            return "filter"
        return method.split if granularity == method.granularity else USUAL[granularity]


def run(settings: Settings, work: Workspace) -> PruneRecord:
    """Rank by the method's importance, set the lowest share to zero, estimate BatchNorm statistics where asked for, measure."""
    device = torch.device(work.machine.device)
    trained = work.inputs["train"]
    origin = origin_of(trained)
    task = learning_task_of(trained, work.machine.places)
    model, scores = trained_network(trained, task)
    masks, pruned = make_masks(settings, origin, model, scores, task)
    apply_masks(model, masks)
    before = None
    if settings.recalibrate:
        as_trained = task.measured(model, device) if layers_with_statistics(model) else None
        augmented = settings.recalibrate_on == "augmented"
        batches = partial(task.training_batches, origin.seed, settings.recalibrate, device, augmented=augmented)
        if recalibrate(model, batches):  # which says so where there is nothing to estimate
            before = as_trained
    save_tensors(masks, work.folder / MASKS)
    save_tensors(model.state_dict(), work.folder / MODEL)
    weights = prunable_weights(model, settings.exclude)
    return replace(pruned_record(model, weights, task, device), accuracy_before=before, pruned=pruned)


def make_masks(
    settings: Settings, origin: Origin, model: nn.Module, scores: dict[str, Tensor], task: LearningTask
) -> tuple[Masks, PrunedCount]:
    """Masks by parameter name, True = kept; and how many weights or units they prune. Warns where that is less than was asked.

    The method's own scores rank the weights and the groups of units that it was trained on; others are ranked by magnitude.

    Args:
        settings: what is pruned.
        origin: of the training.
        model: the trained network, on the CPU.
        scores: the method's own, by name of a parameter, of its shape, or of a group of units, (units,); empty = magnitude.
        task: what it was trained for.

    Raises:
        UserError: scores of some layers alone, to be ranked together with the magnitudes of others.
    """
    method = origin.method.settings
    params = {name: value.detach() for name, value in model.named_parameters()}
    fraction = fraction_held(settings, method)
    if settings.granularity != "unit":
        weights = prunable_weights(model, settings.exclude)
        own = scores if method.granularity == settings.granularity == "weight" else {}
        _require_one_scale(settings, method, own, [slot.parameter for slot in weights])
        pattern = None if settings.granularity == "weight" else settings.granularity
        keep = settings.keep_per_filter
        budget = WeightShare(fraction=fraction, keep_per_filter=keep, shares=settings.shares, pattern=pattern)
        masks, reach = weight_masks(params, weights, scores=own, **budget), weight_reach(params, weights, **budget)
        return masks, _counted(settings, reach, reach.reached)
    if fraction is None:
        raise ValueError("keep_per_filter: it counts weights of a filter; units are pruned by fraction")
    units = units_of(origin, settings, model, task)
    if units.fixed:
        warnings.warn(str(units), stacklevel=2)
    own = {}
    if scores and method.granularity == "unit":
        trained = {group.filters for group in training_targets(origin, model, task).groups}
        own = {group.name: scores[group.name] for group in units.groups if group.name in scores and group.filters in trained}
    _require_one_scale(settings, method, own, [group.name for group in units.groups])
    masks = unit_masks(params, units.groups, scores=own, fraction=fraction, align=settings.align, shares=settings.shares)
    reach = unit_reach(params, units.groups, fraction=fraction, shares=settings.shares)
    return masks, _counted(settings, reach, count_pruned_units(masks, units.groups))


def _require_one_scale(settings: Settings, method: MethodSettings, own: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Refuse to compare gates or noise of some layers with magnitudes of others: either would win by its scale alone."""
    others = [name for name in names if name not in own]
    if method.own_scale and settings.shares == "global" and own and others:
        raise UserError(
            f'prune.shares: "global" ranks all layers together, but method = "{method.name}" ranks those that it trained on in '
            f"its own way, which does not compare with the magnitude of {others[0]}; exclude what the training excludes, with "
            'its scope and unit, or take shares = "layer"'
        )


def _counted(settings: Settings, reach: Reach, gone: int) -> PrunedCount:
    if reach.fraction is None:
        asked = f"prune.keep_per_filter = {settings.keep_per_filter}"
    elif reach.fraction == settings.fraction:
        asked = f'prune.fraction = {reach.fraction}, shares = "{settings.shares}"'
    else:
        asked = f'prune.evaluation = "released", sparsity.gamma = {reach.fraction}, shares = "{settings.shares}"'
    if str(reach):
        warnings.warn(f"{asked}: {reach}", stacklevel=3)
    return PrunedCount(total=reach.total, asked=reach.asked, gone=gone)


def fraction_held(settings: Settings, method: MethodSettings) -> float | None:
    """The pruned share; with the released evaluation at least the training's candidates."""
    if settings.evaluation == "plain":
        return settings.fraction
    if not isinstance(method, TargetedSettings) or method.gamma is None or settings.fraction is None:
        raise ValueError('evaluation: "released" needs a pruned fraction and a training with gamma')
    return max(settings.fraction, method.gamma)


STAGE = Stage(name="prune", version=VERSIONS["prune"], settings=Settings, run=run, record=RECORDS["prune"])
