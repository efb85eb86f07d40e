"""LeNet-5 as the papers' released code has it for CIFAR-10: two 5x5 convolutions, 500 hidden units (208,382 parameters)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.initialise import glorot_normal


class LeNet5(nn.Module):
    """Unpadded 5x5 convolutions with 6 and 16 filters, ReLU and 2x2 max pooling after each; 500 ReLU units; logits."""

    unprunable = ("head",)

    def __init__(self, classes: int, image: Image) -> None:
        super().__init__()
        channels, height, width = image
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(16 * _side(height) * _side(width), 500)
        self.head = nn.Linear(500, classes)
        glorot_normal(self, conv_bias=0.1)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        x_BCHW = self.pool(self.relu(self.conv1(x_BCHW)))
        x_BCHW = self.pool(self.relu(self.conv2(x_BCHW)))
        logits: Tensor = self.head(self.relu(self.hidden(self.flatten(x_BCHW))))
        return logits


def _side(side: int) -> int:
    """What two unpadded 5x5 convolutions with 2x2 pooling leave of a side: 32 -> 5."""
    return ((side - 4) // 2 - 4) // 2


@dataclass(frozen=True, kw_only=True)
class LeNet5Settings(ClassifierSettings):
    """``name = "lenet5"``: no keys of its own."""

    name: ClassVar[str] = "lenet5"

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 16)
        return LeNet5(classes, image)
