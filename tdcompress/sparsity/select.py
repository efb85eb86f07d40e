"""The one selection rule: exactly the k lowest scores, ties broken by index. Training and pruning both call it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tdcompress.sparsity.scores import filter_rows, from_rows, protect_largest
from tdcompress.sparsity.shares import Counts, Overall, PerFilter, PerLayer
from tdcompress.sparsity.units import Slot


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
    rows = {slot.parameter: filter_rows(scores[slot.parameter], slot) for slot in weights}
    chosen = lowest_rows(rows, counts)
    return {s.parameter: from_rows(chosen[s.parameter], scores[s.parameter].shape, s) for s in weights}


def lowest_rows(rows: Mapping[str, Tensor], counts: Counts) -> dict[str, Tensor]:
    """Select the lowest scores of matrices (R, n), by name: of each row, of each matrix, or of all.

    Rows that are ranked together with others keep their largest score.

    Returns:
        By name, bool (R, n): True = selected.
    """
    if isinstance(counts, PerFilter):
        return {name: bottom_k(scores, counts.counts[name]) for name, scores in rows.items()}
    lines = {name: protect_largest(scores).flatten() for name, scores in rows.items()}
    if isinstance(counts, PerLayer):
        chosen = {name: bottom_k(line, counts.counts[name]) for name, line in lines.items()}
    else:
        chosen = _lowest_of_all(lines, counts)
    return {name: selected.view_as(rows[name]) for name, selected in chosen.items()}


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
        selected = _lowest_of_all({name: protect_largest(score[None])[0] for name, score in scores.items()}, counts)
        if align == 1:
            return selected
        counts = PerLayer(counts={name: int(chosen.sum()) for name, chosen in selected.items()})
    sizes = {name: len(score) for name, score in scores.items()}
    kept = {name: min(size, math.ceil((size - counts.counts[name]) / align) * align) for name, size in sizes.items()}
    return {name: bottom_k(score, sizes[name] - kept[name]) for name, score in scores.items()}


def _lowest_of_all(lines: Mapping[str, Tensor], counts: Overall) -> dict[str, Tensor]:
    """Rank the entries of all lines together."""
    selected = bottom_k(torch.cat(list(lines.values())), counts.count)
    return dict(zip(lines, torch.split(selected, [len(line) for line in lines.values()]), strict=True))
