"""Wide ResNet (Zagoruyko and Komodakis, 2016); 28-10 by default: 36,479,194 parameters with 10 classes."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.initialise import he_normal
from tdcompress.models.preactivation import PreActivationResNet


@dataclass(frozen=True, kw_only=True)
class WideResNetSettings(ClassifierSettings):
    """``name = "wide_resnet"``: three stages of (depth - 4) / 6 units, with 16, 32 and 64 times ``width`` filters.

    Attributes:
        depth: number of convolutions counted as the paper does: 10, 16, 22, 28, 34, 40, ...
        width: how many times wider than a ResNet for CIFAR.
        prune_stem: let methods and pruning touch the 3x3 stem.
    """

    name: ClassVar[str] = "wide_resnet"
    depth: int = 28
    width: int = 10
    prune_stem: bool = False

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth: 10, 16, 22, 28, ... (6 n + 4), not {self.depth}")
        if self.width < 1:
            raise ValueError(f"width: a factor of 1 or more, not {self.width}")

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 4)
        model = PreActivationResNet(
            classes=classes,
            channels=image[0],
            stem_filters=16,
            stem_kernel=3,
            filters=(16 * self.width, 32 * self.width, 64 * self.width),
            units=(self.depth - 4) // 6,
            norm_momentum=0.1,
            norm_epsilon=1e-5,
            prune_stem=self.prune_stem,
        )
        he_normal(model)
        return model
