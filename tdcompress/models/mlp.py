"""One hidden layer of ReLU units: the network of the papers' dependence analysis (section 5.1)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tdcompress.models.base import ClassifierSettings, Image
from tdcompress.models.initialise import glorot_normal


class Mlp(nn.Module):
    """Flatten, linear, ReLU, linear.

    Args:
        classes: how many.
        image: channels, height and width in pixels.
        hidden: units.
    """

    unprunable = ("head",)

    def __init__(self, classes: int, image: Image, hidden: int) -> None:
        super().__init__()
        channels, height, width = image
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(channels * height * width, hidden)
        self.relu = nn.ReLU()
        self.head = nn.Linear(hidden, classes)
        glorot_normal(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.head(self.relu(self.hidden(self.flatten(x_BCHW))))
        return logits


@dataclass(frozen=True, kw_only=True)
class MlpSettings(ClassifierSettings):
    """``name = "mlp"``.

    Attributes:
        hidden: number of hidden units; the papers' 10.
    """

    name: ClassVar[str] = "mlp"
    hidden: int = 10

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden: number of units, 1 or more, not {self.hidden}")

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        return Mlp(classes, image, self.hidden)
