"""No method: the network trains as it is."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.methods.base import Method, MethodSettings
from tdcompress.sparsity.units import Targets


@dataclass(frozen=True, kw_only=True)
class NoneSettings(MethodSettings):
    """``method = "none"``: the baseline of every table. Magnitude ranks what is pruned."""

    name: ClassVar[str] = "none"
    patterned: ClassVar[bool] = True

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return Method(targets)
