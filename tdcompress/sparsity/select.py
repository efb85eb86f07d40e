"""THE selection rule: exactly the k lowest scores, ties broken by index. Training and pruning both call it."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tdcompress.sparsity.scores import filter_rows, from_rows, protect_largest
from tdcompress.sparsity.shares import Counts, Overall, PerFilter, PerLayer
from tdcompress.sparsity.units import Slot

Name = TypeVar("Name", bound=Hashable)


def bottom_k(scores: Tensor, k: int) -> Tensor:
    """Select exactly the ``k`` lowest scores of each row (Equations 1 and 2 keep the others).

    Of equal scores the one with the lower index is selected first, so the result depends on nothing but the scores.

    Args:
        scores: (..., n), not NaN; on any device.
        k: how many of each row, 0..n.

    Returns:
        bool, of the shape of ``scores``: True = selected.

    Raises:
        ValueError: k is not in 0..n.
    """
    size = scores.shape[-1] if scores.ndim else 0
    if not 0 <= k <= size:
        raise ValueError(f"k = {k}: a row has {size} scores")
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if k == size:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = _kth_lowest(scores, k)
    selected = scores <= threshold
    if scores.device.type == "cpu" and int(selected.sum()) == k * (scores.numel() // size):
        return selected  # no tie at the threshold, the usual case
    below = scores < threshold
    tied = selected & ~below
    wanted = k - below.sum(-1, keepdim=True)
    return below | (tied & (tied.cumsum(-1) <= wanted))


def _kth_lowest(scores: Tensor, k: int) -> Tensor:
    """The k-th lowest score of each row, (..., 1)."""
    if scores.device.type != "cpu" or scores.dtype == torch.bfloat16:
        return scores.kthvalue(k, dim=-1, keepdim=True).values
    # numpy's partition on the tensor's own memory is two to seven times quicker than torch's topk, kthvalue and sort on a CPU
    return torch.from_numpy(np.partition(scores.detach().numpy(), k - 1, axis=-1)[..., k - 1 : k].copy())


def lowest_weights(scores: Mapping[str, Tensor], weights: Sequence[Slot], counts: Counts) -> dict[str, Tensor]:
    """Select the lowest-scored weights (Equation 2; the complement of argmax-k).

    Entries are ranked in the order of `filter_rows`: in a layer its filters one after another, in a network its layers in the
    order of their slots.

    Args:
        scores: by parameter, of its shape.
        weights: whose.
        counts: how many, and what is ranked together.

    Returns:
        By parameter, bool, of its shape: True = selected.
    """
    if isinstance(counts, PerFilter):
        rows = {slot: bottom_k(filter_rows(scores[slot.parameter], slot.axis), counts.counts[slot.parameter]) for slot in weights}
    else:
        lines = {slot: filter_rows(protect_largest(scores[slot.parameter], slot.axis), slot.axis).flatten() for slot in weights}
        if isinstance(counts, PerLayer):
            rows = {slot: bottom_k(line, counts.counts[slot.parameter]) for slot, line in lines.items()}
        else:
            rows = _lowest_of_all(lines, counts)
    return {slot.parameter: from_rows(chosen, scores[slot.parameter].shape, slot.axis) for slot, chosen in rows.items()}


def lowest_units(scores: Mapping[str, Tensor], counts: PerLayer | Overall, *, align: int = 1) -> dict[str, Tensor]:
    """Select the lowest-scored units (Equation 1), but never all of a group (our rule).

    Groups that are ranked together are compared by their scores as they are: norms, neither divided by fan-in nor by the group's.

    Args:
        scores: by group, (O,), in the groups' order.
        counts: how many of each group, or of all.
        align: of a group, the number that stays is rounded up to a multiple of this (onnxruntime computes in blocks of 16).

    Returns:
        By group, bool (O,): True = selected.
    """
    if isinstance(counts, Overall):
        selected = _lowest_of_all({name: protect_largest(score[None], 0)[0] for name, score in scores.items()}, counts)
        if align == 1:
            return selected
        counts = PerLayer(counts={name: int(chosen.sum()) for name, chosen in selected.items()})
    sizes = {name: len(score) for name, score in scores.items()}
    kept = {name: min(size, math.ceil((size - counts.counts[name]) / align) * align) for name, size in sizes.items()}
    return {name: bottom_k(score, sizes[name] - kept[name]) for name, score in scores.items()}


def _lowest_of_all(lines: Mapping[Name, Tensor], counts: Overall) -> dict[Name, Tensor]:
    """Rank the entries of all lines together."""
    selected = bottom_k(torch.cat(list(lines.values())), counts.count)
    return dict(zip(lines, torch.split(selected, [len(line) for line in lines.values()]), strict=True))
