"""What stages record of a network: its accuracy, and what is left of its weights."""

import torch
from torch import nn

from tdcompress.data.base import Dataset
from tdcompress.lineage.samples import BATCH, test_samples
from tdcompress.records import LayerCount, PruneRecord
from tdcompress.sparsity.masks import count_zeros
from tdcompress.sparsity.units import Slot
from tdcompress.train.evaluate import accuracy


def measured_accuracy(model: nn.Module, data: Dataset, device: torch.device) -> float:
    """Accuracy on the test set in float32, 0..1; the model is moved to the device.

    Args:
        model: (B, C, H, W) float32 -> (B, classes).
        data: its data set.
        device: where it runs.
    """
    return accuracy(model.to(device), test_samples(data).to(device), BATCH, device)


def pruned_record(model: nn.Module, weights: tuple[Slot, ...], data: Dataset, device: torch.device) -> PruneRecord:
    """Counts of zeros, and the accuracy of the masked network.

    Args:
        model: the pruned network, on any device; moved to ``device``.
        weights: its prunable weights.
        data: its data set.
        device: where the accuracy is measured.
    """
    layers = count_layers(model, weights)
    kept, prunable = sum(layer.kept for layer in layers), sum(layer.total for layer in layers)
    zeros, total = count_zeros(model.parameters())
    return PruneRecord(
        layers=layers,
        accuracy=measured_accuracy(model, data, device),
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
