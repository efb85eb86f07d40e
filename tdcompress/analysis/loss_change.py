"""|delta E|: the change of the loss that pruning is expected to make, to second order (Equation 3, Table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdcompress.analysis.curvature import Batches, SummedLoss, cross_entropy, curvature, flat, mean_loss
from tdcompress.functional import functional_call
from tdcompress.sparsity.masks import Masks


@dataclass(frozen=True, kw_only=True)
class LossChange:
    """Terms of E(theta - d) - E(theta), where d is theta at the pruned weights and 0 elsewhere.

    Attributes:
        gradient_term: -gradient . d
        curvature_term: 1/2 d' H d
        measured: the change itself.
    """

    gradient_term: float
    curvature_term: float
    measured: float

    @property
    def estimate(self) -> float:
        """|delta E| of Table 1: the absolute value of both terms' sum."""
        return abs(self.gradient_term + self.curvature_term)


def loss_change(model: nn.Module, batches: Batches, masks: Masks, loss: SummedLoss = cross_entropy) -> LossChange:
    """The loss that pruning adds, estimated and measured.

    Args:
        model: unpruned, in eval mode.
        batches: all of the data set.
        masks: by parameter name, True = kept.
        loss: of a batch.
    """
    names = tuple(masks)
    params = dict(model.named_parameters())
    removed = flat([params[name].detach().masked_fill(masks[name], 0.0) for name in names])
    found = curvature(model, batches, names, removed[None], loss=loss)
    pruned = {name: params[name].detach().masked_fill(~masks[name], 0.0) for name in names}
    return LossChange(
        gradient_term=-float(found.gradient @ removed),
        curvature_term=0.5 * float(found.products[0] @ removed),
        measured=mean_loss(_Swapped(model, pruned), batches, loss) - found.loss,
    )


class _Swapped(nn.Module):
    """A network that runs with other parameters."""

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.swapped = dict(parameters)

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.no_grad():
            output: Tensor = functional_call(self.model, self.swapped, inputs)
        return output
