"""Plain dropout of weights (DropConnect, Wan et al. 2013) or units (Srivastava et al. 2014): section 2.2."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tdcompress.methods.base import Method, MethodSettings, Parameters, TrainStep
from tdcompress.methods.gates import Gated, shapes
from tdcompress.sparsity.units import Targets


class Dropout(Gated):
    """Every prunable weight, or every unit, is dropped with the same probability, once per optimizer step.

    The papers write (X * M) W for units: a masked input of one layer is a masked unit of the layer before. One mask holds for the
    whole batch, as in the released code, where Srivastava et al. draw one for each sample.
    """

    def __init__(self, targets: Targets, settings: "DropoutSettings") -> None:
        super().__init__(targets, settings.granularity)
        self.settings = settings
        self.kept: dict[str, Tensor] = {}

    def begin_step(self, params: Parameters, step: TrainStep, generator: torch.Generator) -> None:  # noqa: D102
        alpha = self.settings.alpha
        value = 1 / (1 - alpha) if self.settings.rescale else 1.0
        like = next(iter(params.values()))
        for name, shape in shapes(self.targets, self.granularity, params).items():
            dropped = torch.rand(shape, generator=generator, device=like.device) < alpha
            self.kept[name] = like.new_full((), value).expand(shape).masked_fill(dropped, 0.0)

    def effective(self, params: Parameters) -> dict[str, Tensor]:  # noqa: D102
        return self.gated(params, self.kept)

    def metrics(self, step: TrainStep) -> dict[str, float]:  # noqa: D102
        return {"alpha": self.settings.alpha}


@dataclass(frozen=True, kw_only=True)
class DropoutSettings(MethodSettings):
    """``method = "dropout"``; magnitude ranks what is pruned.

    Attributes:
        alpha: drop rate. The comparisons match it to targeted dropout's expected one, gamma * alpha.
        rescale: multiply what stays by 1/(1 - alpha), as the released code does; the papers write no rescaling.
    """

    name: ClassVar[str] = "dropout"
    alpha: float = 0.25
    rescale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha: {self.alpha} is not in 0 <= alpha < 1")

    def build(self, targets: Targets, model: nn.Module, seed: int = 0) -> Method:  # noqa: D102
        return Dropout(targets, self)
