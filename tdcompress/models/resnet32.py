"""ResNet-32 of the papers' released code: 1,857,498 parameters with 10 classes.

The text says "the original ResNet"; the code has pre-activation units, a 7x7 stem of 16 filters and stages of 32, 64 and
128 filters, five units each. 1,849,344 weights are prunable: all matrices but stem and logits.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tdcompress.models.base import ClassifierSettings, Image, require_side
from tdcompress.models.initialise import glorot_normal
from tdcompress.models.preactivation import PreActivationResNet


@dataclass(frozen=True, kw_only=True)
class ResNet32Settings(ClassifierSettings):
    """``name = "resnet32"``.

    Attributes:
        prune_stem: let methods and pruning touch the 7x7 stem, which the released code leaves out.
    """

    name: ClassVar[str] = "resnet32"
    prune_stem: bool = False

    def classifier(self, classes: int, image: Image) -> nn.Module:  # noqa: D102
        require_side(self.name, image, 4)
        model = PreActivationResNet(
            classes=classes,
            channels=image[0],
            stem_filters=16,
            stem_kernel=7,
            filters=(32, 64, 128),
            units=5,
            norm_momentum=1.0 - 0.997,  # TensorFlow counts what stays
            norm_epsilon=1e-3,
            prune_stem=self.prune_stem,
        )
        glorot_normal(model)
        return model
