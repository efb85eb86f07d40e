"""ResNet-20, -32 and -56 for CIFAR as in He et al. (2015), section 4.2: 0.27, 0.46 and 0.85 M parameters.

Most later pruning papers use them. Not to be confused with "resnet32", which is targeted dropout's own network of 1.86 M.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.basic_resnet import BasicResNet, Shortcut
from tdcompress.models.initialise import he_normal


@dataclass(frozen=True, kw_only=True)
class CifarResNetSettings(ClassifierSettings):
    """What the three depths share: stages of 16, 32 and 64 filters with ``units`` residual units each.

    Attributes:
        shortcut: where a stage begins, "pad" as published (no parameters; channels of the residual stream keep their places, so
            that they cannot be removed) or "projection" (conv1x1-BN).
        prune_stem: let methods and pruning touch the stem.
    """

    units: ClassVar[int]
    shortcut: Shortcut = "pad"
    prune_stem: bool = False

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 4)
        model = BasicResNet(
            classes=classes,
            channels=image[0],
            filters=(16, 32, 64),
            units=self.units,
            shortcut=self.shortcut,
            prune_stem=self.prune_stem,
        )
        he_normal(model)
        return model


@dataclass(frozen=True, kw_only=True)
class CifarResNet20Settings(CifarResNetSettings):
    """``name = "cifar_resnet20"``: 269,722 parameters with 10 classes."""

    name: ClassVar[str] = "cifar_resnet20"
    units: ClassVar[int] = 3


@dataclass(frozen=True, kw_only=True)
class CifarResNet32Settings(CifarResNetSettings):
    """``name = "cifar_resnet32"``: 464,154 parameters with 10 classes."""

    name: ClassVar[str] = "cifar_resnet32"
    units: ClassVar[int] = 5


@dataclass(frozen=True, kw_only=True)
class CifarResNet56Settings(CifarResNetSettings):
    """``name = "cifar_resnet56"``: 853,018 parameters with 10 classes."""

    name: ClassVar[str] = "cifar_resnet56"
    units: ClassVar[int] = 9
