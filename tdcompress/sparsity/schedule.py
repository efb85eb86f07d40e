"""How gamma and alpha change while a network trains."""

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Shares of the final targeting proportion and drop rate that hold at a moment of training."""

    def gamma_share(self, epoch: float) -> float:
        """Share of the final gamma, 0..1."""

    def alpha_share(self, epoch: float) -> float:
        """Share of the final alpha, 0..1."""


@dataclass(frozen=True)
class Constant:
    """The same gamma and alpha from the first step to the last."""

    def gamma_share(self, epoch: float) -> float:  # noqa: D102
        return 1.0

    def alpha_share(self, epoch: float) -> float:  # noqa: D102
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Ramping targeted dropout (section 5.5): slowly from the dense network to the sparse one.

    gamma rises linearly to 95 % of its value in the first ``epochs[0]`` epochs and by the other 5 % in the next ``epochs[1]``;
    alpha rises linearly over both. The paper's "first ninety-eight steps" for alpha are epochs (the released code says so).

    Attributes:
        epochs: lengths of the two parts; the papers' are 49 and 49.
    """

    epochs: tuple[float, float] = (49.0, 49.0)

    def __post_init__(self) -> None:
        if not all(0 < length < float("inf") for length in self.epochs):
            raise ValueError(f"ramp_epochs = {list(self.epochs)}: both lengths have to be above 0")

    @property
    def length(self) -> float:
        """Epochs until gamma and alpha are full."""
        return sum(self.epochs)

    def gamma_share(self, epoch: float) -> float:  # noqa: D102
        first, second = self.epochs
        return 0.95 * min(1.0, epoch / first) + 0.05 * min(1.0, max(0.0, (epoch - first) / second))

    def alpha_share(self, epoch: float) -> float:  # noqa: D102
        return min(1.0, epoch / self.length)
