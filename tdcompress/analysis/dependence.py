"""The matrix theta * H * theta: how the loss depends on pairs of weights (section 5.1, Figure 1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdcompress.analysis.curvature import Batches, SummedLoss, cross_entropy, curvature, flat
from tdcompress.errors import UserError
from tdcompress.sparsity.masks import Masks


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """theta_i H_ij theta_j, summed over bins of weights.

    Attributes:
        matrix: (bins, bins); entry (a, b) is the sum over i in bin a and j in bin b.
        kept_bins: the first bins hold the weights that stay, the others those that are pruned.
    """

    matrix: Tensor
    kept_bins: int


def dependence_matrix(
    model: nn.Module,
    batches: Batches,
    masks: Masks,
    *,
    bins: int,
    loss: SummedLoss = cross_entropy,
    progress: Callable[[int], None] = lambda done: None,
) -> Dependence:
    """The matrix of Figure 1 with its rows and columns ordered: what stays first, and in both parts the largest |theta| first.

    The paper draws the matrix itself, which has 944 million entries for 30,720 weights. Here neighbours are summed into bins.
    That takes one Hessian-vector product for a bin, and every sum over whole bins stays exact. As many bins as weights give the
    matrix itself. No bin holds both kept and pruned weights.

    Args:
        model: unpruned, in eval mode.
        batches: all of the data set.
        masks: by parameter name, True = kept.
        bins: how many.
        loss: of a batch.
        progress: called after each batch with the number of batches done.

    Raises:
        UserError: more bins than weights, or fewer than one for each of the two parts.
    """
    names = tuple(masks)
    params = dict(model.named_parameters())
    weights = flat([params[name].detach() for name in names])
    kept = flat([masks[name] for name in names])
    bin_of, kept_bins = assign_bins(weights.abs(), kept, bins)
    vectors = torch.zeros(bins, len(weights), dtype=weights.dtype, device=weights.device)
    vectors[bin_of, torch.arange(len(weights), device=weights.device)] = weights
    products = curvature(model, batches, names, vectors, loss=loss, progress=progress).products
    return Dependence(matrix=vectors @ products.T, kept_bins=kept_bins)


def assign_bins(magnitudes: Tensor, kept: Tensor, bins: int) -> tuple[Tensor, int]:
    """The bin of each weight, and how many bins hold what stays.

    Args:
        magnitudes: (N,).
        kept: bool (N,).
        bins: shared out in proportion to the two parts' sizes; a part that has weights gets at least one bin.

    Raises:
        UserError: more bins than weights, or fewer than parts.
    """
    count, kept_count = len(magnitudes), int(kept.sum())
    parts = (kept_count > 0) + (kept_count < count)
    if not parts <= bins <= count:
        raise UserError(f"bins: {bins}, but there are {count} weights in {parts} parts; give {parts} to {count}")
    kept_bins = round(bins * kept_count / count)
    kept_bins = min(max(kept_bins, int(kept_count > 0), bins - (count - kept_count)), bins - int(kept_count < count), kept_count)
    order = torch.argsort(magnitudes, descending=True, stable=True)
    order = torch.cat([order[kept[order]], order[~kept[order]]])
    bin_of = torch.empty_like(order)
    for first, members, number in ((0, order[:kept_count], kept_bins), (kept_bins, order[kept_count:], bins - kept_bins)):
        if number:
            for index, members_of_bin in enumerate(members.tensor_split(number)):
                bin_of[members_of_bin] = first + index
    return bin_of, kept_bins
