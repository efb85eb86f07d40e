"""THE selection rule: exactly the k lowest scores of each row, ties broken by index. Training and pruning both call it."""

from decimal import Decimal

import numpy as np
import torch
from torch import Tensor


def pruned_count(size: int, *, fraction: float | None = None, keep_per_filter: int | None = None) -> int:
    """How many of ``size`` elements are selected: floor(fraction * size), or all but ``keep_per_filter``.

    The fraction counts as the decimal it is written as: 0.29 of 100 is 29, though ``floor(0.29 * 100)`` is 28 in floats.

    Args:
        size: number of elements that are ranked together.
        fraction: selected share, in [0, 1].
        keep_per_filter: elements that stay (Xtreme, section 5.6), at least 1.

    Raises:
        ValueError: not exactly one of the two is given, or it is out of range.
    """
    if (fraction is None) == (keep_per_filter is None):
        raise ValueError("give either fraction or keep_per_filter, not both or neither")
    if keep_per_filter is not None:
        if keep_per_filter < 1:
            raise ValueError(f"keep_per_filter = {keep_per_filter}: at least 1 has to stay")
        return max(0, size - keep_per_filter)
    assert fraction is not None
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction = {fraction}: it has to lie in 0..1")
    return int(Decimal(repr(float(fraction))) * size)


def bottom_k(scores: Tensor, k: int) -> Tensor:
    """Select exactly the ``k`` lowest scores of each row (Equations 1 and 2 keep the others).

    Of equal scores the one with the lower index is selected first, so the result depends on nothing but the scores.

    Args:
        scores: (..., n), finite; on any device.
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
