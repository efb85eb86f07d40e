"""The L1 penalty, alone or beside another method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdcompress.methods.base import Parameters, UntargetedSettings
from tdcompress.sparsity.units import Slot


def l1_penalty(params: Parameters, weights: Sequence[Slot], beta: float) -> Tensor:
    """L1 strength beta times the sum over the prunable layers of mean |w|.

    The papers write beta * |theta|_1; the released code takes the mean of each layer, and only so do the published betas (0.1,
    0.01) make sense.

    Args:
        params: the network's, by name.
        weights: the prunable ones.
        beta: strength.
    """
    return beta * torch.stack([params[slot.parameter].abs().mean() for slot in weights]).sum()


@dataclass(frozen=True, kw_only=True)
class L1Settings(UntargetedSettings):
    """``method = "l1"``: the penalty alone, with its strength in ``l1``; magnitude ranks what is pruned."""

    name: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l1 <= 0:
            raise ValueError('l1: method = "l1" needs a strength above 0, l1 = 0.1 for example')
