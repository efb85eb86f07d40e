"""What stages record of a pruned network: its measure, and what is left of its weights."""

import torch
from torch import nn

from tdcompress.records.stages import LayerCount, PruneRecord
from tdcompress.sparsity.masks import count_zeros
from tdcompress.sparsity.units import Slot
from tdcompress.tasks.base import LearningTask


def pruned_record(model: nn.Module, weights: tuple[Slot, ...], task: LearningTask, device: torch.device) -> PruneRecord:
    """Counts of zeros, and the measure of the masked network.

    Args:
        model: the pruned network, on any device; moved to ``device``.
        weights: its prunable weights.
        task: what it was trained for.
        device: where it is measured.
    """
    layers = count_layers(model, weights)
    kept, prunable = sum(layer.kept for layer in layers), sum(layer.total for layer in layers)
    zeros, total = count_zeros(model.parameters())
    return PruneRecord(
        layers=layers,
        measure=task.measure,
        accuracy=task.measured(model, device),
        parameters_total=total,
        parameters_nonzero=total - zeros,
        sparsity_prunable=1 - kept / prunable,
        sparsity_model=zeros / total,
    )


def count_layers(model: nn.Module, weights: tuple[Slot, ...]) -> tuple[LayerCount, ...]:
    """Entries and non-zero entries of each prunable matrix."""
    params = dict(model.named_parameters())
    return tuple(
        LayerCount(
            name=slot.parameter,
            shape=tuple(params[slot.parameter].shape),
            total=params[slot.parameter].numel(),
            kept=int(params[slot.parameter].count_nonzero()),
        )
        for slot in weights
    )
