"""ResNet-18 in its form for 32x32 images: 3x3 stem without pooling, stages of 64 to 512 filters (11,173,962 parameters)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.basic_resnet import BasicResNet
from tdcompress.models.initialise import he_normal


@dataclass(frozen=True, kw_only=True)
class ResNet18Settings(ClassifierSettings):
    """``name = "resnet18"``; for ImageNet's form take "torchvision/resnet18".

    Attributes:
        prune_stem: let methods and pruning touch the stem.
    """

    name: ClassVar[str] = "resnet18"
    prune_stem: bool = False

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 8)
        model = BasicResNet(
            classes=classes,
            channels=image[0],
            filters=(64, 128, 256, 512),
            units=2,
            shortcut="projection",
            prune_stem=self.prune_stem,
        )
        he_normal(model)
        return model
