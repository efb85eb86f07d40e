"""A small convolutional network with BatchNorm for images of 8x8 and more; it trains in seconds on a CPU."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.initialise import he_normal


class DigitsCnn(nn.Module):
    """Three 3x3 convolutions with BatchNorm and ReLU, two 2x2 max poolings, a hidden linear layer, logits.

    Args:
        classes: how many.
        image: channels, height and width in pixels.
        width: filters of the first layer.
        hidden: units of the linear layer.
    """

    unprunable = ("head",)

    def __init__(self, classes: int, image: Image, width: int, hidden: int) -> None:
        super().__init__()
        channels, height, width_of_image = image
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(2 * width)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(2 * width * (height // 4) * (width_of_image // 4), hidden)
        self.head = nn.Linear(hidden, classes)
        he_normal(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        x_BCHW = self.relu(self.norm1(self.conv1(x_BCHW)))
        x_BCHW = self.pool(self.relu(self.norm2(self.conv2(x_BCHW))))
        x_BCHW = self.pool(self.relu(self.norm3(self.conv3(x_BCHW))))
        logits: Tensor = self.head(self.relu(self.hidden(self.flatten(x_BCHW))))
        return logits


@dataclass(frozen=True, kw_only=True)
class DigitsCnnSettings(ClassifierSettings):
    """``name = "digits_cnn"``.

    Attributes:
        width: filters of the first convolution; the other two have twice as many.
        hidden: units of the hidden linear layer.
    """

    name: ClassVar[str] = "digits_cnn"
    width: int = 32
    hidden: int = 128

    def __post_init__(self) -> None:
        for key in ("width", "hidden"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: a number of units, 1 or more, not {getattr(self, key)}")

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 4)
        return DigitsCnn(classes, image, self.width, self.hidden)
