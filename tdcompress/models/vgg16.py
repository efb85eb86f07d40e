"""VGG-16 with BatchNorm for CIFAR-100 (Simonyan and Zisserman, 2014, configuration D), as the papers' released code has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.initialise import glorot_normal

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN = 4096


class Vgg16(nn.Module):
    """Thirteen conv3x3-BN-ReLU with five 2x2 max poolings, linear-BN, linear-BN, logits.

    There is no ReLU between the linear layers, as released. Layers before a BatchNorm have no bias.

    Args:
        classes: number of logits.
        image: (C, H, W) of its input.
        stages: filters of each convolution, a max pooling after each stage.
        hidden: units of each of the two linear layers.
    """

    unprunable = ("head",)

    def __init__(self, classes: int, image: Image, stages: Sequence[Sequence[int]] = STAGES, hidden: int = HIDDEN) -> None:
        super().__init__()
        channels, height, width = image
        layers: list[nn.Module] = []
        for stage in stages:
            for filters in stage:
                layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        shrunk = 2 ** len(stages)
        self.hidden1 = nn.Linear(channels * (height // shrunk) * (width // shrunk), hidden, bias=False)
        self.norm1 = nn.BatchNorm1d(hidden)
        self.hidden2 = nn.Linear(hidden, hidden, bias=False)
        self.norm2 = nn.BatchNorm1d(hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # noqa: D102
        x_BC = self.flatten(self.features(x_BCHW))
        x_BC = self.norm2(self.hidden2(self.norm1(self.hidden1(x_BC))))
        logits: Tensor = self.head(x_BC)
        return logits


@dataclass(frozen=True, kw_only=True)
class Vgg16Settings(ClassifierSettings):
    """``name = "vgg16"``: no keys of its own."""

    name: ClassVar[str] = "vgg16"

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 32)
        model = Vgg16(classes, image)
        glorot_normal(model)
        return model
