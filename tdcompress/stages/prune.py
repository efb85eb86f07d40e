"""Stage "prune": a trained network -> the same network with exact zeros, and its masks."""

from dataclasses import replace

import torch
from torch import nn

from tdcompress.methods.targeted import TargetedSettings
from tdcompress.pipeline import Workspace
from tdcompress.records import PruneRecord
from tdcompress.shrink.groups import unit_groups
from tdcompress.sparsity.masks import Masks, apply_masks, count_zeros, unit_masks, weight_masks
from tdcompress.sparsity.units import Targets, prunable_weights
from tdcompress.stages.experiment import Experiment
from tdcompress.stages.network import (
    MASKS,
    MODEL,
    count_layers,
    example_inputs,
    find_targets,
    measured_accuracy,
    plain_batches,
    save_tensors,
    trained_network,
)
from tdcompress.train.recalibrate import recalibrate

VERSION = 2


def run(experiment: Experiment, device: torch.device, work: Workspace) -> PruneRecord:
    """Rank by the method's importance, set the lowest share to zero, estimate BatchNorm statistics where asked for, measure."""
    model, scores = trained_network(experiment, work.inputs["train"])
    targets, masks = make_masks(experiment, model, scores)
    apply_masks(model, masks)
    before = None
    if experiment.prune.recalibrate:
        as_trained = measured_accuracy(experiment, model, device)
        before = as_trained if recalibrate(model, plain_batches(experiment, experiment.prune.recalibrate, device)) else None
    save_tensors(dict(masks), work.folder / MASKS)
    save_tensors(model.state_dict(), work.folder / MODEL)
    return replace(pruned_record(experiment, model, targets, device), accuracy_before=before)


def make_masks(experiment: Experiment, model: nn.Module, scores: dict[str, torch.Tensor]) -> tuple[Targets, Masks]:
    """Targets and masks of the recipe's pruning.

    The method's own scores rank the weights and the groups of units that it was trained on; others are ranked by magnitude.
    """
    prune, method = experiment.prune, experiment.method
    weights = prunable_weights(model, experiment.exclude)
    params = {name: value.detach() for name, value in model.named_parameters()}
    fraction = prune.fraction
    if prune.evaluation == "released":  # `resolve` has seen to it that there are both shares
        assert isinstance(method, TargetedSettings)
        assert method.gamma is not None
        assert fraction is not None
        fraction = max(fraction, method.gamma)
    if experiment.granularity == "weight":
        own = scores if method.granularity == "weight" else {}
        masks = weight_masks(
            params, weights, scores=own, fraction=fraction, keep_per_filter=prune.keep_per_filter, shares=experiment.shares
        )
        return Targets(weights=weights), masks
    assert fraction is not None
    unit = prune.unit or method.unit
    groups = unit_groups(model, example_inputs(experiment), weights, scope=experiment.scope, unit=unit)
    own = {}
    if scores and method.granularity == "unit":
        trained = {group.filters for group in find_targets(experiment, model, method, units=True).groups}
        own = {group.name: scores[group.name] for group in groups if group.name in scores and group.filters in trained}
    masks = unit_masks(params, groups, scores=own, fraction=fraction, align=prune.align, shares=experiment.shares)
    return Targets(weights=weights, groups=groups), masks


def pruned_record(experiment: Experiment, model: nn.Module, targets: Targets, device: torch.device) -> PruneRecord:
    """Counts of zeros, and the accuracy of the masked network."""
    layers = count_layers(model, targets)
    kept, prunable = sum(layer.kept for layer in layers), sum(layer.total for layer in layers)
    zeros, total = count_zeros(model.parameters())
    return PruneRecord(
        layers=layers,
        accuracy=measured_accuracy(experiment, model, device),
        parameters_total=total,
        parameters_nonzero=total - zeros,
        sparsity_prunable=1 - kept / prunable,
        sparsity_model=zeros / total,
    )
